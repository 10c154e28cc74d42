"""A payment provider over HTTP: provider.py PORT. Charges once per key; POST /mode/NAME says how it behaves, GET /book the keys it charged.

fine; failing: 500, nothing done; hanging: done, but the answer comes only after the mode has changed. Whatever the mode, a charge by
the method `card_slow` hangs until POST /mode/released.
"""

import http.server
import json
import sys
import threading

book, changed, mode, released = set(), threading.Condition(), "fine", False


class Provider(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def do_GET(self):
        with changed:
            if self.path == "/book":
                return self.answer(200, sorted(book))
            if mode == "failing":
                return self.answer(500, {})
            changed.wait_for(lambda: mode != "hanging")
            known = self.path.rpartition("/")[2] in book
        self.answer(200, {"status": "approved", "reference": "r"}) if known else self.answer(404, {"status": "not_found"})

    def do_POST(self):
        global mode, released
        body = self.body()
        with changed:
            if self.path.startswith("/mode/"):
                asked = self.path.rpartition("/")[2]
                released = released or asked == "released"
                mode = mode if asked == "released" else asked
                changed.notify_all()
                return self.answer(200, {})
            if mode == "failing":
                return self.answer(500, {})
            if self.path == "/charges":
                book.add(self.headers["idempotency-key"])
                slow = json.loads(body)["method"] == "card_slow"
                changed.wait_for(lambda: mode != "hanging" and (released or not slow))
                return self.answer(200, {"status": "approved", "reference": "r"})
            # A void: what was charged stays so.
            key = self.path.split("/")[2]
            known = key in book
        self.answer(200, {"status": "approved", "reference": "r"}) if known else self.answer(404, {"status": "not_found"})

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


Server(("127.0.0.1", int(sys.argv[1])), Provider).serve_forever()
