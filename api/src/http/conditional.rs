//! Answers that a client may keep and ask again about: `ETag`, `If-None-Match`, `304`.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::problem::Problem;

/// Bytes of the digest in a tag.
const TAG_BYTES: usize = 18;
/// Anybody may keep it, but must ask each time whether it is still so.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, no-cache");

/// `200` with the value and its tag, or `304` if the client has it already.
///
/// The tag is made of what is shown, so every node makes the same one, and any change of what is shown changes it. It is
/// weak: the same value may travel compressed or not.
///
/// # Errors
/// `500` if the value can't be written as JSON.
pub(crate) fn respond<T: Serialize>(request: &HeaderMap, value: &T) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "an answer can't be written as json");
        Problem::internal()
    })?;
    let tag = tag(&body);
    let etag = HeaderValue::from_str(&format!("W/{tag}")).map_err(|_never| Problem::internal())?;
    let headers = [(header::ETAG, etag), (header::CACHE_CONTROL, CACHE_CONTROL)];
    if is_known(request, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let media_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((headers, media_type, Body::from(body)).into_response())
}

/// With its quotes.
fn tag(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(digest.get(..TAG_BYTES).unwrap_or_default()))
}

/// Whether `If-None-Match` names the tag, compared weakly (RFC 9110, 13.1.2).
fn is_known(request: &HeaderMap, tag: &str) -> bool {
    request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(known: &[&str], value: i64) -> StatusCode {
        let mut request = HeaderMap::new();
        for known in known {
            request.append(header::IF_NONE_MATCH, HeaderValue::from_str(known).unwrap());
        }
        respond(&request, &value).unwrap().status()
    }

    #[test]
    fn a_known_tag_is_304_however_it_is_named_and_any_other_value_is_200() {
        let response = respond(&HeaderMap::new(), &1_i64).unwrap();
        assert_eq!(response.headers()["cache-control"], "public, no-cache");
        let weak = response.headers()["etag"].to_str().unwrap().to_owned();
        let strong = weak.strip_prefix("W/").unwrap().to_owned();
        for known in [&weak, &strong, "*", &format!("\"x\", {weak}"), &format!("{strong},\"x\"")] {
            assert_eq!(status(&[known], 1), StatusCode::NOT_MODIFIED, "{known}");
        }
        assert_eq!(status(&["\"x\"", &weak], 1), StatusCode::NOT_MODIFIED);
        for known in [weak.as_str(), "", "x", strong.trim_matches('"')] {
            assert_eq!(status(&[known], 2), StatusCode::OK, "{known}");
        }
    }
}
