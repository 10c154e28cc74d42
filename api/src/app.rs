//! The router, and what handlers share.

use std::any::Any;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use messaging::{Publisher, Status};
use sqlx::PgPool;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use traces::Tracer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admission::Admission;
use crate::auth::Keys;
use crate::database::Probe;
use crate::edge::{self, Edge};
use crate::http::body::MAX_BODY_BYTES;
use crate::http::context::{self, Around};
use crate::intake::Intake;
use crate::metrics::HttpMetrics;
use crate::openapi::refusals::Ready;
use crate::openapi::{self, Document};
use crate::orders::live::Live;
use crate::problem::Problem;
use crate::products::cache::Catalogue;
use crate::wakeups::Wakeups;
use crate::{orders, products};

/// How long a whole request may take, its body and the longest wait that a client may ask for (30 s) included.
/// Everything that waits inside has a shorter bound.
const REQUEST_WITHIN: Duration = Duration::from_secs(45);
/// How long a read may take before the database counts as away.
pub(crate) const DATABASE_WITHIN: Duration = Duration::from_secs(2);

/// What handlers share. A request makes several clones of it.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

/// See [`App`].
pub(crate) struct Shared {
    pub(crate) pool: PgPool,
    pub(crate) probe: Probe,
    pub(crate) publisher: Publisher,
    pub(crate) keys: Keys,
    pub(crate) intake: Intake,
    pub(crate) wakeups: Wakeups,
    pub(crate) live: Live,
    pub(crate) admission: Arc<Admission>,
    pub(crate) catalogue: Catalogue,
    /// Name and status of each consumer.
    pub(crate) consumers: Vec<(&'static str, Status)>,
}

impl App {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
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

/// The routes, with what they say about themselves.
pub(crate) fn documented() -> (Router<App>, utoipa::openapi::OpenApi) {
    let (routes, document) = OpenApiRouter::with_openapi(Document::begun())
        .routes(routes!(orders::submit::submit, orders::read::list))
        .routes(routes!(orders::read::one))
        .routes(routes!(orders::events::events))
        .routes(routes!(orders::requests::pay))
        .routes(routes!(orders::requests::cancel))
        .routes(routes!(orders::requests::give_back))
        .routes(routes!(products::list::list))
        .routes(routes!(products::read::one))
        .routes(routes!(products::admin::define))
        .routes(routes!(products::admin::restock))
        .routes(routes!(products::changes::one))
        .routes(routes!(alive))
        .routes(routes!(ready))
        .split_for_parts();
    (routes, Document::finished(document))
}

/// The OpenAPI document, as every node serves it at `/openapi.json`.
///
/// # Errors
/// If it can't be written as JSON; no build that passes its tests does that.
pub fn openapi_json() -> serde_json::Result<String> {
    documented().1.to_pretty_json()
}

/// All routes, and around them what every answer gets.
pub(crate) fn router(app: App, metrics: HttpMetrics, edge: &Edge, tracer: Option<Tracer>) -> Router {
    let (routes, document) = documented();
    surrounded(routes.with_state(app).merge(openapi::routes(&document)), metrics, edge, tracer)
}

/// The last layer here is the outermost.
fn surrounded(routes: Router, metrics: HttpMetrics, edge: &Edge, tracer: Option<Tracer>) -> Router {
    let routes = routes
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_WITHIN))
        .layer(from_fn_with_state(edge.clone(), edge::admit))
        .layer(CatchPanicLayer::custom(panicked));
    let routes = match edge.cors() {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes.layer(from_fn_with_state(Around { metrics, edge: edge.clone(), tracer }, context::around))
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

/// Does the process live?
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    operation_id = "healthz",
    responses((status = 200, description = "It does.", body = String, content_type = "text/plain", example = "ok\n"))
)]
async fn alive() -> &'static str {
    "ok\n"
}

/// Can this node do its work?
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    operation_id = "readyz",
    responses(
        (status = 200, description = "It can.", body = String, content_type = "text/plain", example = "ready\n"),
        Ready
    )
)]
async fn ready(State(app): State<App>) -> Response {
    let missing = missing(&app).await;
    if missing.is_empty() { "ready\n".into_response() } else { Problem::not_ready(missing).into_response() }
}

/// What this node lacks to do its work.
async fn missing(app: &App) -> Vec<String> {
    let (database_answers, broker) = tokio::join!(app.probe.answers(), app.publisher.reachable());
    let mut missing = Vec::new();
    if !database_answers {
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
    use axum::routing::get;
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
        let response = surrounded(routes, metrics, &edge, None);
        let response = response.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert!(response.headers().contains_key("traceresponse"));
        let body = to_bytes(response.into_body(), MAX_BODY_BYTES).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((body["code"].as_str(), body["status"].as_u64()), (Some("internal"), Some(500)));
        assert!(!body.to_string().contains("on purpose"), "{body}");
    }
}
