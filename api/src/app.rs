//! The router, and what handlers share.

use std::any::Any;
use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use messaging::{Publisher, Status};
use sqlx::PgPool;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use crate::admission::Admission;
use crate::auth::Keys;
use crate::edge::{self, Edge};
use crate::http::body::MAX_BODY_BYTES;
use crate::http::context::{self, Around};
use crate::intake::Intake;
use crate::metrics::HttpMetrics;
use crate::orders::live::Live;
use crate::problem::Problem;
use crate::redis::Redis;
use crate::wakeups::Wakeups;
use crate::{orders, products};

/// How long a whole request may take, its body and the longest wait that a client may ask for (30 s) included.
/// Everything that waits inside has a shorter bound.
const REQUEST_WITHIN: Duration = Duration::from_secs(45);
/// How long a read may take before the database counts as away.
const DATABASE_WITHIN: Duration = Duration::from_secs(2);

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) pool: PgPool,
    pub(crate) publisher: Publisher,
    pub(crate) keys: Keys,
    pub(crate) intake: Intake,
    pub(crate) wakeups: Wakeups,
    pub(crate) live: Live,
    pub(crate) redis: Redis,
    pub(crate) admission: Admission,
    /// Name and status of each consumer.
    pub(crate) consumers: Vec<(&'static str, Status)>,
}

impl FromRef<App> for Keys {
    fn from_ref(app: &App) -> Self {
        app.keys.clone()
    }
}

/// Bounds one statement.
///
/// # Errors
/// `503` if the database is away or too slow, `500` if it holds something that this build can't read.
pub(crate) async fn bounded<T>(statement: impl Future<Output = sqlx::Result<T>>) -> Result<T, Problem> {
    match tokio::time::timeout(DATABASE_WITHIN, statement).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error @ (sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }))) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the database holds something unreadable"
            );
            Err(Problem::internal())
        }
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the database failed");
            Err(Problem::unavailable("the database"))
        }
        Err(_elapsed) => {
            tracing::warn!(within = ?DATABASE_WITHIN, "the database does not answer");
            Err(Problem::unavailable("the database"))
        }
    }
}

/// All routes, and around them what every answer gets.
pub(crate) fn router(app: App, metrics: HttpMetrics, edge: &Edge) -> Router {
    let routes = Router::new()
        .route("/v1/orders", post(orders::submit::submit).get(orders::read::list))
        .route("/v1/orders/{id}", get(orders::read::one))
        .route("/v1/orders/{id}/events", get(orders::events::events))
        .route("/v1/orders/{id}/payment", post(orders::requests::pay))
        .route("/v1/orders/{id}/cancellation", post(orders::requests::cancel))
        .route("/v1/orders/{id}/return", post(orders::requests::give_back))
        .route("/v1/products", get(products::list::list))
        .route("/v1/products/{sku}", get(products::read::one))
        .route("/v1/admin/products/{sku}", put(products::admin::define))
        .route("/v1/admin/products/{sku}/restock", post(products::admin::restock))
        .route("/v1/admin/stock-changes/{id}", get(products::changes::one))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(app);
    surrounded(routes, metrics, edge)
}

/// The last layer here is the outermost.
fn surrounded(routes: Router, metrics: HttpMetrics, edge: &Edge) -> Router {
    let routes = routes
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_WITHIN))
        .layer(from_fn_with_state(edge.clone(), edge::admit))
        .layer(CatchPanicLayer::custom(panicked));
    let routes = match edge.cors() {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes.layer(from_fn_with_state(Around { metrics, edge: edge.clone() }, context::around))
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(message, "a request panicked");
    Problem::internal().into_response()
}

async fn ready(State(app): State<App>) -> Response {
    let missing = missing(&app).await;
    if missing.is_empty() { "ready\n".into_response() } else { Problem::not_ready(missing).into_response() }
}

/// What this node lacks to do its work.
async fn missing(app: &App) -> Vec<String> {
    let database = sqlx::query("SELECT 1").execute(&app.pool);
    let (database, broker) =
        tokio::join!(tokio::time::timeout(DATABASE_WITHIN, database), app.publisher.reachable());
    let mut missing = Vec::new();
    if !matches!(database, Ok(Ok(_))) {
        missing.push("the database does not answer".to_owned());
    }
    if let Err(away) = broker {
        missing.push(away.to_string());
    }
    missing.extend(consumers_missing(&app.consumers));
    missing
}

/// What the consumers lack.
pub(crate) fn consumers_missing(consumers: &[(&'static str, Status)]) -> Vec<String> {
    consumers
        .iter()
        .filter_map(|(topic, status)| status.ready().err().map(|missing| format!("{topic}: {missing}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_problem_document_like_any_other_error() {
        async fn panics(request: Request) {
            assert!(request.uri().path().is_empty(), "on purpose");
        }
        let routes = Router::new().route("/", get(panics));
        let registry = prometheus::Registry::new();
        let metrics = HttpMetrics::register(&registry).unwrap();
        let edge = Edge::new(edge::EdgeSettings::default(), &registry).unwrap();
        let response = surrounded(routes, metrics, &edge).oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert!(response.headers().contains_key("traceresponse"));
        let body = to_bytes(response.into_body(), MAX_BODY_BYTES).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((body["code"].as_str(), body["status"].as_u64()), (Some("internal"), Some(500)));
        assert!(!body.to_string().contains("on purpose"), "{body}");
    }
}
