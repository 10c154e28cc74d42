//! Reading what a batch needs, set-based.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain_types::{CustomerId, LineNumber, MessageId, OrderId, Quantity, RequestId, Sku, Timestamp};
use schemas::{ReserveStock, StockCommand};
use sqlx::PgConnection;
use stock_domain::{Asked, Change, ChangeOutcome, Hold, HoldKey, Item, Stock};
use uuid::Uuid;

use super::StoreError;
use super::codes::{StoredStatus, stored_change_code, stored_status};
use crate::command::sku_of;

/// What a batch of commands needs to be decided.
#[derive(Debug, Default)]
pub struct Needs {
    skus: HashSet<Sku>,
    orders: HashSet<Uuid>,
    requests: HashSet<Uuid>,
    /// Customers who reserve: their units count if there is a limit.
    customers: HashSet<(Sku, CustomerId)>,
    /// Products that the batch may give a limit.
    may_get_limit: HashSet<Sku>,
}

impl Needs {
    /// Adds a command's.
    pub fn add(&mut self, order_id: Option<OrderId>, command: &StockCommand) {
        let sku = sku_of(command);
        if !self.skus.contains(sku) {
            self.skus.insert(sku.clone());
        }
        self.orders.extend(order_id.map(OrderId::uuid));
        match command {
            StockCommand::ReserveStock(ReserveStock { customer_id, .. }) => {
                self.customers.insert((sku.clone(), *customer_id));
            }
            StockCommand::DefineProduct(define) => {
                self.requests.insert(define.request_id.uuid());
                if define.product.limit_per_customer.is_some() {
                    self.may_get_limit.insert(sku.clone());
                }
            }
            StockCommand::ChangeStock(change) => {
                self.requests.insert(change.request_id.uuid());
            }
            StockCommand::ConfirmStock(_) | StockCommand::ReleaseStock(_) | StockCommand::RestockStock(_) => {
            }
        }
    }

    /// Products, as far as they exist.
    pub fn skus(&self) -> impl Iterator<Item = &Sku> {
        self.skus.iter()
    }

    /// Orders, with all their holds.
    pub fn orders(&self) -> impl Iterator<Item = OrderId> {
        self.orders.iter().copied().map(OrderId)
    }

    /// Admins' changes, as far as they are remembered.
    pub fn requests(&self) -> impl Iterator<Item = RequestId> {
        self.requests.iter().copied().map(RequestId)
    }

    /// Customers whose units count, once the items are in `stock`.
    pub fn counted_customers<'a>(&'a self, stock: &'a Stock) -> impl Iterator<Item = &'a (Sku, CustomerId)> {
        let limited =
            |sku: &Sku| self.may_get_limit.contains(sku) || stock.item(sku).is_some_and(Item::has_limit);
        self.customers.iter().filter(move |(sku, _)| limited(sku))
    }
}

/// Loads what is needed and not there yet; items that are there stay as they are.
pub(super) async fn load(
    tx: &mut PgConnection,
    partition: i32,
    needs: &Needs,
    stock: &mut Stock,
) -> Result<(), StoreError> {
    load_items(tx, partition, needs.skus.iter(), stock).await?;
    load_holds(tx, partition, needs, stock).await?;
    load_changes(tx, partition, needs, stock).await?;
    load_customer_units(tx, partition, needs, stock).await
}

#[derive(sqlx::FromRow)]
struct ItemRow {
    sku: String,
    product: String,
    initial: i64,
    restocked: i64,
    available: i64,
    held: i64,
    sold: i64,
    granted: i64,
    version: i64,
    product_version: i64,
    updated_at: DateTime<Utc>,
    cause: Uuid,
}

/// Loads the items of these skus that exist and are not there yet.
pub(super) async fn load_items(
    tx: &mut PgConnection,
    partition: i32,
    skus: impl Iterator<Item = &Sku>,
    stock: &mut Stock,
) -> Result<(), StoreError> {
    let missing: Vec<&str> = skus.filter(|sku| stock.item(sku).is_none()).map(Sku::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let rows: Vec<ItemRow> =
        sqlx::query_as(include_str!("items.sql")).bind(partition).bind(missing).fetch_all(tx).await?;
    for row in rows {
        let product = serde_json::from_str(&row.product)
            .map_err(|source| StoreError::unreadable_because("product", source))?;
        stock.load_item(Item {
            sku: sku(&row.sku)?,
            product: Arc::new(product),
            initial: row.initial,
            restocked: row.restocked,
            available: row.available,
            held: row.held,
            sold: row.sold,
            granted: row.granted,
            version: row.version,
            product_version: row.product_version,
            updated_at: Timestamp::from(row.updated_at),
            cause: MessageId(row.cause),
        });
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct HoldRow {
    order_id: Uuid,
    line: i16,
    sku: String,
    customer_id: Option<Uuid>,
    quantity: i32,
    status: String,
    reason: Option<String>,
    version: i64,
    confirmed_version: Option<i64>,
    returned_version: Option<i64>,
}

async fn load_holds(
    tx: &mut PgConnection,
    partition: i32,
    needs: &Needs,
    stock: &mut Stock,
) -> Result<(), StoreError> {
    if needs.orders.is_empty() {
        return Ok(());
    }
    let rows: Vec<HoldRow> = sqlx::query_as(include_str!("holds.sql"))
        .bind(partition)
        .bind(needs.orders.iter().copied().collect::<Vec<Uuid>>())
        .fetch_all(tx)
        .await?;
    for row in rows {
        let unreadable = || StoreError::unreadable("hold");
        let line = LineNumber(u8::try_from(row.line).map_err(|_negative| unreadable())?);
        let asked = match row.customer_id {
            Some(customer_id) => {
                let units = u32::try_from(row.quantity).map_err(|_negative| unreadable())?;
                let units = Quantity::new(units).map_err(|_out_of_range| unreadable())?;
                Some(Asked { customer_id: CustomerId(customer_id), units })
            }
            None => None,
        };
        let status = stored_status(&StoredStatus {
            status: row.status,
            reason: row.reason,
            confirmed_version: row.confirmed_version,
            returned_version: row.returned_version,
        })?;
        let hold = Hold { sku: sku(&row.sku)?, asked, version: row.version, status };
        stock.load_hold(HoldKey { order_id: OrderId(row.order_id), line }, hold);
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct ChangeRow {
    request_id: Uuid,
    sku: String,
    quantity: Option<i64>,
    applied_version: Option<i64>,
    refused_code: Option<String>,
}

async fn load_changes(
    tx: &mut PgConnection,
    partition: i32,
    needs: &Needs,
    stock: &mut Stock,
) -> Result<(), StoreError> {
    if needs.requests.is_empty() {
        return Ok(());
    }
    let rows: Vec<ChangeRow> = sqlx::query_as(include_str!("changes.sql"))
        .bind(partition)
        .bind(needs.requests.iter().copied().collect::<Vec<Uuid>>())
        .fetch_all(tx)
        .await?;
    for row in rows {
        let outcome = match (row.applied_version, row.refused_code) {
            (Some(version), None) => ChangeOutcome::Applied { version },
            (None, Some(code)) => ChangeOutcome::Refused { code: stored_change_code(&code)? },
            (None, None) | (Some(_), Some(_)) => return Err(StoreError::unreadable("change")),
        };
        let change = Change { sku: sku(&row.sku)?, quantity: row.quantity, outcome };
        stock.load_change(RequestId(row.request_id), change);
    }
    Ok(())
}

async fn load_customer_units(
    tx: &mut PgConnection,
    partition: i32,
    needs: &Needs,
    stock: &mut Stock,
) -> Result<(), StoreError> {
    let wanted: Vec<(Sku, CustomerId)> = needs.counted_customers(stock).cloned().collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let rows: Vec<(String, Uuid, i64)> = sqlx::query_as(include_str!("customer_units.sql"))
        .bind(partition)
        .bind(wanted.iter().map(|(sku, _)| sku.as_str()).collect::<Vec<_>>())
        .bind(wanted.iter().map(|(_, customer_id)| customer_id.uuid()).collect::<Vec<_>>())
        .fetch_all(tx)
        .await?;
    for (text, customer_id, units) in rows {
        stock.load_customer_units(sku(&text)?, CustomerId(customer_id), units);
    }
    Ok(())
}

/// A page of the partition's items with their versions, by sku, behind `after`.
pub(super) async fn item_versions(
    tx: &mut PgConnection,
    partition: i32,
    after: Option<&Sku>,
    limit: i64,
) -> Result<Vec<(Sku, i64)>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT sku, version FROM items WHERE partition_id = $1 AND sku > $2 ORDER BY sku LIMIT $3",
    )
    .bind(partition)
    .bind(after.map_or("", Sku::as_str))
    .bind(limit)
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(|(text, version)| Ok((sku(&text)?, version))).collect()
}

fn sku(text: &str) -> Result<Sku, StoreError> {
    Sku::new(text).map_err(|source| StoreError::unreadable_because("sku", source))
}
