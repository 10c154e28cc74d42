//! Problem details (RFC 9457): the one shape of every error that leaves the api.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain_types::OrderId;
use serde::Serialize;
use utoipa::ToSchema;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// JSON Pointer into the body, or the name of a header or query parameter.
    pub(crate) pointer: String,
    /// A stable `snake_case` word.
    #[schema(pattern = "^[a-z0-9_]+$")]
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) detail: String,
}

impl FieldError {
    pub(crate) fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, detail: detail.into() }
    }
}

/// An error as the client sees it. The trace id is added by the outermost layer, see [`crate::http::context`].
#[derive(Debug, Clone)]
pub(crate) struct Problem(Box<Details>);

#[derive(Debug, Clone)]
struct Details {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: String,
    errors: Vec<FieldError>,
    order_id: Option<OrderId>,
    missing: Vec<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// An error (RFC 9457), as `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDocument<'a> {
    /// `urn:firstcome:problem:` and the code.
    #[schema(example = "urn:firstcome:problem:not_found")]
    r#type: String,
    /// The status in words.
    #[schema(example = "Not Found")]
    title: &'a str,
    #[schema(value_type = i32, minimum = 400, maximum = 599, example = 404)]
    status: u16,
    /// What programs go by: a stable `snake_case` word.
    #[schema(pattern = "^[a-z0-9_]+$", example = "not_found")]
    code: &'a str,
    /// What people read; may change.
    #[schema(example = "you have no such order")]
    detail: &'a str,
    /// The fields, headers or parameters that are wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<FieldError>, required = false)]
    errors: &'a [FieldError],
    /// What a node that is not ready lacks.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<String>, required = false)]
    missing: &'a [String],
    /// The order that was sent, if nobody acknowledged it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<uuid::Uuid>, nullable = false)]
    order_id: Option<OrderId>,
    /// Names this request in logs and traces.
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    trace_id: &'a str,
}

/// Seconds after which a client may try again when a dependency is away.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Self {
        Self(Box::new(Details {
            status,
            code: code.into(),
            detail: detail.into(),
            errors: Vec::new(),
            order_id: None,
            missing: Vec::new(),
            headers: Vec::new(),
        }))
    }

    fn with(mut self, change: impl FnOnce(&mut Details)) -> Self {
        change(&mut self.0);
        self
    }

    /// Fields that are not as they must be.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [error] => format!("{}: {}", error.pointer, error.detail),
            _ => format!("{} fields are not valid", errors.len()),
        };
        Self::unprocessable("invalid_request", detail, errors)
    }

    /// Well formed, but not possible; `errors` point at the fields, if any.
    pub(crate) fn unprocessable(
        code: &'static str,
        detail: impl Into<String>,
        errors: Vec<FieldError>,
    ) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail).with(|details| details.errors = errors)
    }

    pub(crate) fn unauthorized(detail: impl Into<String>, challenge: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(crate) fn conflict(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// A dependency is away; nothing of this request was kept.
    pub(crate) fn unavailable(dependency: &'static str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            format!("{dependency} does not answer; nothing was kept, try again"),
        )
        .with_header(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    /// An order was sent, or may have been, and nobody acknowledged it in time.
    pub(crate) fn outcome_unknown(order_id: OrderId) -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "outcome_unknown",
            "the order was sent but not acknowledged in time; ask for it, or repeat it with the same \
             Idempotency-Key",
        );
        problem
            .with(|details| details.order_id = Some(order_id))
            .with_location(&format!("/v1/orders/{order_id}"))
            .with_header(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    /// The same for an admin's change.
    pub(crate) fn change_unknown(location: &str) -> Self {
        let detail = "the change was sent but not acknowledged in time; ask for it, or repeat it";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", detail)
            .with_location(location)
            .with_header(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    /// This node has as much to do as it can; nothing of this request was looked at.
    pub(crate) fn busy() -> Self {
        let detail = "the api has too much to do; nothing was kept, try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            .with_header(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    /// Somebody sends more than is let in; after `wait` there is room again.
    pub(crate) fn too_many_requests(detail: &'static str, wait: Duration) -> Self {
        let whole_s = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from(whole_s.max(1)))
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong here, not in the request",
        )
    }

    pub(crate) fn not_ready(missing: Vec<String>) -> Self {
        let detail = missing.join("; ");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail)
            .with(|details| details.missing = missing)
            .with_header(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    #[must_use]
    pub(crate) fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        self.with(|details| details.headers.push((name, value)))
    }

    #[must_use]
    pub(crate) fn with_location(self, location: &str) -> Self {
        match HeaderValue::from_str(location) {
            Ok(value) => self.with_header(header::LOCATION, value),
            Err(_not_a_header) => self,
        }
    }

    /// The problem behind an answer that a library made (route not found, method not allowed, time-out, panic).
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::not_found("there is nothing here"),
            StatusCode::METHOD_NOT_ALLOWED => {
                Self::new(status, "method_not_allowed", "this resource does not take this method")
            }
            StatusCode::REQUEST_TIMEOUT => Self::new(
                status,
                "request_timeout",
                "the request took too long; what became of it is not known",
            ),
            StatusCode::PAYLOAD_TOO_LARGE => Self::body_too_large(),
            status if status.is_client_error() => {
                Self::new(status, "bad_request", "the request is not valid")
            }
            status => Self::internal().with(|details| details.status = status),
        }
    }

    pub(crate) fn body_timeout() -> Self {
        let detail = "the body took too long; nothing was kept";
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
    }

    pub(crate) fn body_too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "a body may have 64 KiB")
    }

    /// The answer, with the trace it belongs to.
    pub(crate) fn render(&self, trace_id: &str) -> Response {
        let Self(details) = self;
        let wire = ProblemDocument {
            r#type: format!("urn:firstcome:problem:{}", details.code),
            title: details.status.canonical_reason().unwrap_or("Error"),
            status: details.status.as_u16(),
            code: &details.code,
            detail: &details.detail,
            errors: &details.errors,
            missing: &details.missing,
            order_id: details.order_id,
            trace_id,
        };
        let body = serde_json::to_vec(&wire).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = details.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in &details.headers {
            headers.insert(name.clone(), value.clone());
        }
        response
    }
}

impl IntoResponse for Problem {
    /// Leaves the rendering to the outermost layer, which knows the trace id.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0.status;
        response.extensions_mut().insert(self);
        response
    }
}
