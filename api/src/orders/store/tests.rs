//! The statement of a customer's orders on a real PostgreSQL.

use sqlx::types::Uuid;
use sqlx::{AssertSqlSafe, Row};

use super::PAGE;

/// What the plan's line about `what` says was read.
fn rows_of(plan: &str, what: &str) -> usize {
    let line = plan.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what}:\n{plan}"));
    let rows = line.split("rows=").last().and_then(|rest| rest.split(' ').next()).unwrap();
    rows.parse().unwrap_or_else(|error| panic!("{error}:\n{plan}"))
}

#[tokio::test]
async fn o14_a_page_reads_as_many_orders_as_it_shows_however_many_the_customer_has() {
    let url = testkit::fresh_database("orders").await;
    let pool = crate::database::pool(&url, 1).unwrap();
    sqlx::migrate!().run(&pool).await.unwrap();
    let customer = Uuid::from_u128(7);
    // Two orders in each instant.
    let fill = format!(
        "INSERT INTO orders (order_id, customer_id, created_at, version, state, is_final, document)
         SELECT gen_random_uuid(), CASE WHEN n % 2 = 0 THEN '{customer}'::uuid ELSE gen_random_uuid() END,
                timestamptz '2026-11-28T00:00:00Z' + make_interval(secs => n / 4), 2, 'PAID', false, '{{}}'
           FROM generate_series(1, 10000) AS n"
    );
    sqlx::raw_sql(AssertSqlSafe(format!("PREPARE page AS {PAGE}"))).execute(&pool).await.unwrap();
    for (fill, shown) in [(None, 0), (Some(fill), 5)] {
        if let Some(fill) = fill {
            sqlx::raw_sql(AssertSqlSafe(fill)).execute(&pool).await.unwrap();
            sqlx::raw_sql("ANALYZE orders").execute(&pool).await.unwrap();
        }
        for after in ["NULL, NULL", "'2026-11-28T00:10:00Z', 'ffffffff-ffff-ffff-ffff-ffffffffffff'"] {
            let explain = format!(
                "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE page ('{customer}', '{{}}', {after}, 5)"
            );
            let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&pool).await.unwrap();
            let plan = rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n");
            let read = rows_of(&plan, "using orders_of_customer on");
            assert!((shown..=7).contains(&read) && !plan.contains("Rows Removed"), "{after}:\n{plan}");
        }
    }
}
