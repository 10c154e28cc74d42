//! SQL of the admission: what Redis may have lost.

use std::collections::HashMap;

use domain_types::{CustomerId, OrderId};
use schemas::OrderState;
use sqlx::types::Uuid;
use sqlx::{PgConnection, PgPool, Row};

use crate::orders::model::Order;
use crate::orders::store::list;

/// Most orders of a customer that are looked through for units of a sku: the newest ones.
const MAX_ORDERS: i64 = 1_000;

fn order(document: &str) -> sqlx::Result<Order> {
    serde_json::from_str(document).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Whether an order in that state has the units of its lines, or may still get them.
pub(super) const fn keeps_units(state: OrderState) -> bool {
    match state {
        OrderState::Accepted
        | OrderState::Reserving
        | OrderState::AwaitingPayment
        | OrderState::Charging
        | OrderState::Paid
        | OrderState::Shipped
        | OrderState::Delivered
        | OrderState::ReturnRequested
        | OrderState::Compensating => true,
        OrderState::Cancelled
        | OrderState::Returned
        | OrderState::Rejected
        | OrderState::PaymentFailed
        | OrderState::Expired => false,
    }
}

/// A customer's orders that have units.
pub(super) async fn orders_of(pool: &PgPool, customer: CustomerId) -> sqlx::Result<Vec<Order>> {
    let mut orders = list(pool, customer, &[], None, MAX_ORDERS).await?;
    orders.retain(|order| keeps_units(order.state));
    Ok(orders)
}

/// The orders as the projection has them.
pub(super) async fn projected(tx: &mut PgConnection, ids: &[OrderId]) -> sqlx::Result<Vec<Order>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let documents: Vec<String> = sqlx::query_scalar(
        "SELECT o.document FROM UNNEST($1::uuid[]) AS k (order_id)
         CROSS JOIN LATERAL (SELECT document FROM orders WHERE order_id = k.order_id OFFSET 0) AS o",
    )
    .bind(ids)
    .fetch_all(tx)
    .await?;
    documents.iter().map(|document| order(document)).collect()
}

/// The command of each order that the intake keeps.
pub(super) async fn kept(pool: &PgPool, ids: &[OrderId]) -> sqlx::Result<HashMap<OrderId, String>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query(
        "SELECT i.order_id, i.command FROM UNNEST($1::uuid[]) AS k (order_id)
         CROSS JOIN LATERAL (SELECT order_id, command FROM intake WHERE order_id = k.order_id OFFSET 0) AS i",
    )
    .bind(ids)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(|row| Ok((OrderId(row.try_get("order_id")?), row.try_get("command")?))).collect()
}
