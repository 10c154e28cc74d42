//! What stands after processes and servers were killed. Each test has a system of its own; one at a time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::time::{Duration, Instant};

use futures::future::join_all;
use local_stack::{Part, Signal};
use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Answer, Client, SOON, System, order_body};
use tokio::sync::{Mutex, MutexGuard};

/// Two cores are not enough for several systems at once.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().await
}

const SERVICES: [&str; 4] = ["order-orchestrator-1", "stock-worker-1", "payment-worker-1", "api-1"];

/// Places an order under that key until it is accepted, whatever happens in between; its id.
async fn insist(customer: &Client, sku: &str, key: &str, method: &str) -> String {
    try_to_buy(customer, sku, key, method).await.unwrap_or_else(|| panic!("{sku} is sold out"))
}

/// The same; `None` once it is sold out at the door.
async fn try_to_buy(customer: &Client, sku: &str, key: &str, method: &str) -> Option<String> {
    let body = order_body(&[(sku, 1)], Some(method));
    testkit::eventually(Duration::from_secs(60), "the order is accepted", async || {
        let request = customer.request(Method::POST, "/v1/orders").header("idempotency-key", key).json(&body);
        match Client::try_send(request).await {
            Ok(answer) if answer.status == 202 => Ok(Some(answer.body["id"].as_str().unwrap().to_owned())),
            Ok(answer) if answer.status == 409 && answer.body["code"] == "sold_out" => Ok(None),
            // Away; or one customer who insists this often is told to wait.
            Ok(answer) if [503, 429].contains(&answer.status.as_u16()) => Err(answer.body.to_string()),
            Ok(answer) => panic!("{} {}", answer.status, answer.body),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

/// A sale of 60 units to 150 customers' orders, a fifth of the payments declined, while `fault` strikes.
async fn sale_during(system: &System, fault: impl AsyncFnOnce()) {
    let (admin, customer) = (system.admin(), system.customer());
    let before = system.audited().await;
    let sku = admin.new_product(60, &json!({})).await;
    let orders = join_all((0..150).map(|n| {
        let (customer, sku) = (customer.clone(), sku.clone());
        async move {
            let method = if n % 5 == 0 { "tok_decline" } else { "tok_approve" };
            try_to_buy(&customer, &sku, &format!("buy-{n}"), method).await
        }
    }));
    let (orders, ()) = tokio::join!(orders, fault());
    let mut paid = 0;
    for order in orders.iter().flatten() {
        let ended = customer.until_settled(order, &["PAID", "REJECTED", "PAYMENT_FAILED"]).await;
        paid += i64::from(ended["state"] == "PAID");
    }
    let report = system.audited().await;
    assert_eq!(report.units.sold - before.units.sold, paid);
    let (kept, kept_before) = (report.charged - report.refunded, before.charged - before.refunded);
    assert_eq!(kept - kept_before, paid * 129_000);
}

trait UntilSettled {
    async fn until_settled(&self, order: &str, states: &[&str]) -> Value;
}

impl UntilSettled for Client {
    /// As `until`, but an api that is being restarted is waited for.
    async fn until_settled(&self, order: &str, states: &[&str]) -> Value {
        testkit::eventually(Duration::from_secs(90), &format!("{order} is {states:?}"), async || {
            let request = self.request(Method::GET, &format!("/v1/orders/{order}"));
            let answer = Client::try_send(request).await.map_err(|error| error.to_string())?;
            if answer.status == 200 && states.iter().any(|state| answer.body["state"] == **state) {
                return Ok(answer.body);
            }
            assert_ne!(answer.status, 404, "an accepted order is missing: {}", answer.body);
            Err(answer.body.to_string())
        })
        .await
    }
}

#[tokio::test]
async fn o7_killing_any_service_in_the_middle_of_a_sale_loses_and_doubles_nothing() {
    let _alone = alone().await;
    let mut system = System::up("kill-one", &["--separate"]).await;
    for service in SERVICES {
        sale_during(&system, async || {
            let killed = system.kill_service(service).await;
            testkit::eventually(SOON, &format!("{service} runs again"), async || {
                match system.service_pid(service) {
                    Some(pid) if pid != killed => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        })
        .await;
    }
    system.ready_again().await;
    system.down().await;
}

#[tokio::test]
async fn o7_killing_everything_at_once_and_starting_again_loses_and_doubles_nothing() {
    let _alone = alone().await;
    let mut system = System::up("kill-all", &["--separate", "--set", "day=15s"]).await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(60, &json!({})).await;
    let orders = join_all((0..100).map(|n| {
        let (customer, sku) = (customer.clone(), sku.clone());
        async move {
            let method = ["tok_approve", "tok_decline", "tok_slow"][n % 3];
            try_to_buy(&customer, &sku, &format!("buy-{n}"), method).await
        }
    }))
    .await;
    // kill -9 of `firstcome up`: its watchers kill the services and the servers, too.
    system.kill().await;
    system.start_again().await;
    for order in orders.iter().flatten() {
        customer.until_settled(order, &["PAID", "SHIPPED", "DELIVERED", "REJECTED", "PAYMENT_FAILED"]).await;
    }
    system.audited().await;
    // o12: the timers survived as well.
    let shipped = customer.ordered(&admin.new_product(1, &json!({})).await, 1, Some("tok_approve")).await;
    customer.until(&shipped, &["PAID"]).await;
    system.kill().await;
    system.start_again().await;
    customer.until_settled(&shipped, &["SHIPPED", "DELIVERED"]).await;
    system.down().await;
}

/// The answer, and how long it took.
async fn timed(customer: &Client, key: &str, sku: &str) -> (Answer, Duration) {
    let request = customer
        .request(Method::POST, "/v1/orders")
        .header("idempotency-key", key)
        .json(&order_body(&[(sku, 1)], Some("tok_approve")));
    let began = Instant::now();
    (customer.send(request).await, began.elapsed())
}

#[tokio::test]
async fn kafka_away_is_told_apart_and_nothing_is_lost_or_doubled() {
    let _alone = alone().await;
    let system = System::up("kafka-away", &[]).await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(10, &json!({})).await;
    let warm = customer.ordered(&sku, 1, Some("tok_approve")).await;
    customer.until(&warm, &["PAID"]).await;

    // Frozen during a request: sent, not acknowledged.
    system.signal_part(Part::Kafka, Signal::Stop);
    let (answer, took) = timed(&customer, "during", &sku).await;
    answer.expect_problem(503, "outcome_unknown");
    assert!(took < Duration::from_millis(4_500), "{took:?}");
    assert!(answer.headers.contains_key("retry-after"));
    let location = answer.location().to_owned();
    assert_eq!(customer.get(&location).await.expect(200)["state"], "ACCEPTED");
    // By now it is known to be away: nothing is kept.
    let before: i64 = count_intake(&system).await;
    let (answer, _) = timed(&customer, "known-away", &sku).await;
    answer.expect_problem(503, "unavailable");
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(count_intake(&system).await, before, "nothing is kept");

    system.signal_part(Part::Kafka, Signal::Continue);
    let id = location.rsplit('/').next().unwrap().to_owned();
    assert_eq!(
        insist(&customer, &sku, "during", "tok_approve").await,
        id,
        "the same key names the same order"
    );
    customer.until(&id, &["PAID"]).await;
    let again = insist(&customer, &sku, "known-away", "tok_approve").await;
    customer.until(&again, &["PAID"]).await;
    assert_eq!(customer.get("/v1/orders").await.expect(200)["items"].as_array().unwrap().len(), 3);

    // Killed, and started again by whoever looks after it: nothing else is restarted.
    system.signal_part(Part::Kafka, Signal::Kill);
    let id = insist(&customer, &sku, "after", "tok_approve").await;
    customer.until(&id, &["PAID"]).await;
    customer.until_available(&sku, 6).await;
    system.audited().await;
}

#[tokio::test]
async fn o4_redis_killed_in_the_middle_of_a_sale_or_frozen_stops_nobody_and_oversells_nothing() {
    let _alone = alone().await;
    let system = System::up("redis-away", &[]).await;
    sale_during(&system, async || system.signal_part(Part::Redis, Signal::Kill)).await;
    // Frozen: the door lets everybody in, and the stock worker decides.
    let (admin, customer) = (system.admin(), system.customer());
    let limited = json!({"limit_per_customer": 1});
    let (scarce, limited) = (admin.new_product(1, &json!({})).await, admin.new_product(5, &limited).await);
    let redis = system.endpoints()["redis"].as_str().unwrap().to_owned();
    testkit::eventually(SOON, "redis runs", async || local_stack::probe(Part::Redis, &redis).await).await;
    system.signal_part(Part::Redis, Signal::Stop);
    let closed =
        json!({"sale": {"opens_at": "2020-01-01T00:00:00.000Z", "closes_at": "2020-01-02T00:00:00.000Z"}});
    let closed = admin.new_product(5, &closed).await;
    for sku in [&scarce, &limited] {
        let id = insist(&customer, sku, &format!("first-{sku}"), "tok_approve").await;
        customer.until(&id, &["PAID"]).await;
    }
    for (sku, reason) in [(&scarce, "sold_out"), (&limited, "limit_exceeded"), (&closed, "sale_closed")] {
        let id = insist(&customer, sku, &format!("second-{sku}"), "tok_approve").await;
        assert_eq!(customer.until(&id, &["REJECTED"]).await["reason"], *reason);
    }
    system.signal_part(Part::Redis, Signal::Continue);
    testkit::eventually(SOON, "the door says it again", async || {
        let answer = customer.order(&scarce, 1, Some("tok_approve")).await;
        if answer.status == 409 { Ok(()) } else { Err(answer.body) }
    })
    .await;
    system.audited().await;
}

async fn count_intake(system: &System) -> i64 {
    let api = system.database("api").await;
    sqlx::query_scalar("SELECT count(*) FROM intake").fetch_one(&api).await.unwrap()
}

#[tokio::test]
async fn postgresql_killed_and_back_loses_nothing() {
    let _alone = alone().await;
    let system = System::up("postgres-away", &[]).await;
    sale_during(&system, async || system.signal_part(Part::Postgres, Signal::Kill)).await;
    sale_during(&system, async || system.signal_part(Part::Kafka, Signal::Kill)).await;
}

#[tokio::test]
async fn o2_a_repeat_while_the_orchestrator_is_down_gets_the_same_order() {
    let _alone = alone().await;
    let system = System::up("orchestrator-down", &["--separate"]).await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(10, &json!({})).await;
    let pid = system.service_pid("order-orchestrator-1").unwrap();
    Signal::Stop.send(pid).unwrap();
    let first = insist(&customer, &sku, "k", "tok_approve").await;
    let second = insist(&customer, &sku, "k", "tok_approve").await;
    assert_eq!(first, second);
    assert_eq!(customer.see(&first).await["state"], "ACCEPTED");
    assert_eq!(count_intake(&system).await, 1);
    Signal::Continue.send(pid).unwrap();
    customer.until(&first, &["PAID"]).await;
    customer.until_available(&sku, 9).await;
}

#[tokio::test]
async fn the_audit_sees_damage() {
    let _alone = alone().await;
    let system = System::up("damage", &[]).await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(10, &json!({})).await;
    let id = customer.ordered(&sku, 2, Some("tok_approve")).await;
    customer.until(&id, &["PAID"]).await;
    system.audited().await;
    let databases = auditor::Databases {
        stock: vec![system.database("stock").await],
        payment: vec![system.database("payment").await],
        api: system.database("api").await,
    };
    let rules = async || -> Vec<&'static str> {
        auditor::audit(&databases).await.unwrap().violations.iter().map(|violation| violation.rule).collect()
    };
    let damage = async |pool: &sqlx::PgPool, sql: &'static str| {
        sqlx::raw_sql(sql).execute(pool).await.unwrap();
    };
    damage(&databases.stock[0], "UPDATE items SET sold = sold - 1, available = available + 1").await;
    assert_eq!(rules().await, ["item_is_sum_of_holds"]);
    damage(&databases.stock[0], "UPDATE items SET sold = sold + 1, available = available - 1").await;
    damage(&databases.payment[0], "UPDATE simulated_charges SET amount = amount + 1").await;
    assert_eq!(rules().await, ["books_agree"]);
    damage(&databases.payment[0], "UPDATE simulated_charges SET amount = amount - 1").await;
    damage(&databases.stock[0], "UPDATE holds SET order_id = gen_random_uuid()").await;
    assert!(rules().await.contains(&"orders_keep_their_units"));
}
