//! Commands in, replies, provider's book and ledger out; one worker for all tests, each with orders of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use domain_types::Attempt;
use payment_domain::MovementKind;
use schemas::{
    DeclineReason, OrderSagaMessage, PaymentApproved, PaymentClosed, PaymentCommandFailed,
    PaymentCommandKind, PaymentDeclined, PaymentRefunded,
};
use support::{AMOUNT, DEADLINE, Order, World};
use testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

struct Running {
    world: World,
    admin_port: u16,
}

static RUNNING: OnceCell<Running> = OnceCell::const_new();

async fn running() -> &'static Running {
    let start = || async {
        let world = World::on(testkit::infra().await).await;
        let admin_port = local_stack::free_port().unwrap();
        world.start_here(admin_port);
        Running { world, admin_port }
    };
    RUNNING.get_or_init(start).await
}

async fn world() -> &'static World {
    &running().await.world
}

async fn get(path: &str) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(("127.0.0.1", running().await.admin_port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The charge was answered as expected, and the books of worker and provider say the same.
async fn check(method: &str, expected: Result<(), DeclineReason>, outcome: &str) {
    let (world, order) = (world().await, Order::new());
    world.send(&[order.charge(method, 1)]).await;
    let attempt = Attempt(1);
    match (world.message(&order).await, expected) {
        (OrderSagaMessage::PaymentApproved(approved), Ok(())) => {
            let reference = approved.reference.clone();
            assert!(reference.starts_with("sim_"));
            assert_eq!(approved, PaymentApproved { attempt, amount: AMOUNT, reference });
            assert_eq!(world.movements_of(&order).await, [MovementKind::Charged]);
        }
        (OrderSagaMessage::PaymentDeclined(declined), Err(reason)) => {
            assert_eq!(declined, PaymentDeclined { attempt, reason });
            assert_eq!(world.movements_of(&order).await, []);
        }
        (reply, expected) => panic!("{method}: {reply:?} instead of {expected:?}"),
    }
    assert_eq!(world.book(&order).await, [(outcome.to_owned(), 0)]);
}

#[tokio::test]
async fn each_method_token_has_its_outcome() {
    tokio::join!(
        check("tok_approve", Ok(()), "approved"),
        check("tok_decline", Err(DeclineReason::Declined), "declined"),
        check("tok_over_limit", Err(DeclineReason::OverLimit), "over_limit"),
        check("tok_abandon", Err(DeclineReason::Abandoned), "abandoned"),
        check("tok_slow", Ok(()), "approved"),
        check("tok_unknown_approve", Ok(()), "approved"),
        check("tok_unknown_decline", Err(DeclineReason::Declined), "declined"),
        check("visa", Err(DeclineReason::Declined), "declined"),
    );
}

#[tokio::test]
async fn random_charges_end_approved_abandoned_or_declined_and_the_books_agree() {
    let world = world().await;
    let orders: Vec<Order> = (0..200).map(|_| Order::new()).collect();
    let commands: Vec<_> = orders.iter().map(|order| order.charge("tok_random", 1)).collect();
    world.send(&commands).await;
    let ids: Vec<_> = orders.iter().map(|order| order.id.uuid()).collect();
    let counts: Vec<(String, i64)> = eventually(DEADLINE, "all have an outcome", async || {
        let query = "SELECT state, count(*) FROM charges WHERE order_id = ANY($1) AND next_call_at IS NULL GROUP BY 1 ORDER BY 1";
        let counts: Vec<(String, i64)> =
            sqlx::query_as(query).bind(&ids).fetch_all(&world.database().await).await.unwrap();
        let settled: i64 = counts.iter().map(|(_, count)| *count).sum();
        if settled == 200 && counts.len() == 2 { Ok(counts) } else { Err(format!("{counts:?}")) }
    })
    .await;
    assert_eq!(counts[0].0, "approved");
    assert!((90..170).contains(&counts[0].1), "{counts:?}");
    let query = "SELECT count(*) FROM simulated_charges WHERE order_id = ANY($1) AND outcome = 'approved'";
    let taken: i64 = sqlx::query_scalar(query).bind(&ids).fetch_one(&world.database().await).await.unwrap();
    assert_eq!(taken, counts[0].1);
}

fn is_approval_of(message: &OrderSagaMessage, attempt: u32) -> bool {
    matches!(message, OrderSagaMessage::PaymentApproved(approved) if approved.attempt == Attempt(attempt))
}

#[tokio::test]
async fn a_repeated_charge_is_charged_once_and_answered_the_same() {
    let (world, order) = (world().await, Order::new());
    let command = order.charge("tok_approve", 1);
    world.send(&[command.clone(), command.clone(), command.clone()]).await;
    world.replies_until(&order, |reply| is_approval_of(reply, 1)).await;
    world.send(&[command, order.charge("tok_approve", 2)]).await;
    // Copies that come before the answer are answered together, later ones once more each.
    let (second, first): (Vec<_>, Vec<_>) = world
        .replies_until(&order, |reply| is_approval_of(reply, 2))
        .await
        .into_iter()
        .partition(|reply| is_approval_of(&reply.message, 2));
    assert_eq!(second.len(), 1);
    assert!((1..=4).contains(&first.len()), "{first:?}");
    for reply in &first {
        assert_eq!(reply.message_id, first[0].message_id, "the same answer to the same message");
        assert_eq!(reply.message, first[0].message);
        assert!(is_approval_of(&reply.message, 1));
    }
    assert_eq!(world.book(&order).await, [("approved".to_owned(), 0)]);
    assert_eq!(world.movements_of(&order).await, [MovementKind::Charged]);
}

#[tokio::test]
async fn a_refund_gives_the_money_back_once() {
    let (world, order) = (world().await, Order::new());
    world.send(&[order.charge("tok_approve", 1)]).await;
    world.message(&order).await;
    let refund = order.refund(1);
    world.send(std::slice::from_ref(&refund)).await;
    let messages = world.messages(&order, 2).await;
    let OrderSagaMessage::PaymentRefunded(refunded) = &messages[1] else { panic!("{messages:?}") };
    let reference = refunded.reference.clone();
    assert_eq!(*refunded, PaymentRefunded { attempt: Attempt(1), amount: AMOUNT, reference });
    world.send(&[refund, order.close(1)]).await;
    let messages = world.messages(&order, 4).await;
    assert_eq!(messages[2], messages[1]);
    assert_eq!(messages[3], messages[0], "a closing learns that it was charged");
    assert_eq!(world.book(&order).await, [("approved".to_owned(), AMOUNT.amount)]);
    assert_eq!(world.movements_of(&order).await, [MovementKind::Charged, MovementKind::Refunded]);
}

#[tokio::test]
async fn a_refund_of_what_was_never_charged_fails_and_calls_nobody() {
    let (world, order) = (world().await, Order::new());
    world.send(&[order.refund(1)]).await;
    let code = "not_charged".to_owned();
    let failed = PaymentCommandFailed { command: PaymentCommandKind::Refund, attempt: Attempt(1), code };
    assert_eq!(world.message(&order).await, OrderSagaMessage::PaymentCommandFailed(failed));
    assert_eq!(world.book(&order).await, []);
}

#[tokio::test]
async fn closing_a_slow_charge_voids_it_and_the_late_charge_takes_nothing() {
    let (world, order) = (world().await, Order::new());
    world.send(&[order.charge("tok_slow", 1)]).await;
    eventually(DEADLINE, "the charge is requested", async || match world.state(&order).await.as_deref() {
        Some("requested") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let began = Instant::now();
    world.send(&[order.close(1)]).await;
    let closed = || OrderSagaMessage::PaymentClosed(PaymentClosed { attempt: Attempt(1) });
    assert_eq!(world.messages(&order, 2).await, [closed(), closed()]);
    assert!(began.elapsed() < Duration::from_secs(3), "the closing did not wait for the charge");
    // The charge's request ends three seconds after it began, at a barred key.
    eventually(DEADLINE, "the late charge is refused", async || {
        let metrics = get("/metrics").await.unwrap();
        let refused = r#"payment_provider_calls_total{action="charge",outcome="voided"}"#;
        if metrics.contains(refused) { Ok(()) } else { Err("not yet") }
    })
    .await;
    assert_eq!(world.book(&order).await, [("voided".to_owned(), 0)]);
    assert_eq!(world.state(&order).await.as_deref(), Some("closed"));
}

#[tokio::test]
async fn a_charge_that_comes_after_its_closing_is_answered_closed_and_calls_nobody() {
    let (world, order) = (world().await, Order::new());
    world.send(&[order.close(1), order.charge("tok_approve", 1)]).await;
    let closed = || OrderSagaMessage::PaymentClosed(PaymentClosed { attempt: Attempt(1) });
    assert_eq!(world.messages(&order, 2).await, [closed(), closed()]);
    assert_eq!(world.book(&order).await, []);
    assert_eq!(world.state(&order).await.as_deref(), Some("barred"));
}

#[tokio::test]
async fn slow_answers_delay_nobody() {
    let world = world().await;
    let slow: Vec<Order> = (0..100).map(|_| Order::new()).collect();
    let quick = Order::new();
    let mut commands: Vec<_> = slow.iter().map(|order| order.charge("tok_slow", 1)).collect();
    commands.push(quick.charge("tok_approve", 1));
    world.send(&commands).await;
    world.message(&quick).await;
    let ids: Vec<_> = slow.iter().map(|order| order.id.uuid()).collect();
    let states: Vec<String> = sqlx::query_scalar("SELECT state FROM charges WHERE order_id = ANY($1)")
        .bind(ids)
        .fetch_all(&world.database().await)
        .await
        .unwrap();
    let waiting = states.iter().filter(|state| *state == "requested").count();
    assert!(
        waiting > 0,
        "the quick charge was answered before the slow ones, which were sent before: {states:?}"
    );
}

#[tokio::test]
async fn a_command_under_another_customers_key_is_parked_and_the_partition_goes_on() {
    let (world, order, next) = (world().await, Order::new(), Order::new());
    let value = order.charge("tok_approve", 1).encode();
    let stray = messaging::Output::raw("payment-commands", next.customer.to_string(), value);
    world.publisher.publish(&[stray.parking_key(order.id)]).await.unwrap();
    world.send(&[next.charge("tok_approve", 1)]).await;
    world.message(&next).await;
    assert_eq!(world.state(&order).await, None);
    let causes: Vec<String> = sqlx::query_scalar("SELECT cause FROM messaging_parked WHERE parking_key = $1")
        .bind(order.id.to_string())
        .fetch_all(&world.database().await)
        .await
        .unwrap();
    assert_eq!(causes.len(), 1);
}

#[tokio::test]
async fn the_admin_port_says_ready_and_counts_replies() {
    let (world, order) = (world().await, Order::new());
    world.send(&[order.charge("tok_approve", 1)]).await;
    world.message(&order).await;
    assert!(get("/readyz").await.unwrap().starts_with("HTTP/1.1 200"));
    let metrics = get("/metrics").await.unwrap();
    for name in
        ["payment_replies_total", "payment_provider_calls_in_flight", "payment_provider_breaker_state"]
    {
        assert!(metrics.contains(name), "{name} is missing: {metrics}");
    }
}
