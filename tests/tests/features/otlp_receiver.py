"""A collector: otlp_receiver.py PORT. Takes spans over OTLP as anybody's collector does, and tells them at GET /TRACE_ID."""

import http.server
import json
import sys
import threading

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

spans, lock = [], threading.Lock()


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        with lock:
            for resource in request.resource_spans:
                about = attributes(resource.resource.attributes)
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    spans.append({
                        "trace": span.trace_id.hex(),
                        "id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "name": span.name,
                        "kind": span.kind,
                        "failed": span.status.code == 2,
                        "took_ns": span.end_time_unix_nano - span.start_time_unix_nano,
                        "began_ns": span.start_time_unix_nano,
                        "service": about.get("service.name"),
                        "resource": about,
                        "attributes": attributes(span.attributes),
                    })
        self.answer(200, "application/x-protobuf", ExportTraceServiceResponse().SerializeToString())

    def do_GET(self):
        with lock:
            found = [span for span in spans if span["trace"] == self.path[1:]]
        self.answer(200, "application/json", json.dumps(found).encode())

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Collector).serve_forever()
