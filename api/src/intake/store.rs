//! SQL of the intake.

use std::collections::{HashMap, HashSet};

use domain_types::{Currency, CustomerId, Money, OrderId, Sku, Timestamp};
use sqlx::types::Uuid;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, Row};

use crate::notices::{MailAddress, keep_addresses};

/// What an order needs to know about a product.
#[derive(Debug, Clone)]
pub(super) struct Product {
    pub(super) name: String,
    pub(super) option: Option<String>,
    pub(super) price: Money,
    pub(super) product_version: i64,
}

/// An order that is kept in the intake.
#[derive(Debug, Clone)]
pub(crate) struct IntakeRow {
    pub(crate) order_id: OrderId,
    pub(crate) customer_id: CustomerId,
    pub(crate) fingerprint: String,
    pub(crate) publish_before: Timestamp,
    pub(crate) command: String,
}

/// A row that was there before, and how far its order has come.
#[derive(Debug, Clone)]
pub(super) struct PresentRow {
    pub(super) row: IntakeRow,
    /// Kafka acknowledged it, or the saga has seen it.
    pub(super) in_log: bool,
}

/// A stored value that this build can't read.
fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

pub(super) async fn products(pool: &PgPool, skus: &[&str]) -> sqlx::Result<HashMap<Sku, Product>> {
    let rows = sqlx::query(
        "SELECT sku, name, option, price_amount, price_currency, product_version FROM products WHERE sku = ANY($1)",
    )
    .bind(skus)
    .fetch_all(pool)
    .await?;
    let mut products = HashMap::with_capacity(rows.len());
    for row in rows {
        let currency = row.try_get::<&str, _>("price_currency")?;
        let currency = Currency::from_code(currency).ok_or_else(|| sqlx::Error::Decode("currency".into()))?;
        let product = Product {
            name: row.try_get("name")?,
            option: row.try_get("option")?,
            price: Money::new(row.try_get("price_amount")?, currency),
            product_version: row.try_get("product_version")?,
        };
        products.insert(Sku::new(row.try_get::<&str, _>("sku")?).map_err(unreadable)?, product);
    }
    Ok(products)
}

/// Keeps the rows whose order id is new, with the addresses of these, if any; says which. Rows of one call have different ids.
pub(super) async fn insert(
    pool: &PgPool,
    rows: &[IntakeRow],
    mails: &[(OrderId, &MailAddress)],
) -> sqlx::Result<HashSet<OrderId>> {
    if mails.is_empty() {
        return insert_rows(pool, rows).await;
    }
    let mut tx = messaging::begin(pool).await?;
    let inserted = insert_rows(&mut *tx, rows).await?;
    let mails: Vec<_> = mails.iter().filter(|(order_id, _)| inserted.contains(order_id)).copied().collect();
    keep_addresses(&mut tx, &mails).await?;
    tx.commit().await?;
    Ok(inserted)
}

/// Keeps rows of orders that are in the log.
pub(crate) async fn keep_published(tx: &mut PgConnection, rows: &[IntakeRow]) -> sqlx::Result<()> {
    if !rows.is_empty() {
        insert_rows(tx, rows).await?;
    }
    Ok(())
}

async fn insert_rows(
    executor: impl sqlx::PgExecutor<'_>,
    rows: &[IntakeRow],
) -> sqlx::Result<HashSet<OrderId>> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.order_id.uuid()).collect();
    let customers: Vec<Uuid> = rows.iter().map(|row| row.customer_id.uuid()).collect();
    let fingerprints: Vec<&str> = rows.iter().map(|row| row.fingerprint.as_str()).collect();
    let times: Vec<DateTime<Utc>> = rows.iter().map(|row| row.publish_before.to_utc()).collect();
    let commands: Vec<&str> = rows.iter().map(|row| row.command.as_str()).collect();
    let inserted: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO intake (order_id, customer_id, fingerprint, publish_before, command)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::text[])
         ON CONFLICT (order_id) DO NOTHING
         RETURNING order_id",
    )
    .bind(ids)
    .bind(customers)
    .bind(fingerprints)
    .bind(times)
    .bind(commands)
    .fetch_all(executor)
    .await?;
    Ok(inserted.into_iter().map(OrderId).collect())
}

pub(super) async fn present(pool: &PgPool, ids: &[OrderId]) -> sqlx::Result<HashMap<OrderId, PresentRow>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query(
        "SELECT i.order_id, i.customer_id, i.fingerprint, i.publish_before, i.command,
                i.acknowledged OR o.order_id IS NOT NULL AS in_log
         FROM intake i LEFT JOIN orders o USING (order_id)
         WHERE i.order_id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            let present = PresentRow { row: intake_row(&row)?, in_log: row.try_get("in_log")? };
            Ok((present.row.order_id, present))
        })
        .collect()
}

fn intake_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<IntakeRow> {
    Ok(IntakeRow {
        order_id: OrderId(row.try_get("order_id")?),
        customer_id: CustomerId(row.try_get("customer_id")?),
        fingerprint: row.try_get("fingerprint")?,
        publish_before: row.try_get::<DateTime<Utc>, _>("publish_before")?.into(),
        command: row.try_get("command")?,
    })
}

/// Marks rows as acknowledged, unless the projection knows their orders: that says more.
pub(super) async fn mark_acknowledged(pool: &PgPool, ids: &[OrderId]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    sqlx::query(
        "UPDATE intake i SET acknowledged = true
         WHERE order_id = ANY($1) AND NOT acknowledged
           AND NOT EXISTS (SELECT FROM orders o WHERE o.order_id = i.order_id)",
    )
    .bind(ids)
    .execute(pool)
    .await?;
    Ok(())
}

/// Up to where each row was looked at once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SweptTo {
    pub(super) publish_before: Timestamp,
    pub(super) order_id: OrderId,
}

pub(super) async fn swept_to(pool: &PgPool) -> sqlx::Result<SweptTo> {
    let row = sqlx::query("SELECT publish_before, order_id FROM intake_sweep").fetch_one(pool).await?;
    Ok(SweptTo {
        publish_before: row.try_get::<DateTime<Utc>, _>("publish_before")?.into(),
        order_id: OrderId(row.try_get("order_id")?),
    })
}

/// The next rows after `from`, not after `until`, in order; those whose order the projection has not are complete,
/// the others only say how far the look came.
pub(super) async fn unplaced(
    pool: &PgPool,
    from: SweptTo,
    until: Timestamp,
    limit: i64,
) -> sqlx::Result<(Vec<IntakeRow>, Option<SweptTo>)> {
    let rows = sqlx::query(
        "SELECT i.order_id, i.customer_id, i.fingerprint, i.publish_before, i.command,
                o.order_id IS NOT NULL AS placed
         FROM (SELECT * FROM intake
               WHERE (publish_before, order_id) > ($1, $2) AND publish_before <= $3
               ORDER BY publish_before, order_id LIMIT $4) i
         LEFT JOIN orders o USING (order_id)
         ORDER BY i.publish_before, i.order_id",
    )
    .bind(from.publish_before.to_utc())
    .bind(from.order_id.uuid())
    .bind(until.to_utc())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let mut unplaced = Vec::new();
    let mut last = None;
    for row in rows {
        let placed: bool = row.try_get("placed")?;
        let row = intake_row(&row)?;
        last = Some(SweptTo { publish_before: row.publish_before, order_id: row.order_id });
        if !placed {
            unplaced.push(row);
        }
    }
    Ok((unplaced, last))
}

/// Moves the mark forward, never back.
pub(super) async fn sweep_to(pool: &PgPool, to: SweptTo) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE intake_sweep SET publish_before = $1, order_id = $2 WHERE (publish_before, order_id) < ($1, $2)",
    )
    .bind(to.publish_before.to_utc())
    .bind(to.order_id.uuid())
    .execute(pool)
    .await?;
    Ok(())
}
