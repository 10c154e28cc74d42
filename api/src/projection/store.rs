//! SQL of the projection, set-based: one statement for a batch.

use std::collections::HashMap;

use domain_types::{OrderId, RequestId, Sku, Timestamp};
use messaging::Tx;
use schemas::{StockChangeCode, StockLevel};
use sqlx::types::Uuid;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};

use crate::orders::model::Order;
use crate::products::model::{ChangeState, kind_name};

/// A stored value that this build can't read, or a value that can't be stored.
fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

pub(super) async fn load_orders(tx: &mut Tx, ids: &[OrderId]) -> sqlx::Result<HashMap<OrderId, Order>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let documents: Vec<String> = sqlx::query_scalar("SELECT document FROM orders WHERE order_id = ANY($1)")
        .bind(ids)
        .fetch_all(tx.reader().await?)
        .await?;
    documents
        .iter()
        .map(|document| {
            let order: Order = serde_json::from_str(document).map_err(unreadable)?;
            Ok((order.id, order))
        })
        .collect()
}

/// Orders as they are now, and whether each is new: what is stored was read first, and only the partition's owner writes it.
pub(super) async fn save_orders(tx: &mut Tx, orders: &[(&Order, bool)]) -> sqlx::Result<()> {
    if orders.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = orders.iter().map(|(order, _)| order.id.uuid()).collect();
    let new: Vec<bool> = orders.iter().map(|(_, is_new)| *is_new).collect();
    let customers: Vec<Uuid> = orders.iter().map(|(order, _)| order.customer_id.uuid()).collect();
    let times: Vec<DateTime<Utc>> = orders.iter().map(|(order, _)| order.created_at.to_utc()).collect();
    let versions: Vec<i64> = orders.iter().map(|(order, _)| order.version).collect();
    let states: Vec<&str> = orders.iter().map(|(order, _)| order.state.as_str()).collect();
    let finals: Vec<bool> = orders.iter().map(|(order, _)| order.is_final).collect();
    let documents: Vec<String> = orders
        .iter()
        .map(|(order, _)| serde_json::to_string(order).map_err(unreadable))
        .collect::<Result<_, _>>()?;
    let save = sqlx::query(
        "WITH changed AS (
            SELECT * FROM UNNEST($1::uuid[], $2::boolean[], $3::uuid[], $4::timestamptz[], $5::bigint[], $6::text[],
                                 $7::boolean[], $8::text[])
                AS c (order_id, is_new, customer_id, created_at, version, state, is_final, document)
         ), inserted AS (
            INSERT INTO orders (order_id, customer_id, created_at, version, state, is_final, document)
            SELECT order_id, customer_id, created_at, version, state, is_final, document FROM changed WHERE is_new
         ), updated AS (
            UPDATE orders AS o
               SET version = c.version, state = c.state, is_final = c.is_final, document = c.document
              FROM changed AS c
             CROSS JOIN LATERAL (
                SELECT f.ctid FROM orders AS f WHERE f.order_id = c.order_id OFFSET 0) AS found (row_id)
             WHERE NOT c.is_new AND o.ctid = found.row_id)
         SELECT 1",
    )
    .bind(ids)
    .bind(new)
    .bind(customers)
    .bind(times)
    .bind(versions)
    .bind(states)
    .bind(finals)
    .bind(documents);
    tx.last(save).await
}

/// Requests that have their answer are shown by their orders.
pub(super) async fn forget_requests(tx: &mut Tx, answered: &[RequestId]) -> sqlx::Result<()> {
    if answered.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = answered.iter().map(|id| id.uuid()).collect();
    let forget = sqlx::query("DELETE FROM order_requests WHERE request_id = ANY($1)").bind(ids);
    forget.execute(tx.writer().await?).await?;
    Ok(())
}

/// What is stored of a sku.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Version of its level.
    pub(super) level: i64,
    /// Version of the product's data in it.
    pub(super) product: i64,
}

pub(super) async fn known_versions(
    connection: &mut PgConnection,
    levels: &[&StockLevel],
) -> sqlx::Result<HashMap<Sku, Known>> {
    let skus: Vec<&str> = levels.iter().map(|level| level.sku.as_str()).collect();
    let rows = sqlx::query("SELECT sku, version, product_version FROM products WHERE sku = ANY($1)")
        .bind(skus)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            let sku = Sku::new(row.try_get::<&str, _>("sku")?).map_err(unreadable)?;
            Ok((sku, Known { level: row.try_get("version")?, product: row.try_get("product_version")? }))
        })
        .collect()
}

/// Stores how much there is of products whose data is as it is stored: what a sale changes, again and again. Written with
/// the position.
pub(super) async fn save_availability(tx: &mut Tx, levels: &[&StockLevel]) -> sqlx::Result<()> {
    if levels.is_empty() {
        return Ok(());
    }
    let save = sqlx::query(
        "WITH saved AS (
            UPDATE products AS p SET version = n.version, available = n.available
              FROM UNNEST($1::text[], $2::bigint[], $3::bigint[]) AS n (sku, version, available)
             CROSS JOIN LATERAL (SELECT f.ctid FROM products AS f WHERE f.sku = n.sku OFFSET 0) AS found (row_id)
             WHERE p.ctid = found.row_id)
         SELECT 1",
    )
    .bind(levels.iter().map(|level| level.sku.as_str()).collect::<Vec<_>>())
    .bind(levels.iter().map(|level| level.version).collect::<Vec<_>>())
    .bind(levels.iter().map(|level| level.available).collect::<Vec<_>>());
    tx.last(save).await
}

/// Stores products that are new or were edited, with their level.
pub(super) async fn save_products(tx: &mut PgConnection, levels: &[&StockLevel]) -> sqlx::Result<()> {
    let of = |field: fn(&StockLevel) -> i64| levels.iter().map(|level| field(level)).collect::<Vec<i64>>();
    let text = |field: fn(&StockLevel) -> &str| -> Vec<String> {
        levels.iter().map(|level| field(level).to_owned()).collect()
    };
    let sales: Vec<Option<String>> = levels
        .iter()
        .map(|level| level.product.sale.as_ref().map(serde_json::to_string).transpose().map_err(unreadable))
        .collect::<Result<_, _>>()?;
    let options: Vec<Option<String>> = levels.iter().map(|level| level.product.option.clone()).collect();
    let limits: Vec<Option<i64>> =
        levels.iter().map(|level| level.product.limit_per_customer.map(i64::from)).collect();
    sqlx::query(
        "INSERT INTO products AS p (sku, version, product_version, name, option, category, kind, price_amount,
                                    price_currency, sale, limit_per_customer, available)
         SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
                              $8::bigint[], $9::text[], $10::text[], $11::bigint[], $12::bigint[])
         ON CONFLICT (sku) DO UPDATE
         SET version = EXCLUDED.version, product_version = EXCLUDED.product_version, name = EXCLUDED.name,
             option = EXCLUDED.option, category = EXCLUDED.category, kind = EXCLUDED.kind,
             price_amount = EXCLUDED.price_amount, price_currency = EXCLUDED.price_currency,
             sale = EXCLUDED.sale, limit_per_customer = EXCLUDED.limit_per_customer,
             available = EXCLUDED.available
         WHERE p.version < EXCLUDED.version",
    )
    .bind(text(|level| level.sku.as_str()))
    .bind(of(|level| level.version))
    .bind(of(|level| level.product_version))
    .bind(text(|level| &level.product.name))
    .bind(options)
    .bind(text(|level| &level.product.category))
    .bind(text(|level| kind_name(level.product.kind)))
    .bind(of(|level| level.product.price.amount))
    .bind(text(|level| level.product.price.currency.code()))
    .bind(sales)
    .bind(limits)
    .bind(of(|level| level.available))
    .execute(tx)
    .await?;
    Ok(())
}

/// Gives products the names that the log says they have, and frees those they had before. A name that a change still
/// waits for stays reserved.
pub(super) async fn take_names(tx: &mut PgConnection, levels: &[&StockLevel]) -> sqlx::Result<()> {
    if levels.is_empty() {
        return Ok(());
    }
    let skus: Vec<&str> = levels.iter().map(|level| level.sku.as_str()).collect();
    sqlx::query(
        "INSERT INTO product_names (name, option, sku)
         SELECT name, coalesce(option, ''), sku FROM products WHERE sku = ANY($1) ORDER BY name, option
         ON CONFLICT ON CONSTRAINT product_names_unique DO NOTHING",
    )
    .bind(&skus)
    .execute(&mut *tx)
    .await?;
    let versions: Vec<i64> = levels.iter().map(|level| level.version).collect();
    free_names(tx, &skus, &versions).await
}

/// Frees names of products that are at least as new as said, that are not their present ones, and that no pending
/// change asks for.
async fn free_names(tx: &mut PgConnection, skus: &[&str], versions: &[i64]) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM product_names n
         USING products p, UNNEST($1::text[], $2::bigint[]) AS a (sku, version)
         WHERE p.sku = a.sku AND p.version >= a.version AND n.sku = p.sku
           AND (n.name, n.option) <> (p.name, coalesce(p.option, ''))
           AND NOT EXISTS (SELECT FROM stock_changes c WHERE c.change_id = n.change_id AND c.state = 'pending')",
    )
    .bind(skus)
    .bind(versions)
    .execute(tx)
    .await?;
    Ok(())
}

/// The stock worker's answer to a change.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) change: RequestId,
    pub(super) sku: Sku,
    pub(super) quantity: Option<i64>,
    pub(super) state: ChangeState,
    pub(super) code: Option<&'static str>,
    pub(super) at: Timestamp,
    pub(super) stock_version: Option<i64>,
}

pub(super) const fn code_text(code: StockChangeCode) -> &'static str {
    match code {
        StockChangeCode::UnknownSku => "unknown_sku",
        StockChangeCode::NotEnoughAvailable => "not_enough_available",
        StockChangeCode::InitialStockRequired => "initial_stock_required",
        StockChangeCode::TooManyUnits => "too_many_units",
        StockChangeCode::InvalidProduct => "invalid_product",
    }
}

pub(super) async fn save_answers(tx: &mut PgConnection, answers: &[Answer]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = answers.iter().map(|answer| answer.change.uuid()).collect();
    let skus: Vec<&str> = answers.iter().map(|answer| answer.sku.as_str()).collect();
    let quantities: Vec<Option<i64>> = answers.iter().map(|answer| answer.quantity).collect();
    let states: Vec<&str> = answers.iter().map(|answer| answer.state.as_str()).collect();
    let codes: Vec<Option<&str>> = answers.iter().map(|answer| answer.code).collect();
    let times: Vec<DateTime<Utc>> = answers.iter().map(|answer| answer.at.to_utc()).collect();
    let versions: Vec<Option<i64>> = answers.iter().map(|answer| answer.stock_version).collect();
    sqlx::query(
        "INSERT INTO stock_changes AS c (change_id, sku, quantity, state, code, changed_at, stock_version)
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::timestamptz[],
                              $7::bigint[])
         ON CONFLICT (change_id) DO UPDATE
         SET state = EXCLUDED.state, code = EXCLUDED.code, changed_at = EXCLUDED.changed_at,
             stock_version = EXCLUDED.stock_version
         WHERE c.state = 'pending'",
    )
    .bind(ids)
    .bind(skus)
    .bind(quantities)
    .bind(states)
    .bind(codes)
    .bind(times)
    .bind(versions)
    .execute(tx)
    .await?;
    Ok(())
}

/// Frees what refused changes had reserved, and the former names of products whose change is applied.
pub(super) async fn settle_names(tx: &mut PgConnection, answers: &[Answer]) -> sqlx::Result<()> {
    let refused: Vec<Uuid> = answers
        .iter()
        .filter(|answer| answer.state == ChangeState::Refused)
        .map(|answer| answer.change.uuid())
        .collect();
    if !refused.is_empty() {
        sqlx::query(
            "DELETE FROM product_names n WHERE n.change_id = ANY($1)
             AND NOT EXISTS (SELECT FROM products p WHERE p.sku = n.sku AND p.name = n.name
                                                      AND coalesce(p.option, '') = n.option)",
        )
        .bind(refused)
        .execute(&mut *tx)
        .await?;
    }
    let edits: Vec<(&str, i64)> = answers
        .iter()
        .filter(|answer| answer.quantity.is_none())
        .filter_map(|answer| Some((answer.sku.as_str(), answer.stock_version?)))
        .collect();
    if edits.is_empty() {
        return Ok(());
    }
    let (skus, versions): (Vec<&str>, Vec<i64>) = edits.into_iter().unzip();
    free_names(tx, &skus, &versions).await
}
