//! SQL of orders as they are read, and of requests without an answer.

use std::collections::HashMap;

use domain_types::{CustomerId, OrderId, RequestId, Timestamp};
use schemas::{Envelope, OrderSagaMessage, OrderState, RequestKind, RequestOutcome};
use sqlx::types::Uuid;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgPool, Row};

use crate::orders::model::{Order, Request, kind_name};
use crate::wakeups::Wanted;

/// A stored value that this build can't read.
fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// The order as the projection has it, else as the intake took it. One statement: one of them always shows an order
/// whose id was given out.
pub(crate) async fn order(pool: &PgPool, id: OrderId) -> sqlx::Result<Option<Order>> {
    let row = sqlx::query(
        "SELECT o.document, i.command
         FROM (SELECT $1::uuid AS order_id) k
         LEFT JOIN orders o ON o.order_id = k.order_id
         LEFT JOIN intake i ON i.order_id = k.order_id AND o.order_id IS NULL",
    )
    .bind(id.uuid())
    .fetch_one(pool)
    .await?;
    let document: Option<&str> = row.try_get("document")?;
    if let Some(document) = document {
        return serde_json::from_str(document).map(Some).map_err(unreadable);
    }
    let command: Option<&str> = row.try_get("command")?;
    command.map(|command| accepted(id, command)).transpose()
}

/// Version 1, from the command that the intake keeps.
fn accepted(id: OrderId, command: &str) -> sqlx::Result<Order> {
    let envelope = Envelope::<OrderSagaMessage>::decode(command.as_bytes()).map_err(unreadable)?;
    let OrderSagaMessage::PlaceOrder(command) = &envelope.message else {
        return Err(sqlx::Error::Decode("the intake keeps PlaceOrder and nothing else".into()));
    };
    Order::accepted(id, command, envelope.occurred_at).map_err(unreadable)
}

/// An order that was asked for, with its requests without an answer.
pub(crate) type Newer = (OrderId, sqlx::Result<Order>);

/// Those of the wanted orders that are newer than what is known, as [`order`] and [`pending`] tell them. The intake is
/// asked for orders of which nothing is known.
pub(crate) async fn newer(pool: &PgPool, wanted: &[Wanted]) -> sqlx::Result<Vec<Newer>> {
    let ids: Vec<Uuid> = wanted.iter().map(|wanted| wanted.order.uuid()).collect();
    let versions: Vec<i64> = wanted.iter().map(|wanted| wanted.known_version).collect();
    let rows = sqlx::query(
        "SELECT k.order_id, o.document, i.command
         FROM UNNEST($1::uuid[], $2::bigint[]) AS k (order_id, known)
         LEFT JOIN LATERAL (
            SELECT o.version, o.document FROM orders AS o WHERE o.order_id = k.order_id OFFSET 0) AS o ON true
         LEFT JOIN LATERAL (
            SELECT i.command FROM intake AS i
            WHERE i.order_id = k.order_id AND k.known = 0 AND o.version IS NULL OFFSET 0) AS i ON true
         WHERE o.version > k.known OR i.command IS NOT NULL",
    )
    .bind(ids)
    .bind(versions)
    .fetch_all(pool)
    .await?;
    let mut orders = Vec::with_capacity(rows.len());
    for row in rows {
        let id = OrderId(row.try_get("order_id")?);
        let (document, command) = (row.try_get("document")?, row.try_get("command")?);
        orders.push((id, read_order(id, document, command)));
    }
    let ids: Vec<OrderId> = orders.iter().map(|(id, _)| *id).collect();
    if ids.is_empty() {
        return Ok(orders);
    }
    let mut requests: HashMap<OrderId, Vec<Request>> = HashMap::new();
    for (id, request) in pending(pool, &ids).await? {
        requests.entry(id).or_default().push(request);
    }
    for (id, order) in &mut orders {
        if let (Ok(order), Some(requests)) = (order, requests.remove(id)) {
            order.show_pending(requests);
        }
    }
    Ok(orders)
}

fn read_order(id: OrderId, document: Option<&str>, command: Option<&str>) -> sqlx::Result<Order> {
    match (document, command) {
        (Some(document), _) => serde_json::from_str(document).map_err(unreadable),
        (None, Some(command)) => accepted(id, command),
        (None, None) => Err(sqlx::Error::RowNotFound),
    }
}

/// Requests about these orders that have no answer yet, oldest first.
pub(crate) async fn pending(pool: &PgPool, orders: &[OrderId]) -> sqlx::Result<Vec<(OrderId, Request)>> {
    let ids: Vec<Uuid> = orders.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query(
        "SELECT request_id, order_id, kind, requested_at FROM order_requests
         WHERE order_id = ANY($1) ORDER BY requested_at, request_id",
    )
    .bind(ids)
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            let request = Request {
                id: RequestId(row.try_get("request_id")?),
                kind: kind_of(row.try_get("kind")?)?,
                outcome: RequestOutcome::Pending,
                code: None,
                at: row.try_get::<DateTime<Utc>, _>("requested_at")?.into(),
            };
            Ok((OrderId(row.try_get("order_id")?), request))
        })
        .collect()
}

fn kind_of(text: &str) -> sqlx::Result<RequestKind> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(unreadable)
}

/// Remembers a request until it is answered; a repeat changes nothing.
pub(crate) async fn remember_request(
    pool: &PgPool,
    order: OrderId,
    request: RequestId,
    kind: RequestKind,
    at: Timestamp,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO order_requests (request_id, order_id, kind, requested_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (request_id) DO NOTHING",
    )
    .bind(request.uuid())
    .bind(order.uuid())
    .bind(kind_name(kind))
    .bind(at.to_utc())
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets requests made before `time`.
pub(crate) async fn forget_requests_before(pool: &PgPool, time: Timestamp) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM order_requests WHERE requested_at < $1")
        .bind(time.to_utc())
        .execute(pool)
        .await?;
    Ok(())
}

/// A place in a customer's orders, newest first.
pub(crate) type Position = (i64, OrderId);

/// $1 customer, $2 states, or none for all, $3 and $4 the place after which it goes on, $5 how many. The index has orders by their
/// customer's hash and their time: as many are read as are wanted, and those of the last one's instant, of which the ids decide.
const PAGE: &str = "SELECT document FROM (
            SELECT created_at, order_id, document FROM orders
             WHERE uuid_hash(customer_id) = uuid_hash($1) AND customer_id = $1
               AND created_at <= COALESCE($3::timestamptz, 'infinity')
               AND ($3 IS NULL OR (created_at, order_id) < ($3, $4::uuid))
               AND (cardinality($2::text[]) = 0 OR state = ANY($2))
             ORDER BY created_at DESC FETCH FIRST $5 ROWS WITH TIES) AS newest
         ORDER BY created_at DESC, order_id DESC LIMIT $5";

/// The next orders of a customer after `after`, newest first.
pub(crate) async fn list(
    pool: &PgPool,
    customer: CustomerId,
    states: &[OrderState],
    after: Option<Position>,
    limit: i64,
) -> sqlx::Result<Vec<Order>> {
    let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    let (time, id) = after.map_or((None, None), |(millis, id)| {
        (Some(Timestamp::from_millis(millis).to_utc()), Some(id.uuid()))
    });
    let page = sqlx::query_scalar(PAGE).bind(customer.uuid()).bind(states).bind(time).bind(id).bind(limit);
    let documents: Vec<String> = page.fetch_all(pool).await?;
    documents.iter().map(|document| serde_json::from_str(document).map_err(unreadable)).collect()
}

#[cfg(test)]
mod tests;
