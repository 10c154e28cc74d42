//! Plans of the statements on a real PostgreSQL.

use sqlx::{AssertSqlSafe, Executor, PgPool, Row};

use super::{LOAD, SAVE};

async fn plan(pool: &PgPool, execute: &str) -> String {
    let rows =
        sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN EXECUTE {execute}"))).fetch_all(pool).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}

/// Statistics of a table whose rows have all gone made another index as cheap, by which a partition's calls are read for each order.
#[tokio::test]
async fn an_order_is_found_by_its_key_also_when_no_charge_seems_to_be_open() {
    let url = testkit::fresh_database("plans").await;
    let pool = service_kit::database::pool(&url, "plans", 1).unwrap();
    crate::MIGRATIONS.run(&pool).await.unwrap();
    let fill = "INSERT INTO open_charges
         SELECT 0, gen_random_uuid(), gen_random_uuid(), 1, n, 'requested', 'KRW', '{}' FROM generate_series(1, 1000) AS n";
    for statement in [fill, "DELETE FROM open_charges", "VACUUM ANALYZE open_charges"] {
        pool.execute(statement).await.unwrap();
    }
    for (name, sql) in [("load", LOAD), ("save", SAVE)] {
        sqlx::raw_sql(AssertSqlSafe(format!("PREPARE {name} AS {sql}"))).execute(&pool).await.unwrap();
    }
    let load = plan(&pool, "load (0, '{}')").await;
    let save = plan(&pool, &format!("save (0{})", ", NULL".repeat(26))).await;
    for (plan, look_ups) in [(&load, 1), (&save, 2)] {
        for table in ["open_charges", "done_charges"] {
            let by_key = plan.matches(&format!("using {table}_pkey on {table} ")).count();
            assert_eq!(by_key, look_ups, "{table}:\n{plan}");
        }
        let by_order = plan.matches("Index Cond: ((partition_id = $1) AND (order_id = ").count();
        assert_eq!(by_order, 2 * look_ups, "{plan}");
    }
}
