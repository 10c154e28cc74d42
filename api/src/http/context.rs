//! The outermost layer: gives each request its trace and id, renders problems, counts and logs.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
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
    trace_id: String,
    span_id: String,
    flags: String,
}

impl Trace {
    fn of(headers: &HeaderMap) -> Self {
        let parent = headers.get(schemas::HEADER_TRACEPARENT).and_then(|value| value.to_str().ok());
        let (trace_id, flags) = parent
            .and_then(parse_traceparent)
            .unwrap_or_else(|| (Uuid::new_v4().simple().to_string(), "01".to_owned()));
        let span_id = Uuid::new_v4().simple().to_string().split_off(16);
        Self { trace_id, span_id, flags }
    }

    pub(crate) fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// As it is passed on in Kafka headers, and given back as `traceresponse`.
    pub(crate) fn traceparent(&self) -> String {
        format!("00-{}-{}-{}", self.trace_id, self.span_id, self.flags)
    }
}

/// Trace id and flags of a valid version 00 `traceparent`.
fn parse_traceparent(text: &str) -> Option<(String, String)> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let nonzero = |part: &str| part.bytes().any(|b| b != b'0');
    let valid = version == "00"
        && parts.next().is_none()
        && hex(trace, 32)
        && hex(span, 16)
        && hex(flags, 2)
        && nonzero(trace)
        && nonzero(span);
    valid.then(|| (trace.to_owned(), flags.to_owned()))
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
}

/// Puts [`Trace`] and [`Visit`] into the request's extensions; trace, request id and what protects a browser onto every
/// answer.
pub(crate) async fn around(
    State(Around { metrics, edge }): State<Around>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let trace = Trace::of(request.headers());
    let request_id = request_id(request.headers());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
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
    let mut rendered = problem.render(trace.trace_id());
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
            .layer(middleware::from_fn_with_state(Around { metrics, edge }, around));
        let written = Written::default();
        let writer = written.clone();
        let logs = tracing_subscriber::fmt()
            .with_env_filter("access=debug")
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
    fn a_valid_traceparent_is_continued_and_a_bad_one_is_replaced() {
        let mut headers = HeaderMap::new();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        headers.insert("traceparent", HeaderValue::from_static(parent));
        let trace = Trace::of(&headers);
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(trace.traceparent().ends_with("-00") && trace.traceparent() != parent);
        for bad in ["00-0-0-0", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "x"] {
            assert_eq!(parse_traceparent(bad), None, "{bad}");
        }
    }
}
