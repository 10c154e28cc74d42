//! The outermost layer: gives each request its trace and id, renders problems, counts and logs.

use std::time::{Duration, Instant, SystemTime};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use traces::{KeyValue, Span, SpanKind, TraceContext, Tracer};
use uuid::Uuid;

use crate::edge::{Edge, Visit, secured};
use crate::metrics::HttpMetrics;
use crate::orders::prefer::Waited;
use crate::problem::Problem;

const X_REQUEST_ID: &str = "x-request-id";
const TRACERESPONSE: &str = "traceresponse";
/// Longest request id of a client that is passed on, characters.
const MAX_REQUEST_ID: usize = 128;

/// W3C trace context of one request: the caller's trace, or a new one, and a span of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    own: TraceContext,
    caller: Option<TraceContext>,
}

impl Trace {
    /// A caller's trace id is kept. Whether the trace is sampled is for the tracer to say; without one it is not.
    fn of(headers: &HeaderMap, tracer: Option<&Tracer>) -> Self {
        let caller = headers.get(schemas::HEADER_TRACEPARENT).and_then(|value| value.to_str().ok());
        let caller = caller.and_then(TraceContext::parse);
        let own = caller.map_or_else(|| TraceContext::root(false), TraceContext::child);
        let is_sampled = tracer.is_some_and(|tracer| tracer.samples(caller.as_ref(), &own));
        Self { own: own.sampled(is_sampled), caller }
    }

    pub(crate) fn trace_id(&self) -> String {
        self.own.trace_id()
    }

    /// As it is passed on in Kafka headers, and given back as `traceresponse`.
    pub(crate) fn traceparent(&self) -> String {
        self.own.to_string()
    }
}

/// The span of a sampled request; ends when dropped, also if the client went away before there was an answer.
struct RequestSpan {
    tracer: Tracer,
    trace: Trace,
    began: SystemTime,
    method: Method,
    route: String,
    status: Option<StatusCode>,
}

impl RequestSpan {
    fn begin(tracer: Option<&Tracer>, trace: &Trace, method: &Method, route: &str) -> Option<Self> {
        let tracer = tracer.filter(|_| trace.own.is_sampled())?;
        Some(Self {
            tracer: tracer.clone(),
            trace: trace.clone(),
            began: SystemTime::now(),
            method: method.clone(),
            route: route.to_owned(),
            status: None,
        })
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method.to_string()),
            KeyValue::new("http.route", self.route.clone()),
        ];
        let status = self.status.map(|status| i64::from(status.as_u16()));
        attributes.extend(status.map(|status| KeyValue::new("http.response.status_code", status)));
        self.tracer.end(Span {
            context: self.trace.own,
            parent: self.trace.caller,
            kind: SpanKind::Server,
            name: format!("{} {}", self.method, self.route).into(),
            began: self.began,
            failed: self.status.is_none_or(|status| status.is_server_error()),
            attributes,
        });
    }
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let theirs = headers.get(X_REQUEST_ID).filter(|value| {
        (1..=MAX_REQUEST_ID).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    match theirs {
        Some(value) => value.clone(),
        None => HeaderValue::from_str(&Uuid::now_v7().to_string())
            .unwrap_or_else(|_never| HeaderValue::from_static("-")),
    }
}

/// What the outermost layer needs.
#[derive(Debug, Clone)]
pub(crate) struct Around {
    pub(crate) metrics: HttpMetrics,
    pub(crate) edge: Edge,
    pub(crate) tracer: Option<Tracer>,
}

/// Puts [`Trace`] and [`Visit`] into the request's extensions; trace, request id and what protects a browser onto every
/// answer.
pub(crate) async fn around(
    State(Around { metrics, edge, tracer }): State<Around>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let trace = Trace::of(request.headers(), tracer.as_ref());
    let request_id = request_id(request.headers());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let mut span = RequestSpan::begin(tracer.as_ref(), &trace, &method, &route);
    request.extensions_mut().insert(trace.clone());
    let visit = Visit::new(&edge, &request);
    request.extensions_mut().insert(visit.clone());
    let mut response = render(next.run(request).await, &trace);
    if let Ok(traceresponse) = HeaderValue::from_str(&trace.traceparent()) {
        response.headers_mut().insert(TRACERESPONSE, traceresponse);
    }
    secured(response.headers_mut(), &visit);
    // What a client wanted to wait is not latency; a stream counts until its head.
    let waited = response.extensions_mut().remove::<Waited>().map_or(Duration::ZERO, |Waited(waited)| waited);
    if let Some(span) = &mut span {
        span.status = Some(response.status());
    }
    let (status, took) = (response.status(), begun.elapsed().saturating_sub(waited));
    metrics.answered(&route, &method, status, took);
    let answered = Answered { method: &method, route: &route, status, took, request_id: &request_id };
    answered.log(&trace, &visit);
    response.headers_mut().insert(X_REQUEST_ID, request_id);
    response
}

/// A line of the access log: neither addresses, query strings, bodies nor tokens.
struct Answered<'a> {
    method: &'a Method,
    route: &'a str,
    status: StatusCode,
    took: Duration,
    request_id: &'a HeaderValue,
}

impl Answered<'_> {
    /// At level `debug`, so that it costs nothing unless asked for: `RUST_LOG=info,access=debug`.
    fn log(&self, trace: &Trace, visit: &Visit) {
        if !tracing::enabled!(target: "access", tracing::Level::DEBUG) {
            return;
        }
        tracing::debug!(
            target: "access",
            method = %self.method,
            route = self.route,
            status = self.status.as_u16(),
            took_us = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            request_id = self.request_id.to_str().unwrap_or_default(),
            trace_id = trace.trace_id(),
            customer_id = visit.customer().map(tracing::field::display),
            "answered"
        );
    }
}

/// Any error that is not yet a problem document becomes one.
fn render(mut response: Response, trace: &Trace) -> Response {
    let status = response.status();
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if status.is_client_error() || status.is_server_error() => Problem::of_status(status),
        None => return response,
    };
    if status.is_server_error() {
        // A dependency that is away is logged where that is noticed.
        tracing::debug!(trace_id = trace.trace_id(), status = status.as_u16(), problem = ?problem, "request failed");
    }
    let mut rendered = problem.render(&trace.trace_id());
    for (name, value) in response.headers() {
        let about_old_body =
            name == axum::http::header::CONTENT_LENGTH || name == axum::http::header::CONTENT_TYPE;
        if !about_old_body && !rendered.headers().contains_key(name) {
            rendered.headers_mut().insert(name.clone(), value.clone());
        }
    }
    rendered
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use axum::body::Body;
    use axum::routing::get;
    use axum::{Router, middleware};
    use tower::ServiceExt as _;

    use super::*;
    use crate::edge::EdgeSettings;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_access_log_tells_what_was_asked_and_no_secret() {
        let registry = prometheus::Registry::new();
        let metrics = HttpMetrics::register(&registry).unwrap();
        let edge = Edge::new(EdgeSettings::default(), &registry).unwrap();
        let routes = Router::new()
            .route("/things/{id}", get(|| async { "fine" }))
            .layer(middleware::from_fn_with_state(Around { metrics, edge, tracer: None }, around));
        let written = Written::default();
        let writer = written.clone();
        let logs = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let _as_long_as_this_test = tracing::subscriber::set_default(logs);
        let request = Request::get("/things/private-id?token=query-secret")
            .header("authorization", "Bearer header-secret")
            .header("cookie", "cookie-secret")
            .header("x-request-id", "mine")
            .body(Body::empty())
            .unwrap();
        routes.oneshot(request).await.unwrap();
        let said = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        for told in
            ["method=GET", "route=\"/things/{id}\"", "status=200", "took_us=", "\"mine\"", "trace_id="]
        {
            assert!(said.contains(told), "{told}: {said}");
        }
        assert!(!said.contains("secret") && !said.contains("private-id"), "{said}");
    }

    #[test]
    fn a_callers_trace_is_continued_and_without_a_tracer_nothing_is_sampled() {
        let mut headers = HeaderMap::new();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert("traceparent", HeaderValue::from_static(parent));
        let trace = Trace::of(&headers, None);
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(trace.traceparent().ends_with("-00") && trace.traceparent() != parent);
        headers.insert("traceparent", HeaderValue::from_static("00-0-0-0"));
        let trace = Trace::of(&headers, None);
        assert_eq!((trace.caller, trace.own.is_sampled()), (None, false));
    }
}
