//! The edge: who is let in, how fast, how many at once, and what every answer says to a browser.

mod address;
mod limits;
mod serve;
mod settings;
mod visit;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::Semaphore;
use tower_http::cors::{AllowOrigin, CorsLayer};

pub(crate) use address::Peer;
pub use address::{InvalidNetwork, Network};
pub(crate) use serve::serve;
pub use settings::{EdgeSettings, InvalidOrigin, Origin, Rate};
pub(crate) use visit::{Visit, secured};

use crate::edge::limits::Limited;
use crate::problem::Problem;

/// Answered whatever the load: who asks decides whether this node gets any.
const ALWAYS: [&str; 2] = ["/healthz", "/readyz"];
/// How long a browser may keep the answer to a preflight.
const PREFLIGHT_FOR: std::time::Duration = std::time::Duration::from_secs(600);

/// What the edge of one node knows. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Edge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: EdgeSettings,
    in_flight: Arc<Semaphore>,
    addresses: Limited<address::Block>,
    customers: Limited<domain_types::CustomerId>,
    refused: IntCounterVec,
}

/// Why somebody was turned away, as the metric names it.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    Address,
    Customer,
    InFlight,
    Connections,
}

impl Refusal {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address_rate",
            Self::Customer => "customer_rate",
            Self::InFlight => "in_flight",
            Self::Connections => "connections",
        }
    }
}

impl Edge {
    /// # Errors
    /// If the metrics are registered already.
    pub(crate) fn new(settings: EdgeSettings, registry: &Registry) -> Result<Self, prometheus::Error> {
        let refused = IntCounterVec::new(
            Opts::new(
                "api_edge_refused_total",
                "Requests and connections turned away, by the limit that did",
            ),
            &["limit"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self(Arc::new(Inner {
            in_flight: Arc::new(Semaphore::new(settings.max_in_flight)),
            addresses: Limited::new(settings.address),
            customers: Limited::new(settings.customer),
            settings,
            refused,
        })))
    }

    pub(crate) fn settings(&self) -> &EdgeSettings {
        &self.0.settings
    }

    fn refused(&self, why: Refusal) {
        self.0.refused.with_label_values(&[why.as_str()]).inc();
    }

    /// Counts a request of this customer.
    ///
    /// # Errors
    /// `429` if there were too many.
    pub(crate) fn count_customer(&self, customer: domain_types::CustomerId) -> Result<(), Problem> {
        self.0.customers.count(&customer).map_err(|wait| {
            self.refused(Refusal::Customer);
            Problem::too_many_requests("this customer sends too many requests", wait)
        })
    }

    fn count_address(&self, request: &Request) -> Result<(), Problem> {
        let client = address::client(request, &self.settings().trusted_proxies);
        if client.is_loopback() && !self.settings().limit_loopback {
            return Ok(());
        }
        self.0.addresses.count(&address::Block::of(client)).map_err(|wait| {
            self.refused(Refusal::Address);
            Problem::too_many_requests("this address sends too many requests", wait)
        })
    }

    /// What browsers of other sites may do; nothing, unless origins are allowed.
    pub(crate) fn cors(&self) -> Option<CorsLayer> {
        let origins: Vec<HeaderValue> =
            self.settings().allowed_origins.iter().map(|origin| origin.header().clone()).collect();
        if origins.is_empty() {
            return None;
        }
        let name = HeaderName::from_static;
        Some(
            CorsLayer::new()
                .allow_origin(AllowOrigin::list(origins))
                .allow_methods([Method::GET, Method::POST, Method::PUT])
                .allow_headers([
                    header::AUTHORIZATION,
                    header::CONTENT_TYPE,
                    header::IF_NONE_MATCH,
                    name("idempotency-key"),
                    name("prefer"),
                    name("last-event-id"),
                    name("traceparent"),
                    name("x-request-id"),
                ])
                .expose_headers([
                    header::ETAG,
                    header::LOCATION,
                    header::RETRY_AFTER,
                    header::WWW_AUTHENTICATE,
                    name("preference-applied"),
                    name("traceresponse"),
                    name("x-request-id"),
                ])
                .max_age(PREFLIGHT_FOR),
        )
    }
}

/// Turns away what comes too fast from one address, and, at once, what is too much for this node. What is counted is the
/// time until an answer's head: an open stream holds no place here.
pub(crate) async fn admit(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    if ALWAYS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    if let Err(problem) = edge.count_address(&request) {
        return problem.into_response();
    }
    let Ok(_place) = Arc::clone(&edge.0.in_flight).try_acquire_owned() else {
        edge.refused(Refusal::InFlight);
        return Problem::busy().into_response();
    };
    next.run(request).await
}
