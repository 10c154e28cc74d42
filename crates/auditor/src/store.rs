//! What is read from the databases.

use futures::TryStreamExt;
use schemas::OrderState;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

/// An order as the api shows it.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: Uuid,
    pub(crate) customer_id: Uuid,
    pub(crate) state: OrderState,
    pub(crate) version: i64,
    /// Units by sku.
    pub(crate) lines: Vec<(String, i64)>,
    /// Minor units.
    pub(crate) due: i64,
    /// Minor units that it shows as charged.
    pub(crate) charged: i64,
    /// Minor units that it shows as given back.
    pub(crate) refunded: i64,
    /// An operator took a payment step as settled.
    pub(crate) settled_by_hand: bool,
    /// What the row says beside its document differs from it.
    pub(crate) row_differs: Option<String>,
}

/// A product as the api shows it.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Product {
    pub(crate) sku: String,
    pub(crate) version: i64,
    pub(crate) available: i64,
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
    /// Initial, restocked and ever given back.
    pub(crate) granted: i64,
}

/// Entries of one sku in the ledger, as builds before 0002 of the stock worker's migrations keep them.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct LedgerOfSku {
    pub(crate) partition_id: i32,
    pub(crate) sku: String,
    /// Of the first entry.
    pub(crate) first_version: i64,
    pub(crate) entries: String,
}

/// A batch's entries in the ledger.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct LedgerBatch {
    pub(crate) partition_id: i32,
    pub(crate) epoch: i64,
    pub(crate) seq: i64,
    pub(crate) entries: String,
}

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Hold {
    pub(crate) order_id: Uuid,
    pub(crate) line: i64,
    pub(crate) sku: String,
    pub(crate) quantity: i64,
    pub(crate) status: String,
}

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Charge {
    pub(crate) order_id: Uuid,
    pub(crate) customer_id: Uuid,
    pub(crate) amount: i64,
    pub(crate) state: String,
    /// A provider call is pending.
    pub(crate) is_open: bool,
}

/// Money that the worker noted as moved.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct MovementRow {
    pub(crate) partition_id: i32,
    pub(crate) epoch: i64,
    pub(crate) seq: i64,
    pub(crate) entries: String,
}

/// A charge in the simulated provider's book.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Booked {
    pub(crate) order_id: Uuid,
    pub(crate) charged: i64,
    pub(crate) refunded: i64,
}

/// Each order, one after the other: documents of all of them at once would be too much to hold.
pub(crate) async fn orders(
    connection: &mut PgConnection,
    mut each: impl FnMut(Order),
) -> Result<(), sqlx::Error> {
    let mut rows =
        sqlx::query("SELECT order_id, customer_id, version, state, is_final, document FROM orders")
            .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let id: Uuid = row.try_get("order_id")?;
        let document: Value = serde_json::from_str(row.try_get("document")?)
            .map_err(|error| sqlx::Error::Decode(error.into()))?;
        let order = order(id, &row, &document)
            .ok_or_else(|| sqlx::Error::Decode(format!("order {id} can't be read: {document}").into()))?;
        each(order);
    }
    Ok(())
}

fn order(id: Uuid, row: &PgRow, document: &Value) -> Option<Order> {
    let state: OrderState = serde_json::from_value(document.get("state")?.clone()).ok()?;
    let version = document.get("version")?.as_i64()?;
    let customer_id = document.get("customer_id")?.as_str()?.parse().ok()?;
    let line = |line: &Value| Some((line.get("sku")?.as_str()?.to_owned(), line.get("quantity")?.as_i64()?));
    let lines = document.get("lines")?.as_array()?.iter().map(line).collect::<Option<_>>()?;
    let due = document.get("amount_due").or_else(|| document.get("total"))?.get("amount")?.as_i64()?;
    let paid = |field: &str| document.get("payment")?.get(field)?.get("amount")?.as_i64();
    let requests = document.get("requests").and_then(Value::as_array);
    let is_skip = |request: &Value| {
        let says = |field: &str| request.get(field).and_then(Value::as_str);
        (says("kind"), says("outcome")) == (Some("skip"), Some("done"))
    };
    let settled_by_hand = requests.is_some_and(|requests| requests.iter().any(is_skip));
    let (charged, refunded) = (paid("charged").unwrap_or(0), paid("refunded").unwrap_or(0));
    let shown = (customer_id, version, state.as_str(), document.get("final")?.as_bool()?);
    let beside: (Uuid, i64, &str, bool) = (
        row.try_get("customer_id").ok()?,
        row.try_get("version").ok()?,
        row.try_get("state").ok()?,
        row.try_get("is_final").ok()?,
    );
    let row_differs = (shown != beside).then(|| format!("its document has {shown:?}, its row {beside:?}"));
    Some(Order {
        id,
        customer_id,
        state,
        version,
        lines,
        due,
        charged,
        refunded,
        settled_by_hand,
        row_differs,
    })
}

pub(crate) async fn acknowledged(connection: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("SELECT order_id FROM intake WHERE acknowledged").fetch_all(connection).await
}

pub(crate) async fn items(connection: &mut PgConnection) -> Result<Vec<Item>, sqlx::Error> {
    sqlx::query_as(
        "SELECT sku, initial, restocked, available, held, sold, version, granted FROM items ORDER BY sku",
    )
    .fetch_all(connection)
    .await
}

pub(crate) async fn holds(connection: &mut PgConnection) -> Result<Vec<Hold>, sqlx::Error> {
    sqlx::query_as(
        "SELECT order_id, line::bigint AS line, sku, quantity::bigint AS quantity, status FROM holds",
    )
    .fetch_all(connection)
    .await
}

pub(crate) async fn ledger_by_sku(connection: &mut PgConnection) -> Result<Vec<LedgerOfSku>, sqlx::Error> {
    sqlx::query_as("SELECT partition_id, sku, first_version, entries FROM ledger").fetch_all(connection).await
}

/// Each batch of the ledger, in the order in which they were written.
pub(crate) async fn ledger_batches(
    connection: &mut PgConnection,
    mut each: impl FnMut(&LedgerBatch),
) -> Result<(), sqlx::Error> {
    let mut rows = sqlx::query_as(
        "SELECT partition_id, epoch, seq, entries FROM ledger_batches ORDER BY partition_id, epoch, seq",
    )
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        each(&row);
    }
    Ok(())
}

pub(crate) async fn products(connection: &mut PgConnection) -> Result<Vec<Product>, sqlx::Error> {
    sqlx::query_as("SELECT sku, version, available FROM products ORDER BY sku").fetch_all(connection).await
}

pub(crate) async fn charges(connection: &mut PgConnection) -> Result<Vec<Charge>, sqlx::Error> {
    sqlx::query_as(
        "SELECT order_id, customer_id, coalesce(amount, 0) AS amount, state, next_call_at IS NOT NULL AS is_open
           FROM charges",
    )
    .fetch_all(connection)
    .await
}

/// Each row of the movements of money.
pub(crate) async fn movements(
    connection: &mut PgConnection,
    mut each: impl FnMut(&MovementRow),
) -> Result<(), sqlx::Error> {
    let mut rows =
        sqlx::query_as("SELECT partition_id, epoch, seq, entries FROM money_movements").fetch(connection);
    while let Some(row) = rows.try_next().await? {
        each(&row);
    }
    Ok(())
}

/// Charges that took money.
pub(crate) async fn book(connection: &mut PgConnection) -> Result<Vec<Booked>, sqlx::Error> {
    sqlx::query_as(
        "SELECT order_id, coalesce(amount, 0) AS charged, refunded FROM simulated_charges WHERE outcome = 'approved'",
    )
    .fetch_all(connection)
    .await
}
