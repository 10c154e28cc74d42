//! Bad days of an operator: databases that are lost or came back from an older backup, a service that stands still.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::process::Command;

use futures::future::join_all;
use local_stack::Signal;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use system_tests::{Client, SOON, System};
use tokio::sync::{Mutex, MutexGuard};

/// Two cores are not enough for several systems at once.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().await
}

/// Orders of all kinds, some paid, some waiting.
async fn orders(customer: &Client, sku: &str, count: usize) -> Vec<String> {
    let methods = [Some("tok_approve"), Some("tok_decline"), None, Some("tok_unknown_approve")];
    join_all((0..count).map(|n| customer.ordered(sku, 1, methods[n % methods.len()]))).await
}

async fn sql(pool: &sqlx::PgPool, statements: &[String]) {
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(pool).await.unwrap();
    }
}

/// Takes a database away from under its service: nobody may connect, nobody is connected.
async fn take_away(admin: &sqlx::PgPool, name: &str) {
    sql(
        admin,
        &[
            format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"),
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
        ],
    )
    .await;
}

fn url(system: &System, service: &str) -> String {
    system.endpoints()["postgres"][service][0].as_str().unwrap().to_owned()
}

fn of_database(url: &str, name: &str) -> String {
    format!("{}/{name}", url.rsplit_once('/').unwrap().0)
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn lost_databases_are_rebuilt_from_kafka_and_older_backups_catch_up() {
    let _alone = alone().await;
    let system = System::up("recovery", &[]).await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(100, &json!({})).await;
    let server = sqlx::PgPool::connect(&of_database(&url(&system, "api"), "postgres")).await.unwrap();
    let before = orders(&customer, &sku, 8).await;
    system_tests::all_at_rest(&customer, &before).await;
    for service in ["stock", "payment"] {
        let file = system.data().join(format!("{service}.dump"));
        run("pg_dump", &["--format=custom", "--file", file.to_str().unwrap(), &url(&system, service)]);
    }
    let after = orders(&customer, &sku, 8).await;
    system_tests::all_at_rest(&customer, &after).await;

    // The orchestrator's database is gone while orders come in.
    let name = "orchestrator";
    take_away(&server, name).await;
    let during = orders(&customer, &sku, 4).await;
    sql(&server, &[format!("ALTER DATABASE {name} RENAME TO lost"), "CREATE DATABASE rebuilt".to_owned()])
        .await;
    let into = of_database(&url(&system, name), "rebuilt");
    let rebuilt =
        system.sagactl(&["rebuild", "--service", name, "--lost", "--into", &into, "--json"]).json(0);
    assert!(rebuilt["records"].as_u64() > Some(40), "{rebuilt}");
    sql(&server, &[format!("ALTER DATABASE rebuilt RENAME TO {name}")]).await;
    system_tests::all_at_rest(&customer, &during).await;
    for order in before.iter().chain(&after) {
        if customer.see(order).await["state"] == "AWAITING_PAYMENT" {
            customer.post(&format!("/v1/orders/{order}/cancellation"), &json!({})).await.expect(202);
            customer.until(order, &["CANCELLED"]).await;
        }
    }
    system.audited().await;

    // Stock and payment come back as they were when the backup was made.
    for service in ["stock", "payment"] {
        take_away(&server, service).await;
        let file = system.data().join(format!("{service}.dump"));
        sql(
            &server,
            &[
                format!("ALTER DATABASE {service} RENAME TO {service}_lost"),
                format!("CREATE DATABASE {service}_restored"),
            ],
        )
        .await;
        let restored = of_database(&url(&system, service), &format!("{service}_restored"));
        run("pg_restore", &["--dbname", &restored, file.to_str().unwrap()]);
        sql(&server, &[format!("ALTER DATABASE {service}_restored RENAME TO {service}")]).await;
    }
    let last = orders(&customer, &sku, 4).await;
    system_tests::all_at_rest(&customer, &last).await;
    system.audited().await;
    system.sagactl(&["audit"]).expect(0);
}

#[tokio::test]
async fn a_payment_worker_that_stands_still_shows_as_lag_and_waiting_orders_and_needs_no_repair() {
    let _alone = alone().await;
    let system = System::up("standstill", &["--separate"]).await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(10, &json!({})).await;
    let top = || system.sagactl(&["top", "--json"]).json(0);
    let lag = |top: &Value| -> i64 {
        let consumers = top["consumers"].as_array().unwrap().iter();
        consumers.filter(|c| c["group"] == "payment-worker").map(|c| c["lag"].as_i64().unwrap()).sum()
    };
    let pid = system.service_pid("payment-worker-1").unwrap();
    Signal::Stop.send(pid).unwrap();
    let order = customer.ordered(&sku, 1, Some("tok_approve")).await;
    customer.until(&order, &["CHARGING"]).await;
    testkit::eventually(SOON, "the lag shows", async || {
        let top = top();
        if lag(&top) == 1 && top["states"]["CHARGING"] == 1 { Ok(()) } else { Err(top.to_string()) }
    })
    .await;
    let waiting = system.sagactl(&["list", "--waiting-for", "payment", "--json"]).json(0);
    assert_eq!(waiting["orders"][0]["order_id"], json!(order));
    let text = system.sagactl(&["top", "--once"]).expect(0).to_owned();
    assert!(text.contains("longest waiting: ") && text.contains("payment: charge"), "{text}");
    system.sagactl(&["audit"]).expect(0);
    Signal::Continue.send(pid).unwrap();
    customer.until(&order, &["PAID"]).await;
    assert_eq!(lag(&top()), 0);
}
