//! Bad days of an operator: databases that are lost or came back from an older backup, a service that stands still, a
//! Redis that dies in the middle of a rush.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use kafka_cluster::Security;
use local_stack::{Part, Signal};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use system_tests::{Client, SOON, Said, System};
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

/// `replay --all --resume`, interrupted once it has kept some shares; what it said, or `None` if it was too quick.
async fn interrupted(system: &System, file: &std::path::Path) -> Option<Said> {
    let arguments = ["replay", "--all", "--json", "--resume", file.to_str().unwrap()];
    let mut command = system.sagactl_command(&arguments);
    let mut replaying = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    testkit::eventually(SOON, "a share is kept", async || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let kept: Value = serde_json::from_str(&text).unwrap_or_default();
        let ended = replaying.try_wait().unwrap().is_some();
        if ended || kept["done"].as_u64() > Some(0) { Ok(()) } else { Err(text) }
    })
    .await;
    if replaying.try_wait().unwrap().is_none() {
        // It may end meanwhile.
        drop(Signal::Interrupt.send(replaying.id()));
    }
    let said = Said::of(replaying.wait_with_output().unwrap());
    (said.code == 130).then_some(said)
}

#[tokio::test]
async fn x3_a_replay_that_is_interrupted_goes_on_where_it_was_and_says_what_a_whole_one_says() {
    let _alone = alone().await;
    let system = System::up("resumed", &[]).await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(40, &json!({})).await;
    let placed = orders(&customer, &sku, 24).await;
    system_tests::all_at_rest(&customer, &placed).await;
    // The declined ones are not stored as they were decided.
    let database = system.database("orchestrator").await;
    let declined = "UPDATE sagas SET state = replace(state, 'PAYMENT_FAILED', 'CANCELLED') \
                    WHERE order_id = ANY ($1) AND position('PAYMENT_FAILED' IN state) > 0";
    let orders: Vec<uuid::Uuid> = placed.iter().map(|order| order.parse().unwrap()).collect();
    let mut damaged = 0;
    testkit::eventually(SOON, "the sagas are stored", async || {
        damaged += sqlx::query(declined).bind(&orders).execute(&database).await.unwrap().rows_affected();
        if damaged == 6 { Ok(()) } else { Err(damaged) }
    })
    .await;
    let whole = system.sagactl(&["replay", "--all", "--json"]).json(1);
    assert_eq!((&whole["drifted"], &whole["kinds"]), (&json!(6), &json!({"state": 6})));

    let file = system.data().join("gate.json");
    let mut tries = 0..20;
    let said = loop {
        assert!(tries.next().is_some(), "it is always too quick");
        match interrupted(&system, &file).await {
            Some(said) => break said,
            None => assert!(!file.exists(), "nothing is left to resume"),
        }
    };
    assert!(said.error.contains("shares are kept in"), "{said:?}");
    let kept = std::fs::read_to_string(&file).unwrap();
    let parsed: Value = serde_json::from_str(&kept).unwrap();
    assert!(parsed["done"].as_u64() < parsed["shares"].as_u64(), "{kept}");

    // What does not add up is refused.
    let resume = |more: &[&str]| {
        system.sagactl(&[&["replay", "--all", "--json", "--resume", file.to_str().unwrap()], more].concat())
    };
    let refused = |said: &Said, why: &str| assert!(said.code == 2 && said.error.contains(why), "{said:?}");
    let changed = |pointer: &str, value: &str| {
        let mut changed = parsed.clone();
        *changed.pointer_mut(pointer).unwrap() = json!(value);
        std::fs::write(&file, changed.to_string()).unwrap();
    };
    changed("/of/build/sha256", &"0".repeat(64));
    refused(&resume(&[]), "another build began it");
    changed("/of/logs/0", "another");
    refused(&resume(&[]), "it is of another log");
    std::fs::write(&file, &kept).unwrap();
    refused(&resume(&["--state", "PAID"]), "it is of other orders");
    std::fs::write(&file, "{}").unwrap();
    refused(&resume(&[]), "no checkpoint of a replay");

    std::fs::write(&file, &kept).unwrap();
    let resumed = resume(&[]).json(1);
    for field in ["orders", "inputs", "effects", "drifted", "kinds", "affected", "drifts", "positions"] {
        assert_eq!(resumed[field], whole[field], "{field}");
    }
    assert!(!file.exists(), "the report is complete");
}

/// How long after the last order has ended, with Redis back, the door may differ from the stock.
const AGREES_WITHIN: Duration = Duration::from_secs(10);
const STORM: [&str; 8] = ["sale", "--json", "--buyers", "1200", "--within", "4s", "--units", "200"];

/// `load-test sale` against this system; what it reports, once everything that it checks holds.
async fn storm(system: &System) -> Value {
    let endpoints = system.data().join("endpoints.json");
    let mut command = Command::new(system_tests::binary("load-test"));
    command.arg("--endpoints").arg(endpoints).args(STORM);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&said).unwrap()
}

/// Waits until Redis runs, and fewer units of the storm's product are left than that; then `kill -9`.
async fn kill_redis_below(system: &System, customer: &Client, units: i64) {
    testkit::eventually(SOON, &format!("less than {units} are left"), async || {
        let list = customer.get("/v1/products?category=load").await.expect(200);
        let left = list["items"][0]["available"].as_i64();
        if left.is_some_and(|left| left < units) { Ok(()) } else { Err(list.to_string()) }
    })
    .await;
    redis_runs(system).await;
    system.signal_part(Part::Redis, Signal::Kill);
}

async fn redis_runs(system: &System) {
    let redis = system.endpoints()["redis"].as_str().unwrap().to_owned();
    testkit::eventually(SOON, "redis runs", async || {
        local_stack::probe(Part::Redis, &redis, &Security::default()).await
    })
    .await;
}

/// The door agrees with the stock of a product that is sold out: it says so by itself, at every node; and of units that come
/// later it lets in exactly as many.
async fn door_agrees(system: &System, admin: &Client, sku: &str) {
    const MORE: usize = 5;
    let began = Instant::now();
    let left = || AGREES_WITHIN.saturating_sub(began.elapsed());
    testkit::eventually(left(), "every node's door is shut", async || {
        for node in 0..2 {
            let customer = system.customer().at(node);
            let answer = customer.order(sku, 1, Some("tok_approve")).await;
            if answer.body["code"] != "sold_out" {
                if let Some(order) = answer.body["id"].as_str() {
                    customer.until(order, &["REJECTED"]).await;
                }
                return Err(answer.body.to_string());
            }
        }
        Ok(())
    })
    .await;
    let restock = admin
        .request(Method::POST, &format!("/v1/admin/products/{sku}/restock"))
        .header("idempotency-key", "more")
        .json(&json!({"quantity": MORE, "reason": "test"}));
    admin.send(restock).await.expect(202);
    let mut taken = Vec::new();
    testkit::eventually(left(), "the door lets in as many as there are", async || {
        let customer = system.customer().at(taken.len() % 2);
        let answer = customer.order(sku, 1, Some("tok_approve")).await;
        if answer.status == 202 {
            taken.push((customer, answer.body["id"].as_str().unwrap().to_owned()));
        }
        let is_shut = answer.body["code"] == "sold_out" && taken.len() >= MORE;
        if is_shut { Ok(()) } else { Err(format!("{} let in, then {}", taken.len(), answer.body)) }
    })
    .await;
    assert_eq!(taken.len(), MORE, "nobody is let in for nothing");
    for (customer, order) in &taken {
        customer.until(order, &["PAID"]).await;
    }
}

#[tokio::test]
async fn o6_a_sold_out_storm_with_redis_killed_sells_each_unit_once_and_the_door_comes_to_agree_with_the_stock()
 {
    let _alone = alone().await;
    let two = ["api=2", "order-orchestrator=2", "stock-worker=2", "payment-worker=2"];
    let system = System::up("storm", &two.map(|two| ["--replicas", two]).concat()).await;
    let (admin, customer) = (system.admin(), system.customer());
    // While the door still has units to give, so that some are sold without a ticket; and when it has none.
    let kills = async {
        kill_redis_below(&system, &customer, 200).await;
        kill_redis_below(&system, &customer, 1).await;
    };
    let (report, ()) = tokio::join!(storm(&system), kills);
    assert_eq!((&report["sold"], &report["most_of_one_customer"]), (&json!(200), &json!(1)), "{report}");
    assert_eq!(report["is_promised"], false, "Redis was not away long enough to matter: {report}");
    redis_runs(&system).await;
    door_agrees(&system, &admin, report["sku"].as_str().unwrap()).await;
    system.audited().await;
}
