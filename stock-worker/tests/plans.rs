//! Every lookup is by key, also with plans that were made while the tables were empty.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::{DEADLINE, World, confirm, fresh_customer, fresh_orders, product, release, reserve};
use testkit::eventually;

/// PostgreSQL settles on a plan for a prepared statement after this many executions.
const EXECUTIONS_UNTIL_A_PLAN_IS_KEPT: usize = 6;
const ORDERS: usize = 4_000;

#[tokio::test]
async fn a_rush_after_quiet_reads_about_as_many_rows_as_it_has_commands() {
    let world = World::on(testkit::infra().await).await;
    let worker = world.start();
    let sku = world.product(1_000_000, product()).await;
    for order in fresh_orders(EXECUTIONS_UNTIL_A_PLAN_IS_KEPT) {
        world.send(&[reserve(order, &sku, 1, fresh_customer())]).await;
        world.replies(&[order], 1).await;
        world.send(&[release(order, &sku)]).await;
        world.replies(&[order], 2).await;
    }
    let orders = fresh_orders(ORDERS);
    let mut commands: Vec<_> =
        orders.iter().map(|order| reserve(*order, &sku, 1, fresh_customer())).collect();
    commands.extend(orders.iter().map(|order| confirm(*order, &sku)));
    world.send(&commands).await;

    let pool = world.database().await;
    let sold = i64::try_from(ORDERS).unwrap();
    eventually(DEADLINE, "all are sold", async || {
        let now = support::counts(&pool, &sku).await[4];
        if now == sold { Ok(()) } else { Err(format!("{now} sold")) }
    })
    .await;
    worker.stop().await;
    let sent = i64::try_from(commands.len()).unwrap();
    // A connection tells its statistics at the latest when it ends.
    let read: i64 = eventually(DEADLINE, "the worker's connections have ended", async || {
        let connections: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stock-worker'",
        )
        .fetch_one(&pool)
        .await
        .map_err(|error| error.to_string())?;
        if connections > 0 {
            return Err(format!("{connections} connections"));
        }
        sqlx::query_scalar(
            "SELECT (SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname = 'holds') +
                    (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'holds')",
        )
        .fetch_one(&pool)
        .await
        .map_err(|error| error.to_string())
    })
    .await;
    // Each confirm looks its hold up when it is loaded and when it is saved.
    assert!((sent / 2..2 * sent).contains(&read), "{read} rows of holds were read for {sent} commands");
}
