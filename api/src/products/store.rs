//! SQL of the catalogue, of reserved names and of stock changes.

use domain_types::{Currency, Money, RequestId, Sku, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgPool, Row};

use crate::products::model::{ChangeState, Product, StockChange, Versioned};

/// A stored value that this build can't read.
fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

pub(super) fn product_of(row: &PgRow) -> sqlx::Result<Product> {
    let currency = Currency::from_code(row.try_get("price_currency")?)
        .ok_or_else(|| sqlx::Error::Decode("no such currency".into()))?;
    let sale: Option<&str> = row.try_get("sale")?;
    let available: i64 = row.try_get("available")?;
    let kind = serde_json::Value::String(row.try_get("kind")?);
    Ok(Product {
        sku: Sku::new(row.try_get::<&str, _>("sku")?).map_err(unreadable)?,
        name: row.try_get("name")?,
        option: row.try_get("option")?,
        category: row.try_get("category")?,
        kind: serde_json::from_value(kind).map_err(unreadable)?,
        price: Money::new(row.try_get("price_amount")?, currency),
        available,
        sold_out: available <= 0,
        sale: sale.map(serde_json::from_str).transpose().map_err(unreadable)?,
        limit_per_customer: row.try_get("limit_per_customer")?,
    })
}

fn versioned_of(row: &PgRow) -> sqlx::Result<Versioned> {
    Ok(Versioned { version: row.try_get("version")?, product: product_of(row)? })
}

/// The product, as new as it is.
pub(crate) async fn versioned(pool: &PgPool, sku: &Sku) -> sqlx::Result<Option<Versioned>> {
    let row = sqlx::query(
        "SELECT sku, version, name, option, category, kind, price_amount, price_currency, available, sale,
                limit_per_customer
         FROM products WHERE sku = $1",
    )
    .bind(sku.as_str())
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(versioned_of).transpose()
}

/// Whether there is such a product.
pub(crate) async fn is_known(pool: &PgPool, sku: &Sku) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM products WHERE sku = $1)")
        .bind(sku.as_str())
        .fetch_one(pool)
        .await
}

fn change_of(row: &PgRow) -> sqlx::Result<StockChange> {
    Ok(StockChange {
        id: RequestId(row.try_get("change_id")?),
        sku: Sku::new(row.try_get::<&str, _>("sku")?).map_err(unreadable)?,
        quantity: row.try_get("quantity")?,
        state: ChangeState::of(row.try_get("state")?)
            .ok_or_else(|| sqlx::Error::Decode("no such state".into()))?,
        code: row.try_get("code")?,
        at: row.try_get::<DateTime<Utc>, _>("changed_at")?.into(),
        stock_version: row.try_get("stock_version")?,
        fingerprint: row.try_get("fingerprint")?,
    })
}

pub(crate) async fn change(pool: &PgPool, id: RequestId) -> sqlx::Result<Option<StockChange>> {
    let row = sqlx::query("SELECT * FROM stock_changes WHERE change_id = $1")
        .bind(id.uuid())
        .fetch_optional(pool)
        .await?;
    row.as_ref().map(change_of).transpose()
}

/// An applied change's product, once the projection shows a level at least as new as the change.
pub(crate) async fn product_with(pool: &PgPool, change: &StockChange) -> sqlx::Result<Option<Versioned>> {
    let found = versioned(pool, &change.sku).await?;
    Ok(found.filter(|found| change.stock_version.is_some_and(|version| found.version >= version)))
}

/// Remembers a change of stock as pending; `false` if it was there before.
pub(crate) async fn remember_change(
    pool: &PgPool,
    id: RequestId,
    sku: &Sku,
    quantity: i64,
    fingerprint: &str,
    at: Timestamp,
) -> sqlx::Result<bool> {
    let inserted = sqlx::query(
        "INSERT INTO stock_changes (change_id, sku, quantity, state, changed_at, fingerprint)
         VALUES ($1, $2, $3, 'pending', $4, $5) ON CONFLICT (change_id) DO NOTHING",
    )
    .bind(id.uuid())
    .bind(sku.as_str())
    .bind(quantity)
    .bind(at.to_utc())
    .bind(fingerprint)
    .execute(pool)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Reserves a product's name and option, and remembers the edit as pending; `false`, and nothing done, if
/// another product has or wants them. A product's present name stays reserved until the edit is applied.
pub(crate) async fn reserve_name(
    pool: &PgPool,
    id: RequestId,
    sku: &Sku,
    (name, option): (&str, Option<&str>),
    at: Timestamp,
) -> sqlx::Result<bool> {
    let reserved = sqlx::query(
        "WITH reserved AS (
             INSERT INTO product_names AS n (name, option, sku, change_id) VALUES ($1, $2, $3, $4)
             ON CONFLICT ON CONSTRAINT product_names_unique
             DO UPDATE SET change_id = EXCLUDED.change_id WHERE n.sku = EXCLUDED.sku
             RETURNING sku)
         INSERT INTO stock_changes (change_id, sku, state, changed_at)
         SELECT $4, sku, 'pending', $5 FROM reserved",
    )
    .bind(name)
    .bind(option.unwrap_or_default())
    .bind(sku.as_str())
    .bind(id.uuid())
    .bind(at.to_utc())
    .execute(pool)
    .await?;
    Ok(reserved.rows_affected() == 1)
}
