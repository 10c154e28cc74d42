//! What is read from the databases.

use std::collections::HashMap;

use schemas::OrderState;
use serde_json::Value;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: Uuid,
    pub(crate) state: OrderState,
    /// Units of all lines.
    pub(crate) units: i64,
    /// Minor units.
    pub(crate) due: i64,
    /// An operator took a payment step as settled.
    pub(crate) settled_by_hand: bool,
}

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Item {
    pub(crate) sku: String,
    pub(crate) initial: i64,
    pub(crate) restocked: i64,
    pub(crate) available: i64,
    pub(crate) held: i64,
    pub(crate) sold: i64,
    pub(crate) version: i64,
}

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Hold {
    pub(crate) order_id: Uuid,
    pub(crate) sku: String,
    pub(crate) quantity: i64,
    pub(crate) status: String,
}

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Charge {
    pub(crate) order_id: Uuid,
    pub(crate) amount: i64,
    pub(crate) state: String,
    /// A provider call is pending.
    pub(crate) is_open: bool,
}

/// The simulated provider's book beside the worker's.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) charged: i64,
    pub(crate) refunded: i64,
    pub(crate) charged_twice: Vec<Uuid>,
    pub(crate) kept_by_worker: i64,
    pub(crate) open_charges: i64,
}

pub(crate) async fn orders(connection: &mut PgConnection) -> Result<HashMap<Uuid, Order>, sqlx::Error> {
    let rows = sqlx::query("SELECT order_id, document FROM orders").fetch_all(connection).await?;
    let mut orders = HashMap::with_capacity(rows.len());
    for row in rows {
        let id: Uuid = row.try_get("order_id")?;
        let document: Value = serde_json::from_str(row.try_get("document")?)
            .map_err(|error| sqlx::Error::Decode(error.into()))?;
        let order = order(id, &document)
            .ok_or_else(|| sqlx::Error::Decode(format!("order {id} can't be read: {document}").into()))?;
        orders.insert(id, order);
    }
    Ok(orders)
}

fn order(id: Uuid, document: &Value) -> Option<Order> {
    let state = serde_json::from_value(document.get("state")?.clone()).ok()?;
    let lines = document.get("lines")?.as_array()?;
    let units = lines.iter().filter_map(|line| line.get("quantity")?.as_i64()).sum();
    let due = document.get("amount_due").or_else(|| document.get("total"))?.get("amount")?.as_i64()?;
    let requests = document.get("requests").and_then(Value::as_array);
    let is_skip = |request: &Value| {
        let says = |field: &str| request.get(field).and_then(Value::as_str);
        (says("kind"), says("outcome")) == (Some("skip"), Some("done"))
    };
    let settled_by_hand = requests.is_some_and(|requests| requests.iter().any(is_skip));
    Some(Order { id, state, units, due, settled_by_hand })
}

pub(crate) async fn acknowledged(connection: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("SELECT order_id FROM intake WHERE acknowledged").fetch_all(connection).await
}

pub(crate) async fn items(connection: &mut PgConnection) -> Result<Vec<Item>, sqlx::Error> {
    sqlx::query_as("SELECT sku, initial, restocked, available, held, sold, version FROM items ORDER BY sku")
        .fetch_all(connection)
        .await
}

pub(crate) async fn holds(connection: &mut PgConnection) -> Result<Vec<Hold>, sqlx::Error> {
    sqlx::query_as("SELECT order_id, sku, quantity::bigint AS quantity, status FROM holds")
        .fetch_all(connection)
        .await
}

/// Entries by sku.
pub(crate) async fn ledger_entries(
    connection: &mut PgConnection,
) -> Result<HashMap<String, i64>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT sku, sum(json_array_length(entries::json))::bigint AS entries FROM ledger GROUP BY sku",
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("sku")?, row.try_get("entries")?))).collect()
}

pub(crate) async fn charges(connection: &mut PgConnection) -> Result<Vec<Charge>, sqlx::Error> {
    sqlx::query_as(
        "SELECT order_id, coalesce(amount, 0) AS amount, state, next_call_at IS NOT NULL AS is_open FROM charges",
    )
    .fetch_all(connection)
    .await
}

pub(crate) async fn book(connection: &mut PgConnection) -> Result<Book, sqlx::Error> {
    let sums = sqlx::query(
        "SELECT coalesce(sum(amount) FILTER (WHERE outcome = 'approved'), 0)::bigint AS charged,
                coalesce(sum(refunded), 0)::bigint AS refunded FROM simulated_charges",
    )
    .fetch_one(&mut *connection)
    .await?;
    let worker = sqlx::query(
        "SELECT coalesce(sum(amount) FILTER (WHERE state = 'approved'), 0)::bigint AS kept,
                count(*) FILTER (WHERE next_call_at IS NOT NULL) AS open FROM charges",
    )
    .fetch_one(&mut *connection)
    .await?;
    let charged_twice = sqlx::query_scalar(
        "SELECT order_id FROM simulated_charges WHERE outcome = 'approved' GROUP BY order_id HAVING count(*) > 1",
    )
    .fetch_all(connection)
    .await?;
    Ok(Book {
        charged: sums.try_get("charged")?,
        refunded: sums.try_get("refunded")?,
        charged_twice,
        kept_by_worker: worker.try_get("kept")?,
        open_charges: worker.try_get("open")?,
    })
}
