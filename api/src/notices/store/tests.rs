//! Plans of the statements on a real PostgreSQL.

use sqlx::{AssertSqlSafe, Executor, Row};

use super::{PUT_OFF, SETTLE, TOLD};

/// Statistics of a table whose rows have all gone made another index as cheap, by which a partition's mails are read for each mail.
#[tokio::test]
async fn a_mail_is_found_by_its_key_also_when_there_seem_to_be_none() {
    let url = testkit::fresh_database("mails").await;
    let pool = crate::database::pool(&url, 1).unwrap();
    sqlx::migrate!().run(&pool).await.unwrap();
    let fill = [
        "INSERT INTO mails
         SELECT 0, gen_random_uuid(), 1, gen_random_uuid(), '', '', '', 0, now() FROM generate_series(1, 1000)",
        "INSERT INTO mail_addresses (order_id, address) SELECT gen_random_uuid(), '' FROM generate_series(1, 1000)",
        "DELETE FROM mails",
        "DELETE FROM mail_addresses",
        "VACUUM ANALYZE mails, mail_addresses",
    ];
    for statement in fill {
        pool.execute(statement).await.unwrap();
    }
    let mail = "Index Cond: ((partition_id = $1) AND (order_id = k.order_id) AND (version = k.version))";
    for (name, sql, arguments, table, key) in [
        ("settle", SETTLE, "0, '{}', '{}'", "mails", mail),
        ("put_off", PUT_OFF, "0, '{}', '{}', '{}'", "mails", mail),
        ("told", TOLD, "'{}', '{}'", "mail_addresses", "Index Cond: (order_id = "),
    ] {
        sqlx::raw_sql(AssertSqlSafe(format!("PREPARE {name} AS {sql}"))).execute(&pool).await.unwrap();
        let explain = format!("EXPLAIN EXECUTE {name} ({arguments})");
        let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&pool).await.unwrap();
        let plan = rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n");
        assert!(plan.contains(&format!("using {table}_pkey on {table} ")) && plan.contains(key), "{plan}");
    }
}
