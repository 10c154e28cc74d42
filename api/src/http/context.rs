//! The outermost layer: gives each request its trace and id, renders problems, counts and logs.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

use crate::metrics::HttpMetrics;
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

/// Puts [`Trace`] into the request's extensions, and trace and request id onto every answer.
pub(crate) async fn around(State(metrics): State<HttpMetrics>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let trace = Trace::of(request.headers());
    let request_id = request_id(request.headers());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    request.extensions_mut().insert(trace.clone());
    let mut response = render(next.run(request).await, &trace);
    if let Ok(traceresponse) = HeaderValue::from_str(&trace.traceparent()) {
        response.headers_mut().insert(TRACERESPONSE, traceresponse);
    }
    response.headers_mut().insert(X_REQUEST_ID, request_id);
    metrics.answered(&route, &method, response.status(), begun.elapsed());
    response
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
    use super::*;

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
