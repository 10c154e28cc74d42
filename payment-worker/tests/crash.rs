//! The worker's process is killed with `kill -9` and started again. Each test has a stack of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use domain_types::OrderId;
use local_stack::Part;
use payment_domain::MovementKind;
use schemas::OrderSagaMessage;
use support::{DEADLINE, Order, World};
use testkit::eventually;

#[tokio::test]
async fn a_successor_makes_the_killed_workers_call_with_the_same_key() {
    let stack = testkit::private_stack("killed").await;
    let world = World::on(&stack).await;
    let worker = world.start_process(&[]);
    let order = Order::new();
    world.send(&[order.charge("tok_slow", 1)]).await;
    eventually(DEADLINE, "the charge is requested", async || {
        let exists: bool = sqlx::query_scalar("SELECT to_regclass('charges') IS NOT NULL")
            .fetch_one(&world.database().await)
            .await
            .unwrap();
        match exists.then_some(world.state(&order).await).flatten().as_deref() {
            Some("requested") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    worker.kill();
    assert_eq!(world.state(&order).await.as_deref(), Some("requested"), "recorded, without an outcome");
    assert_eq!(world.book(&order).await, [], "the provider has not decided");

    let _successor = world.start_process(&[]);
    assert!(matches!(world.message(&order).await, OrderSagaMessage::PaymentApproved(_)));
    assert_eq!(world.book(&order).await, [("approved".to_owned(), 0)]);
    assert_eq!(world.movements_of(&order).await, [MovementKind::Charged]);
}

#[tokio::test]
async fn a_database_killed_in_the_middle_loses_nothing_and_charges_once() {
    let stack = testkit::private_stack("database-killed").await;
    let world = World::on(&stack).await;
    // A pause so long that the second call waits in its row.
    let mut settings = NARROW.to_vec();
    settings.push(("PAYMENT_WORKER__CALLS__FIRST_RETRY_MS", "1500"));
    let _worker = world.start_process(&settings);
    let orders: Vec<Order> = (0..200).map(|_| Order::new()).collect();
    let charges: Vec<_> = orders.iter().map(|order| order.charge("tok_unknown_approve", 1)).collect();
    world.send(&charges).await;
    eventually(DEADLINE, "some are answered", async || match answered(&world).await {
        0 => Err("none"),
        _ => Ok(()),
    })
    .await;
    stack.kill_part(Part::Postgres).await.unwrap();
    stack.start_part(Part::Postgres).await.unwrap();
    eventually(DEADLINE, "every order is answered", async || {
        let answered = answered(&world).await;
        if answered == orders.len() { Ok(()) } else { Err(format!("{answered} answered")) }
    })
    .await;
    check_replies(&world).await;
    let movements = world.movements().await;
    assert_eq!(movements.len(), 200);
    let taken: i64 = sqlx::query_scalar("SELECT count(*) FROM simulated_charges WHERE outcome = 'approved'")
        .fetch_one(&world.database().await)
        .await
        .unwrap();
    assert_eq!(taken, 200);
}

/// Few places in memory and few turns, so that rows, back-off and take-over are all on the way of every charge.
const NARROW: [(&str, &str); 6] = [
    ("PAYMENT_WORKER__CALLS__IN_MEMORY", "16"),
    ("PAYMENT_WORKER__CALLS__AT_ONCE", "8"),
    ("PAYMENT_WORKER__CALLS__FIRST_RETRY_MS", "50"),
    ("PAYMENT_WORKER__PROVIDER__LATENCY_MS", "10"),
    ("PAYMENT_WORKER__PROVIDER__UNKNOWN", "0.4"),
    ("PAYMENT_WORKER__PROVIDER__SEED", "7"),
];

#[tokio::test]
async fn killed_again_and_again_every_charge_is_made_once_and_answered() {
    let stack = testkit::private_stack("killed-often").await;
    let world = World::on(&stack).await;
    let orders: Vec<Order> = (0..600).map(|_| Order::new()).collect();
    let mut worker = world.start_process(&NARROW);
    for part in orders.chunks(100) {
        let charges: Vec<_> = part.iter().map(|order| order.charge("tok_random", 1)).collect();
        world.send(&charges).await;
        // Some are closed while they are under way.
        let closings: Vec<_> = part.iter().step_by(5).map(|order| order.close(1)).collect();
        let before = answered(&world).await;
        eventually(DEADLINE, "some charges of this part are answered", async || {
            let now = answered(&world).await;
            if now >= before + 10 { Ok(()) } else { Err(format!("{now} answered, {before} before")) }
        })
        .await;
        world.send(&closings).await;
        worker.kill();
        worker = world.start_process(&NARROW);
    }
    eventually(DEADLINE, "every order is answered", async || {
        let answered = answered(&world).await;
        if answered == orders.len() { Ok(()) } else { Err(format!("{answered} answered")) }
    })
    .await;
    // All commands are done: every closing has its answer too, and nothing is pending.
    let pool = world.database().await;
    eventually(DEADLINE, "nothing is pending", async || {
        let pending: i64 = sqlx::query_scalar("SELECT count(*) FROM charges WHERE next_call_at IS NOT NULL")
            .fetch_one(&pool)
            .await
            .unwrap();
        if pending == 0 { Ok(()) } else { Err(format!("{pending} pending")) }
    })
    .await;

    check_replies(&world).await;
    let disagree: Vec<(uuid::Uuid, String, Option<String>)> = sqlx::query_as(
        "SELECT order_id, c.state, b.outcome FROM charges c FULL JOIN simulated_charges b USING (order_id)
          WHERE NOT CASE c.state WHEN 'approved' THEN b.outcome = 'approved'
                                 WHEN 'closed' THEN b.outcome = 'voided'
                                 WHEN 'declined' THEN b.outcome IN ('declined', 'abandoned')
                                 ELSE false END IS TRUE",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(disagree, [], "the worker's rows and the provider's book");
    let charged: Vec<OrderId> = world.movements().await.iter().map(|movement| movement.order_id).collect();
    let distinct: BTreeSet<_> = charged.iter().copied().collect();
    assert_eq!(charged.len(), distinct.len(), "one movement per charge");
    let approved: i64 =
        sqlx::query_scalar("SELECT count(*) FROM simulated_charges WHERE outcome = 'approved'")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(i64::try_from(charged.len()).unwrap(), approved);
}

/// Orders with at least one reply.
async fn answered(world: &World) -> usize {
    world.all_replies().await.iter().map(|reply| reply.order_id).collect::<BTreeSet<_>>().len()
}

/// A reply may be there twice, but then it says the same; and no order is told two things about its money.
async fn check_replies(world: &World) {
    let mut said = BTreeMap::new();
    let mut fates: BTreeMap<OrderId, BTreeSet<&str>> = BTreeMap::new();
    for reply in world.all_replies().await {
        let fate = match &reply.message {
            OrderSagaMessage::PaymentApproved(_) => "approved",
            OrderSagaMessage::PaymentDeclined(_) => "declined",
            OrderSagaMessage::PaymentClosed(_) => "closed",
            other => panic!("{other:?}"),
        };
        fates.entry(reply.order_id.unwrap()).or_default().insert(fate);
        let before = said.entry(reply.message_id).or_insert_with(|| reply.message.clone());
        assert_eq!(*before, reply.message);
    }
    let torn: Vec<_> = fates.iter().filter(|(_, fates)| fates.len() > 1).collect();
    assert!(torn.is_empty(), "{torn:?}");
}

#[test]
fn wrong_settings_are_refused_with_exit_code_2_and_right_ones_are_fine() {
    let check = |name: &str, value: &str| {
        Command::new(env!("CARGO_BIN_EXE_payment-worker"))
            .arg("--check-config")
            .env("PAYMENT_WORKER__BROKERS", "localhost:9092")
            .env("PAYMENT_WORKER__DATABASE_URL", "postgres://localhost/payment")
            .env(name, value)
            .output()
            .unwrap()
    };
    assert_eq!(check("PAYMENT_WORKER__PROVIDER__ABANDON", "0.5").status.code(), Some(0));
    assert_eq!(check("PAYMENT_WORKER__PROVIDER__ABBANDON", "0.5").status.code(), Some(2));
    assert_eq!(check("PAYMENT_WORKER__PROVIDER__ABANDON", "much").status.code(), Some(2));
}
