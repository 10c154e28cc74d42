//! Sending admins' changes to the stock worker, and finding out what became of them.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain_types::{MessageId, RequestId, Sku, Timestamp};
use messaging::Output;
use schemas::{Envelope, StockCommand, Topic};
use uuid::Uuid;

use crate::app::{App, bounded};
use crate::auth::Admin;
use crate::http::context::Trace;
use crate::problem::Problem;
use crate::products::model::StockChange;
use crate::products::store;

/// How long a call waits for its command to be acknowledged.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(2_900);

pub(crate) fn location(change: RequestId) -> String {
    format!("/v1/admin/stock-changes/{change}")
}

fn no_such_change() -> Problem {
    Problem::not_found("there is no such change")
}

/// What became of a change
///
/// An edit of product data has no quantity.
#[utoipa::path(
    get,
    path = "/v1/admin/stock-changes/{id}",
    tag = "admin",
    operation_id = "get_stock_change",
    params(("id" = Uuid, Path, description = "The change")),
    responses((status = 200, description = "The change.", body = StockChange)),
    security(("bearer" = ["admin"]))
)]
pub(crate) async fn one(
    _: Admin,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<StockChange>, Problem> {
    let id: RequestId = id.parse().map_err(|_no_id| no_such_change())?;
    bounded(store::change(&app.pool, id)).await?.map(Json).ok_or_else(no_such_change)
}

/// `202`, and where to ask what became of it.
pub(crate) async fn under_way(app: &App, id: RequestId) -> Result<Response, Problem> {
    let change = bounded(store::change(&app.pool, id)).await?.ok_or_else(no_such_change)?;
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location(id))], Json(change)).into_response())
}

/// Publishes a command, as a task of its own, so that a client that hangs up cancels nothing half way.
pub(crate) async fn publish(
    app: &App,
    id: RequestId,
    sku: &Sku,
    command: StockCommand,
    (trace, at): (&Trace, Timestamp),
) -> Result<(), Problem> {
    let envelope = Envelope {
        message_id: MessageId(Uuid::now_v7()),
        order_id: None,
        causation_id: None,
        occurred_at: at,
        message: command,
    };
    let output = Output::new(Topic::StockCommands, sku.as_str(), &envelope)
        .parking_key(id)
        .traceparent(Some(&trace.traceparent()));
    let publisher = app.publisher.clone();
    let publishing = tokio::spawn(async move { publisher.publish(&[output]).await });
    match tokio::time::timeout(ACKNOWLEDGED_WITHIN, publishing).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(_) | Err(_) => Err(Problem::change_unknown(&location(id))),
    }
}
