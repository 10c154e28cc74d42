//! What is known about one request while it is answered, and the headers that protect a browser.

use std::sync::{Arc, OnceLock};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use domain_types::CustomerId;

use crate::edge::{Edge, address};
use crate::problem::Problem;

/// One request; in its extensions. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Visit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    edge: Edge,
    customer: OnceLock<CustomerId>,
    came_by_tls: bool,
    /// Whether the request says who sends it: then its answer is for nobody else.
    private: bool,
    shows_pages: bool,
}

/// For everything but pages.
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// For `/docs`: its own scripts and styles (Swagger UI sets styles in elements and has pictures in its style sheet), and
/// calls to this api.
const PAGES: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

impl Visit {
    pub(crate) fn new(edge: &Edge, request: &Request) -> Self {
        let path = request.uri().path();
        Self(Arc::new(Inner {
            edge: edge.clone(),
            customer: OnceLock::new(),
            came_by_tls: address::came_by_tls(request, &edge.settings().trusted_proxies),
            private: request.headers().contains_key(header::AUTHORIZATION),
            shows_pages: path == "/docs" || path.starts_with("/docs/"),
        }))
    }

    /// The request is this customer's: remembers that, and counts it.
    ///
    /// # Errors
    /// `429` if there were too many.
    pub(crate) fn is_of(&self, customer: CustomerId) -> Result<(), Problem> {
        let _same_as_before = self.0.customer.set(customer);
        self.0.edge.count_customer(customer)
    }

    /// Whose request it was, if a valid token said so.
    pub(crate) fn customer(&self) -> Option<CustomerId> {
        self.0.customer.get().copied()
    }

    pub(crate) fn body_within(&self) -> std::time::Duration {
        self.0.edge.settings().body_within()
    }
}

/// Puts onto an answer what tells a browser to be careful with it.
pub(crate) fn secured(headers: &mut HeaderMap, visit: &Visit) {
    let Visit(visit) = visit;
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::CONTENT_SECURITY_POLICY, if visit.shows_pages { PAGES } else { NOTHING });
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    if visit.private && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let hsts_s = visit.edge.settings().hsts_max_age_s;
    if visit.came_by_tls
        && hsts_s > 0
        && let Ok(value) = HeaderValue::from_str(&format!("max-age={hsts_s}"))
    {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
}
