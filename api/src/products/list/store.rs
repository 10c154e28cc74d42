//! SQL of the list of products. Each order, with a category and without, is a statement of its own: every page is read from
//! an index that has its order, beginning where the page before it ended.

use domain_types::Timestamp;
use schemas::ProductKind;
use sqlx::PgPool;

use crate::products::model::{Product, kind_name};
use crate::products::store::product_of;

/// The order of a list; the sku breaks ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Name,
    Price,
    PriceDown,
}

impl Order {
    pub(super) const ALL: [Self; 3] = [Self::Name, Self::Price, Self::PriceDown];

    /// As it is asked for.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Price => "price",
            Self::PriceDown => "-price",
        }
    }
}

/// Which products, whatever the time is.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    pub(super) category: Option<String>,
    pub(super) kind: Option<ProductKind>,
    /// Minor units, both included.
    pub(super) min_price: i64,
    pub(super) max_price: i64,
}

/// Which products at an instant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection<'a> {
    pub(super) filter: &'a Filter,
    /// Only what is on sale then.
    pub(super) on_sale_at: Option<Timestamp>,
    /// Of [`daily_windows`], those that are open at that instant.
    pub(super) open_daily: &'a [String],
}

/// A place in an order: that of a product, or in front of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Name(String, String),
    /// Minor units.
    Price(i64, String),
}

/// Behind every sku.
const LAST_SKU: &str = "~";

/// A page: where it begins and may end, and its order.
///
/// Each is written such that one index alone has the order: a category leads the order where it is asked for, and `IS TRUE`
/// keeps prices from being looked for in another index.
macro_rules! page {
    ($range:literal, $order:literal) => {
        concat!(
            "SELECT sku, name, option, category, kind, price_amount, price_currency, available, sale,
                    limit_per_customer
             FROM products
             WHERE ",
            $range,
            " AND (price_amount BETWEEN $7 AND $8) IS TRUE
              AND ($4::text IS NULL OR kind = $4)
              AND ($5::text IS NULL OR sale IS NULL OR sale_daily = ANY($6::text[])
                   OR (sale_daily IS NULL AND sale_opens_at <= $5 AND $5 < sale_closes_at))
              ORDER BY ",
            $order,
            " LIMIT $3"
        )
    };
}

const BY_NAME: &str = page!("(name, sku) > ($1::text COLLATE \"C\", $2::text COLLATE \"C\")", "name, sku");
const BY_NAME_IN_CATEGORY: &str = page!(
    "(category, name, sku) > ($9, $1::text COLLATE \"C\", $2::text COLLATE \"C\") AND category <= $9",
    "category, name, sku"
);
const BY_PRICE: &str = page!(
    "(price_amount, sku) > ($1::bigint, $2::text COLLATE \"C\") AND price_amount <= $8",
    "price_amount, sku"
);
const BY_PRICE_IN_CATEGORY: &str = page!(
    "(category, price_amount, sku) > ($9, $1::bigint, $2::text COLLATE \"C\")
     AND (category, price_amount) <= ($9, $8)",
    "category, price_amount, sku"
);
const BY_PRICE_DOWN: &str = page!(
    "(price_amount, sku) < ($1::bigint, $2::text COLLATE \"C\") AND price_amount >= $7",
    "price_amount DESC, sku DESC"
);
const BY_PRICE_DOWN_IN_CATEGORY: &str = page!(
    "(category, price_amount, sku) < ($9, $1::bigint, $2::text COLLATE \"C\")
     AND (category, price_amount) >= ($9, $7)",
    "category DESC, price_amount DESC, sku DESC"
);

pub(super) const fn statement(order: Order, in_category: bool) -> &'static str {
    match (order, in_category) {
        (Order::Name, false) => BY_NAME,
        (Order::Name, true) => BY_NAME_IN_CATEGORY,
        (Order::Price, false) => BY_PRICE,
        (Order::Price, true) => BY_PRICE_IN_CATEGORY,
        (Order::PriceDown, false) => BY_PRICE_DOWN,
        (Order::PriceDown, true) => BY_PRICE_DOWN_IN_CATEGORY,
    }
}

/// Where a list begins: in front of all that its filter lets through.
fn beginning(order: Order, filter: &Filter) -> Place {
    match order {
        Order::Name => Place::Name(String::new(), String::new()),
        Order::Price => Place::Price(filter.min_price, String::new()),
        Order::PriceDown => Place::Price(filter.max_price, LAST_SKU.to_owned()),
    }
}

/// The next products behind `after`, at most `limit`.
pub(super) async fn page(
    pool: &PgPool,
    order: Order,
    selection: &Selection<'_>,
    after: Option<Place>,
    limit: i64,
) -> sqlx::Result<Vec<Product>> {
    let Selection { filter, on_sale_at, open_daily } = *selection;
    let query = sqlx::query(statement(order, filter.category.is_some()));
    let query = match after.unwrap_or_else(|| beginning(order, filter)) {
        Place::Name(name, sku) => query.bind(name).bind(sku),
        Place::Price(price, sku) => query.bind(price).bind(sku),
    };
    let query = query
        .bind(limit)
        .bind(filter.kind.map(kind_name))
        .bind(on_sale_at.map(|at| at.to_string()))
        .bind(open_daily)
        .bind(filter.min_price)
        .bind(filter.max_price);
    let query = match &filter.category {
        Some(category) => query.bind(category),
        None => query,
    };
    query.fetch_all(pool).await?.iter().map(product_of).collect()
}

/// Every different daily window of a product, as it is stored: one step in an index for each.
pub(super) async fn daily_windows(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "WITH RECURSIVE windows (sale) AS (
             (SELECT sale_daily FROM products WHERE sale_daily IS NOT NULL ORDER BY sale_daily LIMIT 1)
             UNION ALL
             SELECT (SELECT p.sale_daily FROM products AS p WHERE p.sale_daily > w.sale ORDER BY p.sale_daily LIMIT 1)
             FROM windows AS w WHERE w.sale IS NOT NULL)
         SELECT sale FROM windows WHERE sale IS NOT NULL",
    )
    .fetch_all(pool)
    .await
}
