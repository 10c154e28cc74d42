//! Many poison records among many good ones: nobody else is slower, and once they are corrected they are applied in order.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod rounds;

use std::time::Duration;

use domain_types::{CustomerId, OrderId, RequestId, Sku};
use messaging::Output;
use order_orchestrator::SagaReader;
use rounds::{Shop, envelope, place};
use saga::Event;
use schemas::{
    CancelOrder, ChangeStock, Envelope, OrderSagaMessage, PauseSaga, ResumeSaga, StockCommand, Topic,
};
use serde_json::{Value, json};
use sqlx::Row;
use system_tests::System;
use uuid::Uuid;

/// How long the system may take to set many records aside, or to settle them.
const WHILE: Duration = Duration::from_secs(120);

/// How much of everything.
struct Size {
    /// Rounds with poison; as many without.
    rounds: usize,
    /// Good orders of a round.
    good: usize,
    /// Keys with poison, in each round.
    keys: usize,
    /// Poison records of a key.
    poison: usize,
}

/// Whose records are poison.
enum Poisoned {
    /// An order: an operator pauses and resumes it in turn, then its customer cancels it; that record is good.
    Order(OrderId, CustomerId),
    /// A product: units come and go in turn.
    Product(Sku),
}

/// A record that this build can't read, made of one that it can.
fn broken(number: usize, value: &str) -> String {
    match number % 4 {
        0 => value.strip_suffix('}').unwrap().to_owned(),
        1 => value.replace("\"type\":\"", "\"type\":\"Grand"),
        2 => value.replace("\"version\":1", "\"version\":99"),
        _ => value.replace("\"reason\"", "\"raison\""),
    }
}

/// What an operator makes of it, without knowing which it was.
fn corrected(value: &str) -> String {
    let value = value.replace("\"type\":\"Grand", "\"type\":\"").replace("\"version\":99", "\"version\":1");
    let value = value.replace("\"raison\"", "\"reason\"");
    if serde_json::from_str::<Value>(&value).is_ok() { value } else { format!("{value}}}") }
}

impl Poisoned {
    /// Its records, in order; the reason of each is its number.
    fn records(&self, size: &Size) -> Vec<Output> {
        let mut records = Vec::new();
        for number in 0..size.poison {
            let (request_id, reason) = (RequestId(Uuid::new_v4()), number.to_string());
            let (topic, key, value) = match self {
                Self::Order(order, _) => {
                    let operator = "kim".to_owned();
                    let message: OrderSagaMessage = if number % 2 == 0 {
                        PauseSaga { request_id, operator, reason }.into()
                    } else {
                        ResumeSaga { request_id, operator, reason }.into()
                    };
                    let envelope = envelope::<OrderSagaMessage>(Some(*order), message);
                    (Topic::OrderSaga, order.to_string(), envelope.encode())
                }
                Self::Product(sku) => {
                    let quantity = if number % 2 == 0 { 1 } else { -1 };
                    let change = ChangeStock { request_id, sku: sku.clone(), quantity, reason };
                    (Topic::StockCommands, sku.to_string(), envelope::<StockCommand>(None, change).encode())
                }
            };
            let value = broken(number, &String::from_utf8(value).unwrap());
            records.push(Output::raw(topic.name(), key, value.into_bytes()));
        }
        if let Self::Order(order, customer_id) = self {
            let cancel = CancelOrder { request_id: RequestId(Uuid::new_v4()), customer_id: *customer_id };
            let envelope: Envelope<OrderSagaMessage> = envelope(Some(*order), cancel);
            records.push(Output::new(Topic::OrderSaga, order.to_string(), &envelope));
        }
        records
    }
}

/// Of five keys one is a product's, the others are orders'.
async fn keys(system: &System, shop: &mut Shop, sku: &Sku, count: usize) -> Vec<Poisoned> {
    let (admin, mut keys) = (system.admin(), Vec::new());
    for number in 0..count {
        if number % 5 == 4 {
            let sku = admin.new_product(0, &json!({})).await;
            keys.push(Poisoned::Product(Sku::new(&*sku).unwrap()));
        } else {
            let (order, customer) = (OrderId(Uuid::now_v7()), CustomerId(Uuid::new_v4()));
            shop.waiting(order, place(order, customer, sku, None)).await;
            keys.push(Poisoned::Order(order, customer));
        }
    }
    keys
}

/// The records of all keys, in turn: one of each, then the next of each.
fn in_turn(keys: &[Poisoned], size: &Size) -> Vec<Output> {
    let records: Vec<Vec<Output>> = keys.iter().map(|key| key.records(size)).collect();
    let longest = records.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest)
        .flat_map(|number| records.iter().filter_map(move |of_key| of_key.get(number).cloned()))
        .collect()
}

async fn until_parked(system: &System, records: usize) {
    testkit::eventually(WHILE, "all are set aside", async || {
        let found = system.sagactl(&["dead-letters", "list", "--json"]).json(0)["records"].as_u64();
        if found == Some(records as u64) { Ok(()) } else { Err(format!("{found:?} of {records}")) }
    })
    .await;
}

/// Writes the corrected values of all poison records into a file, as an operator would.
fn correct(system: &System) -> String {
    let shown = system.sagactl(&["dead-letters", "show", "--limit", "1000000", "--json"]).json(0);
    let bad = shown.as_array().unwrap().iter().filter(|record| record["cause"] != "behind");
    let mut lines = String::new();
    for record in bad {
        let text = |name: &str| record[name].as_str().unwrap();
        let place = format!("{}/{}@{}", text("topic"), record["partition"], record["offset"]);
        lines.push_str(&json!({"record": place, "value": corrected(text("value"))}).to_string());
        lines.push('\n');
    }
    let file = system.data().join("corrected.jsonl");
    std::fs::write(&file, lines).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Each of its records was applied once, in the order of the log.
async fn applied_in_order(system: &System, keys: &[Poisoned], size: &Size) {
    let mut sagas = SagaReader::open(&system.database("orchestrator").await).await.unwrap();
    let stock = system.database("stock").await;
    let wanted: Vec<String> = (0..size.poison).map(|number| number.to_string()).collect();
    for key in keys {
        match key {
            Poisoned::Order(order, _) => {
                let present = sagas.find(*order).await.unwrap().unwrap();
                let history = sagas.history(present.partition, *order).await.unwrap();
                let answers =
                    history.iter().flat_map(|entry| entry.events.iter().map(|event| (entry.offset, event)));
                let answers = answers.filter_map(|(offset, event)| match event {
                    Event::Answered { why: Some(why), refused, .. } => {
                        Some((offset, why.clone(), refused.clone()))
                    }
                    _ => None,
                });
                let answers: Vec<_> = answers.collect();
                let said: Vec<String> = answers.iter().map(|(_, why, _)| why.clone()).collect();
                assert_eq!(said, wanted, "{order}: {answers:?}");
                assert!(answers.iter().all(|(_, _, refused)| refused.is_none()), "{order}: {answers:?}");
                assert!(answers.is_sorted_by(|one, next| one.0 < next.0), "{order}: {answers:?}");
            }
            Poisoned::Product(sku) => {
                let sql = "SELECT quantity, applied_version FROM changes WHERE sku = $1 AND quantity IS NOT NULL ORDER BY applied_version";
                let changes = sqlx::query(sql).bind(sku.as_str()).fetch_all(&stock).await.unwrap();
                let changes: Vec<i64> = changes.iter().map(|row| row.get("quantity")).collect();
                let wanted: Vec<i64> = (0..size.poison).map(|number| 1 - 2 * (number as i64 % 2)).collect();
                assert_eq!(changes, wanted, "{sku}");
            }
        }
    }
}

async fn run(name: &str, size: &Size) {
    let system = System::up(name, &[]).await;
    let mut skus = Vec::new();
    for _sku in 0..4 {
        let sku = system.admin().new_product(1_000_000, &json!({})).await;
        skus.push(Sku::new(&*sku).unwrap());
    }
    let mut shop = Shop::open(&system.kafka(), skus.clone()).await;
    let (mut poisoned, mut ratios, mut records) = (Vec::new(), Vec::new(), 0);
    for round in 0..size.rounds {
        let keys = keys(&system, &mut shop, &skus[0], size.keys).await;
        let bad = in_turn(&keys, size);
        records += bad.len();
        // In turn, so that what the machine does besides falls on both.
        let (with, without) = if round % 2 == 0 {
            let without = shop.round(size.good, &[]).await;
            (shop.round(size.good, &bad).await, without)
        } else {
            let with = shop.round(size.good, &bad).await;
            (with, shop.round(size.good, &[]).await)
        };
        let rate = |took: Duration| size.good as f64 / took.as_secs_f64();
        println!("round {round}: {:.0} orders/s without poison, {:.0} with", rate(without), rate(with));
        ratios.push(without.as_secs_f64() / with.as_secs_f64());
        poisoned.extend(keys);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "{} poison records under {} keys among {} good orders: {:.2} of the rate without them (median of {} pairs, {:.2} to {:.2})",
        size.poison * poisoned.len(),
        poisoned.len(),
        size.good * size.rounds,
        ratios[ratios.len() / 2],
        ratios.len(),
        ratios[0],
        ratios[ratios.len() - 1]
    );
    until_parked(&system, records).await;

    // What this build can't read stays where it is.
    let redrive = |more: &[&str]| {
        system.sagactl(
            &[&["dead-letters", "redrive", "--all", "--reason", "a test", "--yes", "--json"], more].concat(),
        )
    };
    let refused = redrive(&[]).json(1);
    assert_eq!(refused["outcomes"], json!({"redriven": 0, "still_parked": records}));

    // Corrected, while customers go on.
    let file = correct(&system);
    let (settled, took) = tokio::join!(
        async { tokio::task::block_in_place(|| redrive(&["--values", &file])) },
        shop.round(size.good, &[])
    );
    assert_eq!(settled.json(0)["outcomes"], json!({"redriven": records}));
    println!("{:.0} orders/s while {records} records were redriven", size.good as f64 / took.as_secs_f64());
    until_parked(&system, 0).await;
    applied_in_order(&system, &poisoned, size).await;
    system.audited().await;
    // The same with servers that are named one by one.
    let endpoints = system.endpoints();
    let kafka = system.kafka();
    let mut named =
        vec!["audit".to_owned(), "--json".to_owned(), "--endpoints".to_owned(), "/nowhere".to_owned()];
    named.extend(["--kafka".to_owned(), kafka, "--redis".to_owned()]);
    named.push(endpoints["redis"].as_str().unwrap().to_owned());
    for (service, urls) in endpoints["postgres"].as_object().unwrap() {
        named.push("--database".to_owned());
        named.push(format!("{service}={}", urls[0].as_str().unwrap()));
    }
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let audited = system.sagactl(&named).json(0);
    assert!(audited["redis"].as_u64() > Some(0), "{audited}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x2_forty_poison_records_under_five_keys_are_corrected_and_redriven_in_order_and_stop_nobody() {
    run("poison", &Size { rounds: 1, good: 500, keys: 5, poison: 8 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: `make poison`"]
async fn x2_a_thousand_poison_records_under_fifty_keys_leave_fifty_thousand_good_orders_as_quick_as_ever() {
    run("poison-many", &Size { rounds: 10, good: 5_000, keys: 5, poison: 20 }).await;
}
