//! The list's statements on a real PostgreSQL.

use std::collections::BTreeSet;

use domain_types::Timestamp;
use schemas::{DailySale, ProductKind, Sale};
use sqlx::{AssertSqlSafe, PgPool, Row};
use stock_domain::is_on_sale;

use super::is_open;
use super::store::{self, Filter, Order, Place, Selection, statement};

async fn database() -> PgPool {
    let url = testkit::fresh_database("lists").await;
    let pool = crate::database::pool(&url, 2).unwrap();
    sqlx::migrate!().run(&pool).await.unwrap();
    pool
}

fn everything() -> Filter {
    Filter { category: None, kind: None, min_price: 0, max_price: i64::MAX }
}

async fn explained(pool: &PgPool, order: Order, in_category: bool) -> String {
    let mut connection = pool.acquire().await.unwrap();
    let sql = statement(order, in_category);
    sqlx::raw_sql(AssertSqlSafe(format!("PREPARE page AS {sql}"))).execute(&mut *connection).await.unwrap();
    let after = match order {
        Order::Name => "'Name 5000', 'SKU-5000'",
        Order::Price | Order::PriceDown => "50, 'SKU-5000'",
    };
    let category = if in_category { ", 'c3'" } else { "" };
    let execute = format!(
        "EXPLAIN EXECUTE page ({after}, 21, NULL, '2026-11-21T05:00:00.000Z', '{{}}', 0, 90{category})"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(execute)).fetch_all(&mut *connection).await.unwrap();
    sqlx::raw_sql("DEALLOCATE page").execute(&mut *connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn c1_every_page_is_read_from_an_index_that_has_its_order() {
    let pool = database().await;
    let fill = "INSERT INTO products (sku, version, product_version, name, category, kind, price_amount,
                                      price_currency, available)
                SELECT 'SKU-' || n, 1, 1, 'Name ' || n, 'c' || n % 7, 'normal', n % 100, 'KRW', 1
                FROM generate_series(1, 10000) AS n";
    for fill in [None, Some(fill)] {
        if let Some(fill) = fill {
            sqlx::raw_sql(fill).execute(&pool).await.unwrap();
            sqlx::raw_sql("ANALYZE products").execute(&pool).await.unwrap();
        }
        for (order, in_category, index) in [
            (Order::Name, false, "products_by_name"),
            (Order::Name, true, "products_by_category_and_name"),
            (Order::Price, false, "products_by_price"),
            (Order::Price, true, "products_by_category_and_price"),
            (Order::PriceDown, false, "products_by_price"),
            (Order::PriceDown, true, "products_by_category_and_price"),
        ] {
            let plan = explained(&pool, order, in_category).await;
            assert!(plan.contains(&format!("using {index} on")), "{order:?}, {in_category}:\n{plan}");
            assert!(!plan.contains("Sort"), "{order:?}, {in_category}:\n{plan}");
            let condition = plan.lines().find(|line| line.contains("Index Cond")).unwrap_or_default();
            let ends = usize::from(order != Order::Name || in_category);
            assert_eq!(condition.matches(" AND ").count(), ends, "{order:?}, {in_category}:\n{plan}");
            assert!(condition.contains("ROW("), "{order:?}, {in_category}:\n{plan}");
        }
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn daily(opens: &str, closes: &str, zone: &str) -> Sale {
    let daily = DailySale { opens: opens.into(), closes: closes.into(), time_zone: zone.into() };
    Sale { opens_at: None, closes_at: None, daily: Some(daily) }
}

fn between(opens_at: Option<&str>, closes_at: Option<&str>) -> Sale {
    Sale { opens_at: opens_at.map(time), closes_at: closes_at.map(time), daily: None }
}

async fn add(pool: &PgPool, number: usize, sale: Option<&Sale>) -> String {
    let sku = format!("SKU-{number:04}");
    let sale = sale.map(|sale| serde_json::to_string(sale).unwrap());
    sqlx::query(
        "INSERT INTO products (sku, version, product_version, name, category, kind, price_amount, price_currency, sale,
                               available)
         VALUES ($1, 1, 1, $1, 'c', 'limited', 5, 'KRW', $2, 1)",
    )
    .bind(&sku)
    .bind(sale)
    .execute(pool)
    .await
    .unwrap();
    sku
}

/// Around every opening, closing and change of a clock.
const INSTANTS: [&str; 18] = [
    "0001-01-01T00:00:00.000Z",
    "2026-03-29T00:59:59.999Z",
    "2026-03-29T01:00:00.000Z",
    "2026-03-29T01:29:59.999Z",
    "2026-03-29T01:30:00.000Z",
    "2026-10-25T00:30:00.000Z",
    "2026-10-25T01:15:00.000Z",
    "2026-10-25T02:29:59.999Z",
    "2026-10-25T02:30:00.000Z",
    "2026-11-21T04:59:59.999Z",
    "2026-11-21T05:00:00.000Z",
    "2026-11-21T05:00:00.001Z",
    "2026-11-21T05:59:59.999Z",
    "2026-11-21T06:00:00.000Z",
    "2026-11-21T15:00:00.000Z",
    "2026-11-21T16:00:00.000Z",
    "2026-11-22T05:00:00.000Z",
    "9999-12-31T23:59:59.999Z",
];

#[tokio::test]
async fn c2_the_list_of_what_is_on_sale_is_what_the_calendar_says_at_every_instant() {
    let pool = database().await;
    let sales = [
        None,
        Some(between(Some("2026-11-21T05:00:00Z"), Some("2026-11-21T06:00:00Z"))),
        Some(between(Some("0001-01-01T00:00:00Z"), Some("2026-11-21T05:00:00.001Z"))),
        Some(between(Some("2026-11-21T06:00:00Z"), Some("9999-12-31T23:59:59.999Z"))),
        Some(daily("14:00", "15:00", "Asia/Seoul")),
        Some(daily("23:00", "01:00", "Asia/Seoul")),
        Some(daily("02:30", "03:30", "Europe/Berlin")),
        Some(daily("02:15", "02:45", "Europe/Berlin")),
        // None of these is a sale window.
        Some(between(Some("2026-11-21T05:00:00Z"), None)),
        Some(between(None, None)),
        Some(between(Some("2026-11-21T06:00:00Z"), Some("2026-11-21T05:00:00Z"))),
        Some(daily("14:00", "15:00", "Nowhere/Town")),
        Some(Sale {
            daily: daily("14:00", "15:00", "Asia/Seoul").daily,
            ..between(Some("2026-11-21T05:00:00Z"), Some("2026-11-21T06:00:00Z"))
        }),
    ];
    let mut products = Vec::new();
    for (number, sale) in sales.iter().enumerate() {
        products.push((add(&pool, number, sale.as_ref()).await, sale.as_ref()));
    }
    // A window that many have is asked for once.
    add(&pool, 900, Some(&daily("14:00", "15:00", "Asia/Seoul"))).await;
    assert_eq!(store::daily_windows(&pool).await.unwrap().len(), 6);
    for at in INSTANTS.map(time) {
        let mut open_daily = store::daily_windows(&pool).await.unwrap();
        open_daily.retain(|window| is_open(window, at));
        let filter = everything();
        let selection = Selection { filter: &filter, on_sale_at: Some(at), open_daily: &open_daily };
        let page = store::page(&pool, Order::Name, &selection, None, 100).await.unwrap();
        let shown: BTreeSet<&str> = page.iter().map(|product| product.sku.as_str()).collect();
        for (sku, sale) in &products {
            assert_eq!(shown.contains(sku.as_str()), is_on_sale(*sale, at), "{sale:?} at {at}");
        }
    }
}

#[tokio::test]
async fn c1_pages_have_everything_once_in_each_order_to_the_ends_of_what_a_price_can_be() {
    let pool = database().await;
    for (number, price) in [0, 5, 5, 5, 9, i64::MAX, i64::MAX].into_iter().enumerate() {
        let sku = add(&pool, number, None).await;
        sqlx::query("UPDATE products SET price_amount = $2 WHERE sku = $1")
            .bind(sku)
            .bind(price)
            .execute(&pool)
            .await
            .unwrap();
    }
    let read = async |order, filter: &Filter| {
        let selection = Selection { filter, on_sale_at: None, open_daily: &[] };
        let mut after = None;
        let mut found = Vec::new();
        loop {
            let page = store::page(&pool, order, &selection, after, 2).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(match order {
                Order::Name => Place::Name(last.name.clone(), last.sku.to_string()),
                Order::Price | Order::PriceDown => Place::Price(last.price.amount, last.sku.to_string()),
            });
            found.extend(page.iter().map(|product| product.sku.to_string()[4..].parse::<i64>().unwrap()));
        }
        found
    };
    let in_category = Filter { category: Some("c".into()), kind: Some(ProductKind::Limited), ..everything() };
    for filter in [everything(), in_category] {
        assert_eq!(read(Order::Name, &filter).await, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(read(Order::Price, &filter).await, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(read(Order::PriceDown, &filter).await, [6, 5, 4, 3, 2, 1, 0]);
        let middle = Filter { min_price: 5, max_price: 9, ..filter };
        assert_eq!(read(Order::Name, &middle).await, [1, 2, 3, 4]);
        assert_eq!(read(Order::Price, &middle).await, [1, 2, 3, 4]);
        assert_eq!(read(Order::PriceDown, &middle).await, [4, 3, 2, 1]);
        let none = Filter { min_price: 9, max_price: 5, ..middle };
        for order in Order::ALL {
            assert_eq!(read(order, &none).await, Vec::<i64>::new());
        }
    }
}
