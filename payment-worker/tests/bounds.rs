//! Charges whose next call waits in its row, for a place in memory or for its time: none is forgotten there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::{DEADLINE, Order, World};
use testkit::eventually;

async fn all_are_answered(name: &str, settings: &[(&str, &str)], method: &str) {
    let stack = testkit::private_stack(name).await;
    let world = World::on(&stack).await;
    let _worker = world.start_process(settings);
    let orders: Vec<Order> = (0..150).map(|_| Order::new()).collect();
    let charges: Vec<_> = orders.iter().map(|order| order.charge(method, 1)).collect();
    world.send(&charges).await;
    eventually(DEADLINE, "every charge is answered", async || {
        let answered = world.all_replies().await.len();
        if answered == orders.len() { Ok(()) } else { Err(format!("{answered} answered")) }
    })
    .await;
    assert_eq!(world.movements().await.len(), orders.len());
}

#[tokio::test]
async fn charges_that_do_not_fit_in_memory_are_called_when_there_is_room() {
    let settings = [
        ("PAYMENT_WORKER__CALLS__IN_MEMORY", "8"),
        ("PAYMENT_WORKER__CALLS__AT_ONCE", "4"),
        ("PAYMENT_WORKER__PROVIDER__LATENCY_MS", "5"),
    ];
    all_are_answered("no-room", &settings, "tok_approve").await;
}

#[tokio::test]
async fn calls_that_are_not_due_for_long_are_made_when_they_are() {
    let settings = [("PAYMENT_WORKER__CALLS__FIRST_RETRY_MS", "1500")];
    all_are_answered("not-due", &settings, "tok_unknown_approve").await;
}

#[tokio::test]
async fn both_together() {
    let settings = [
        ("PAYMENT_WORKER__CALLS__IN_MEMORY", "8"),
        ("PAYMENT_WORKER__CALLS__AT_ONCE", "4"),
        ("PAYMENT_WORKER__CALLS__FIRST_RETRY_MS", "1500"),
    ];
    all_are_answered("no-room-and-not-due", &settings, "tok_unknown_approve").await;
}
