//! What a rebuilt database is compared by.

use std::collections::HashMap;

use futures::TryStreamExt;
use sqlx::PgConnection;

/// A table that is made of the topics alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Orders, as they are shown.
    Orders,
    /// Products and their stock.
    Products,
    /// Who has which name.
    ProductNames,
    /// Answered changes of admins.
    StockChanges,
    /// Orders as they were taken, those that are projected.
    Intake,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Orders, Self::Products, Self::ProductNames, Self::StockChanges, Self::Intake];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Products => "products",
            Self::ProductNames => "product_names",
            Self::StockChanges => "stock_changes",
            Self::Intake => "intake",
        }
    }

    /// Key and content of each entry.
    const fn sql(self) -> &'static str {
        match self {
            Self::Orders => {
                "SELECT order_id::text, hashtextextended(row(customer_id, created_at, version, state, is_final, document)::text, 0)
                   FROM orders"
            }
            Self::Products => "SELECT sku, hashtextextended(products::text, 0) FROM products",
            Self::ProductNames => {
                "SELECT row(n.name, n.option)::text, hashtextextended(n.sku, 0) FROM product_names n
                   JOIN products p ON p.sku = n.sku AND p.name = n.name AND coalesce(p.option, '') = n.option"
            }
            Self::StockChanges => {
                "SELECT change_id::text, hashtextextended(row(sku, quantity, state, code, changed_at, stock_version)::text, 0)
                   FROM stock_changes WHERE state <> 'pending'"
            }
            Self::Intake => {
                "SELECT i.order_id::text,
                        hashtextextended(row(i.customer_id, i.fingerprint, i.publish_before, i.command)::text, 0)
                   FROM intake i JOIN orders USING (order_id)"
            }
        }
    }
}

/// The entries of a table: a number for each, equal for equal ones.
///
/// # Errors
/// If the database can't be read.
pub async fn entries(connection: &mut PgConnection, table: Table) -> sqlx::Result<HashMap<String, i64>> {
    sqlx::query_as::<_, (String, i64)>(table.sql()).fetch(connection).try_collect().await
}
