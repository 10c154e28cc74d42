//! Sagas through real Kafka and PostgreSQL.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use domain_types::{Attempt, LineNumber, MessageId, OrderId};
use messaging::{Output, Record};
use schemas::{
    CancelOrder, Envelope, Message, OrderEvent, OrderSagaMessage, OrderState, PaymentApproved,
    PaymentCommand, StockCommand, StockReserved, TimerFired, TimerName, Topic,
};
use support::{DEADLINE, TRACE, fresh_order, fresh_orders, input, output, pay_within, place, world};
use testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LINE: LineNumber = LineNumber(0);
const FIRST: Attempt = Attempt::FIRST;

async fn get(address: std::net::SocketAddr, path: &str) -> Result<String, String> {
    let mut connection = tokio::net::TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
    if answer.starts_with("HTTP/1.1 200") { Ok(answer) } else { Err(answer) }
}

#[tokio::test]
async fn a_placed_order_is_reserved_charged_paid_and_confirmed_through_the_log() {
    let (world, _serial) = world().await;
    let orchestrator = world.start();
    eventually(DEADLINE, "ready", async || get(orchestrator.admin, "/readyz").await).await;
    let order_id = fresh_order();
    let order = place(&["SKU-A"], Some("tok_approve"));
    let placed = input(order_id, order.clone());
    world.send(std::slice::from_ref(&placed)).await;

    let (record, reserve) = world.first::<StockCommand>(Topic::StockCommands, order_id, "ReserveStock").await;
    assert_eq!(record.key_str(), Some("SKU-A"));
    assert_eq!(record.parking_key().0, order_id.to_string());
    // Sampled: below the span of reading `PlaceOrder`, in the same trace.
    let traceparent = record.traceparent().unwrap();
    assert!(traceparent.starts_with(&TRACE[..36]) && traceparent.ends_with("-01"), "{traceparent}");
    assert_ne!(traceparent, TRACE);
    assert_eq!(reserve.causation_id, Some(placed.message_id));
    assert_eq!(reserve.message_id, MessageId::caused_by(placed.message_id, 1));

    world.send(&[input(order_id, StockReserved { line: LINE, attempt: FIRST, stock_version: 5 })]).await;
    let (record, charge) =
        world.first::<PaymentCommand>(Topic::PaymentCommands, order_id, "ChargePayment").await;
    assert_eq!(record.key_str().unwrap(), order.customer_id.to_string());
    assert_eq!(record.parking_key().0, order_id.to_string());
    let PaymentCommand::ChargePayment(charge) = charge.message else { panic!("no charge") };

    let approved = PaymentApproved { attempt: FIRST, amount: charge.amount, reference: "r".into() };
    world.send(&[input(order_id, approved)]).await;
    world.first::<StockCommand>(Topic::StockCommands, order_id, "ConfirmStock").await;
    world.reached(&[order_id], OrderState::Paid).await;
    let events = world.about::<OrderEvent>(Topic::OrderEvents, &[order_id]).await;
    let versions: Vec<_> = events.iter().map(|(_, event)| version(&event.message)).collect();
    assert_eq!(versions, [2, 3, 4]);
    assert!(events.iter().all(|(record, _)| record.key_str() == Some(&order_id.to_string())));

    let entries = world.history_tells_the_state(order_id).await;
    let rules: Vec<_> = entries.iter().map(|entry| entry.rule.as_str()).collect();
    assert_eq!(rules, ["PlaceOrder", "StockReserved", "PaymentApproved"]);
    assert!(entries.iter().all(|entry| entry.trace_id.as_deref() == TRACE.split('-').nth(1)));
    let metrics = get(orchestrator.admin, "/metrics").await.unwrap();
    assert!(metrics.contains("saga_transitions_total{from=\"CHARGING\",to=\"PAID\"} 1"), "{metrics}");
    orchestrator.stop().await;
}

fn version(event: &OrderEvent) -> i64 {
    match event {
        OrderEvent::OrderPlaced(placed) => placed.version,
        OrderEvent::OrderChanged(changed) => changed.version,
    }
}

async fn fired(world: &support::World, orders: &[OrderId]) -> Vec<(Record, TimerFired)> {
    let inputs = world.about::<OrderSagaMessage>(Topic::OrderSaga, orders).await;
    let timers = inputs.into_iter().filter_map(|(record, envelope)| match envelope.message {
        OrderSagaMessage::TimerFired(fired) => Some((record, fired)),
        _ => None,
    });
    timers.collect()
}

#[tokio::test]
async fn a_timer_armed_before_a_restart_fires_after_it_and_not_before_it_is_due() {
    let (world, _serial) = world().await;
    let orchestrator = world.start();
    let order_id = fresh_order();
    let order = schemas::PlaceOrder { policy: pay_within(12_000), ..place(&["SKU-A"], None) };
    world.send(&[input(order_id, order)]).await;
    world.first::<StockCommand>(Topic::StockCommands, order_id, "ReserveStock").await;
    world.send(&[input(order_id, StockReserved { line: LINE, attempt: FIRST, stock_version: 5 })]).await;
    world.reached(&[order_id], OrderState::AwaitingPayment).await;
    orchestrator.stop().await;
    assert_eq!(fired(world, &[order_id]).await.len(), 0, "stopped before the timer was due");

    let orchestrator = world.start();
    let (_, release) = world.first::<StockCommand>(Topic::StockCommands, order_id, "ReleaseStock").await;
    let timers = fired(world, &[order_id]).await;
    let (record, timer) = &timers[0];
    assert_eq!((timers.len(), timer.timer), (1, TimerName::PayBefore));
    assert!(record.time >= timer.due_at, "{} before {}", record.time, timer.due_at);
    let StockCommand::ReleaseStock(release) = release.message else { panic!("no release") };
    let released =
        schemas::StockReleased { line: LINE, attempt: release.attempt, units: 1, stock_version: 6 };
    world.send(&[input(order_id, released)]).await;
    world.reached(&[order_id], OrderState::Expired).await;
    world.history_tells_the_state(order_id).await;
    orchestrator.stop().await;
}

#[tokio::test]
async fn more_due_timers_than_one_transaction_takes_all_fire() {
    let (world, _serial) = world().await;
    let orders = fresh_orders(1_100);
    let order = || schemas::PlaceOrder { policy: pay_within(1), ..place(&["SKU-T"], None) };
    let inputs: Vec<_> = orders.iter().map(|order_id| input(*order_id, order())).collect();
    world.send(&inputs).await;
    let orchestrator = world.start();
    world.reached(&orders, OrderState::Compensating).await;
    let ids: BTreeSet<_> =
        fired(world, &orders).await.into_iter().filter_map(|(record, _)| record.key).collect();
    assert_eq!(ids.len(), orders.len());
    orchestrator.stop().await;
}

#[tokio::test]
async fn several_inputs_of_one_order_in_one_batch_are_decided_in_the_order_of_the_log() {
    let (world, _serial) = world().await;
    let order_id = fresh_order();
    let order = place(&["SKU-A", "SKU-B"], Some("tok_approve"));
    let cancel = CancelOrder { request_id: Uuid::new_v4().into(), customer_id: order.customer_id };
    let held = StockReserved { line: LINE, attempt: FIRST, stock_version: 5 };
    let placed = input(order_id, order);
    world.send(&[placed.clone(), input(order_id, held), input(order_id, cancel), placed]).await;
    let orchestrator = world.start();
    world.reached(&[order_id], OrderState::Compensating).await;
    let commands = world.about::<StockCommand>(Topic::StockCommands, &[order_id]).await;
    let types: BTreeSet<_> = commands
        .iter()
        .map(|(record, command)| (record.key_str().unwrap(), command.message.type_name()))
        .collect();
    let expected = [
        ("SKU-A", "ReleaseStock"),
        ("SKU-A", "ReserveStock"),
        ("SKU-B", "ReleaseStock"),
        ("SKU-B", "ReserveStock"),
    ];
    assert_eq!((types, commands.len()), (BTreeSet::from(expected), 4));
    let entries = world.history_tells_the_state(order_id).await;
    let rules: Vec<_> = entries.iter().map(|entry| entry.rule.as_str()).collect();
    assert_eq!(rules, ["PlaceOrder", "StockReserved", "CancelOrder"]);
    orchestrator.stop().await;
}

#[tokio::test]
async fn an_input_nobody_can_answer_is_parked_and_other_orders_go_on() {
    let (world, _serial) = world().await;
    let orchestrator = world.start();
    let (empty, strange, good) = (fresh_order(), fresh_order(), fresh_order());
    let strange_input = input(strange, place(&["SKU-A"], None));
    let elsewhere = Output::new(Topic::OrderSaga, good.to_string(), &strange_input).parking_key(strange);
    let no_lines = output(&input(empty, place(&[], None)));
    world.publisher.publish(&[no_lines, elsewhere]).await.unwrap();
    world.send(&[input(good, place(&["SKU-A"], None))]).await;
    world.first::<StockCommand>(Topic::StockCommands, good, "ReserveStock").await;
    eventually(DEADLINE, "dead letters", async || {
        let letters = world.read(Topic::DeadLetters).await;
        let ours =
            |order: OrderId| letters.iter().filter(move |letter| letter.parking_key().0 == order.to_string());
        let counts = (ours(empty).count(), ours(strange).count());
        if counts == (1, 1) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    assert_eq!(world.about::<OrderEvent>(Topic::OrderEvents, &[empty, strange]).await.len(), 0);
    orchestrator.stop().await;
}

/// All values under each message id.
fn by_id<M: Message>(records: &[(Record, Envelope<M>)]) -> BTreeMap<Uuid, Vec<&[u8]>> {
    let mut values: BTreeMap<Uuid, Vec<&[u8]>> = BTreeMap::new();
    for (record, envelope) in records {
        values.entry(envelope.message_id.uuid()).or_default().push(&record.value);
    }
    values
}

#[track_caller]
fn repeats_are_identical<M: Message>(records: &[(Record, Envelope<M>)]) -> usize {
    let values = by_id(records);
    for (id, values) in &values {
        assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "{id} was published with two contents");
    }
    values.len()
}

#[tokio::test]
async fn killed_and_taken_over_midway_leaves_each_order_paid_and_nothing_but_identical_repeats() {
    let (world, _serial) = world().await;
    let stop = CancellationToken::new();
    world.participants(stop.clone()).await;
    let orders = fresh_orders(600);
    let all = orders.clone();
    let publisher = world.publisher.clone();
    let customers = tokio::spawn(async move {
        for chunk in all.chunks(20) {
            let placed =
                |order_id: &OrderId| output(&input(*order_id, place(&["SKU-K", "SKU-L"], Some("tok"))));
            let outputs: Vec<_> = chunk.iter().map(placed).collect();
            publisher.publish(&outputs).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    // Each one is killed as soon as it has done something: in the middle of the rest.
    for round in 1..=4 {
        let orchestrator = world.start();
        let wanted = round * 60;
        eventually(DEADLINE, "some progress", async || {
            let events = world.about::<OrderEvent>(Topic::OrderEvents, &orders).await.len();
            if events >= wanted { Ok(()) } else { Err(format!("{events} of {wanted} events")) }
        })
        .await;
        orchestrator.kill().await;
    }
    let orchestrator = world.start();
    customers.await.unwrap();
    world.reached(&orders, OrderState::Paid).await;
    eventually(DEADLINE, "everything is confirmed", async || {
        let confirmed = world.database().await;
        let sold: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM sagas WHERE order_id = ANY($1) AND state LIKE '%sold%'
                                          AND state NOT LIKE '%confirming%'",
        )
        .bind(orders.iter().map(|order| order.uuid()).collect::<Vec<_>>())
        .fetch_one(&confirmed)
        .await
        .unwrap();
        if sold == 600 { Ok(()) } else { Err(format!("{sold} of 600")) }
    })
    .await;
    orchestrator.stop().await;
    stop.cancel();

    let stock = world.about::<StockCommand>(Topic::StockCommands, &orders).await;
    assert_eq!(
        repeats_are_identical(&stock),
        4 * orders.len(),
        "two reserves and two confirms for each order"
    );
    let payment = world.about::<PaymentCommand>(Topic::PaymentCommands, &orders).await;
    assert_eq!(repeats_are_identical(&payment), orders.len(), "one charge for each order");
    let events = world.about::<OrderEvent>(Topic::OrderEvents, &orders).await;
    assert_eq!(repeats_are_identical(&events), 4 * orders.len(), "placed, held, charging, paid");
    for order_id in orders.iter().step_by(40) {
        world.history_tells_the_state(*order_id).await;
    }
}
