//! What stands after processes and servers were killed. Each test has a system of its own; one at a time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::time::{Duration, Instant};

use futures::future::join_all;
use kafka_cluster::Security;
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

/// A sale of 60 units to 150 orders of a customer, a fifth of the payments declined, while `fault` strikes.
async fn sale_during(system: &System, fault: impl AsyncFnOnce()) {
    sale_of(60, system, fault).await;
}

/// The same, of more units, to two and a half times as many orders.
async fn sale_of(units: u32, system: &System, fault: impl AsyncFnOnce()) {
    let (admin, customer) = (system.admin(), system.customer());
    let before = system.audited().await;
    let sku = admin.new_product(units, &json!({})).await;
    let orders = join_all((0..units * 5 / 2).map(|n| {
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
async fn o7_killing_any_service_or_server_in_the_middle_of_a_sale_loses_and_doubles_nothing() {
    let _alone = alone().await;
    let mut system = System::up("kill-one", &["--separate"]).await;
    sale_of(240, &system, async || {
        for service in SERVICES {
            let killed = system.kill_service(service).await;
            testkit::eventually(SOON, &format!("{service} runs again"), async || {
                match system.service_pid(service) {
                    Some(pid) if pid != killed => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
    })
    .await;
    // The servers, too.
    sale_during(&system, async || system.signal_part(Part::Postgres, Signal::Kill)).await;
    sale_during(&system, async || system.signal_part(Part::Kafka, Signal::Kill)).await;
    system.ready_again().await;
    system.rebuilt().await;
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
    // An operator hears who does not answer, and still sees what is stored.
    let said = system.sagactl(&["top", "--once"]);
    assert!(said.code == 3 && said.error.contains("does not answer"), "{said:?}");
    assert!(system.sagactl(&["list", "--all"]).expect(0).contains(&warm));

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
    system.sagactl(&["audit"]).expect(0);
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
    testkit::eventually(SOON, "redis runs", async || {
        local_stack::probe(Part::Redis, &redis, &Security::default()).await
    })
    .await;
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
    // Who bought without a ticket is no promise broken.
    let audited = system.sagactl(&["audit", "--json"]).json(0);
    let unpromised = audited["turns"]["skus_without_promise"].as_array().unwrap();
    assert!(unpromised.contains(&json!(scarce)), "{audited}");
}

async fn count_intake(system: &System) -> i64 {
    let api = system.database("api").await;
    sqlx::query_scalar("SELECT count(*) FROM intake").fetch_one(&api).await.unwrap()
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
async fn x2_parked_records_are_previewed_corrected_redriven_in_order_and_discarded() {
    let _alone = alone().await;
    let system = System::up("parked", &[]).await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(10, &json!({})).await;
    let parked = |arguments: &[&str]| system.sagactl(&[&["dead-letters"], arguments, &["--json"]].concat());
    let settle = |arguments: &[&str]| parked(&[arguments, &["--reason", "a test", "--yes"]].concat());
    let until_parked = async |records: u64| {
        testkit::eventually(SOON, "the records are parked", async || {
            let list = parked(&["list"]).json(0);
            if list["records"] == records { Ok(list) } else { Err(list.to_string()) }
        })
        .await
    };

    // A poison record and, behind it, what the customer asks for.
    let order = customer.ordered(&sku, 1, None).await;
    customer.until(&order, &["AWAITING_PAYMENT"]).await;
    system.produce("order-saga", Some(&order), None, "{\"message_id\": \u{1b}[2J poison");
    until_parked(1).await;
    customer.post(&format!("/v1/orders/{order}/cancellation"), &json!({})).await.expect(202);
    let list = until_parked(2).await;
    let first = &list["parked"][0];
    assert_eq!(
        (&first["key"], &first["group"], &first["cause"]),
        (&json!(order), &json!("order-orchestrator"), &json!("malformed"))
    );
    let place = format!("order-saga/{}@{}", first["partition"], first["first_offset"]);
    let text = system.sagactl(&["dead-letters", "show", &place]).expect(0).to_owned();
    assert!(text.contains("\\u{1b}[2J poison") && !text.contains('\u{1b}'), "{text}");
    let shown = system.sagactl(&["show", &order, "--json"]).json(0);
    assert_eq!(shown["parked"].as_array().unwrap().len(), 2, "{shown}");
    let outcomes = |previewed: &Value| -> Vec<String> {
        previewed
            .as_array()
            .unwrap()
            .iter()
            .map(|record| record["outcome"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(outcomes(&parked(&["preview", &order]).json(1)), ["still_poison", "behind"]);
    assert_eq!(settle(&["redrive", &order]).json(1)["outcomes"], json!({"redriven": 0, "still_parked": 2}));

    // Corrected: the customer pays. What comes next about the order, the provider's answer too, waits behind the cancellation.
    let file = system.data().join("corrected.json");
    let corrected = |customer_id: uuid::Uuid| {
        let id = uuid::Uuid::new_v4();
        let value = json!({"message_id": id, "type": "PayOrder", "version": 1, "order_id": order,
            "occurred_at": "2026-11-26T00:00:00.000Z",
            "data": {"request_id": id, "customer_id": customer_id, "method": "tok_approve"}});
        std::fs::write(&file, value.to_string()).unwrap();
    };
    std::fs::write(&file, "{}").unwrap();
    let replace = |which: &str| settle(&["redrive", which, "--value", file.to_str().unwrap()]);
    let refused = replace(&place);
    assert!(refused.code == 2 && refused.error.contains("no message of order-saga"), "{refused:?}");
    corrected(customer.id);
    assert_eq!(replace(&place).json(0)["outcomes"], json!({"redriven": 1}));
    customer.until(&order, &["CHARGING"]).await;
    until_parked(2).await;
    assert_eq!(outcomes(&parked(&["preview", &order]).json(0)), ["acts", "acts"]);
    assert_eq!(settle(&["redrive", &order]).json(0)["outcomes"], json!({"redriven": 2}));
    let cancelled = customer.until(&order, &["CANCELLED"]).await;
    assert_eq!(cancelled["payment"]["state"], "refunded");

    // Poison of the other kinds: a sku's, one without a key, and one for an order that has ended.
    system.produce("stock-commands", Some(&sku), None, "poison");
    system.produce("payment-commands", None, Some("1"), "poison");
    let order = customer.ordered(&sku, 1, Some("tok_approve")).await;
    customer.until(&order, &["PAID"]).await;
    until_parked(2).await;
    assert_eq!(outcomes(&parked(&["preview"]).json(1)), ["still_poison", "still_poison"]);
    assert_eq!(parked(&["discard", "--all", "--reason", "a test"]).code, 2, "--yes is needed");
    assert_eq!(settle(&["discard", "--all", "--dry-run"]).json(0)["dry_run"], true);
    assert_eq!(settle(&["discard", "--all"]).json(0)["outcomes"], json!({"discarded": 2}));
    assert_eq!(settle(&["discard", "--all"]).code, 1, "nothing is left");
    system.audited().await;
    system.sagactl(&["audit"]).expect(0);
    system.rebuilt().await;
}
