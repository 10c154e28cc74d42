//! JSON bodies: media type, size and syntax, each with its own answer.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::Value;

use crate::edge::Visit;
use crate::http::fields::{Findings, Object};
use crate::problem::{FieldError, Problem};

/// The largest body, bytes.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;
/// How long a body may take, where no settings say otherwise.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// The longest `Idempotency-Key`, characters.
const MAX_IDEMPOTENCY_KEY: usize = 255;
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A body that is some JSON.
#[derive(Debug)]
pub(crate) struct Json(pub(crate) Value);

/// No body, or an empty object.
#[derive(Debug)]
pub(crate) struct NoBody;

/// The whole body; its size is bounded by the router's `DefaultBodyLimit` ([`MAX_BODY_BYTES`]).
async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let within = request.extensions().get::<Visit>().map_or(BODY_WITHIN, Visit::body_within);
    let Ok(body) = tokio::time::timeout(within, Bytes::from_request(request, state)).await else {
        return Err(Problem::body_timeout());
    };
    body.map_err(|rejection| {
        if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::body_too_large()
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body ended before its time")
        }
    })
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim)
        .unwrap_or_default();
    if media_type.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        let detail = "send application/json";
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
    }
}

fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let detail = format!("the body is not JSON: line {}, column {}", error.line(), error.column());
        Problem::new(StatusCode::BAD_REQUEST, "invalid_json", detail)
    })
}

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        Ok(Self(parse(&read(request, state).await?)?))
    }
}

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let media_type = require_json(request.headers());
        let bytes = read(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self);
        }
        media_type?;
        let mut findings = Findings::default();
        if let Some(object) = Object::new(parse(&bytes)?, "", &mut findings) {
            object.finish(&mut findings);
        }
        findings.finish()?;
        Ok(Self)
    }
}

/// The request's `Idempotency-Key`, if it has one.
///
/// # Errors
/// `422` if it is not 1 to 255 visible ASCII characters, or sent twice.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let valid = (1..=MAX_IDEMPOTENCY_KEY).contains(&value.len())
        && value.as_bytes().iter().all(u8::is_ascii_graphic)
        && values.next().is_none();
    match value.to_str() {
        Ok(key) if valid => Ok(Some(key.to_owned())),
        _ => {
            let detail = "1 to 255 visible ASCII characters, once";
            Err(Problem::invalid(vec![FieldError::new("Idempotency-Key", "invalid_header", detail)]))
        }
    }
}
