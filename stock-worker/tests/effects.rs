//! Commands through real Kafka and PostgreSQL: each effect once, whatever is repeated.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::HashMap;

use domain_types::MessageId;
use messaging::Output;
use schemas::{
    Envelope, OrderSagaMessage, ProductData, ReserveRefusal, StockChangeCode, StockCommand, StockEvent, Topic,
};
use support::{
    DEADLINE, by_type, change, confirm, counts, everything, folded_ledger, fresh_customer, fresh_orders,
    fresh_sku, output, product, release, reserve, restock, world,
};
use testkit::eventually;

#[tokio::test]
async fn of_a_thousand_reserves_of_a_hundred_units_the_first_hundred_hold_them() {
    let world = world().await;
    let sku = world.product(100, product()).await;
    let orders = fresh_orders(1_000);
    let commands: Vec<_> = orders.iter().map(|order| reserve(*order, &sku, 1, fresh_customer())).collect();
    world.send(&commands).await;

    let replies = world.replies(&orders, 1_000).await;
    let reserved: Vec<_> = replies
        .iter()
        .filter(|reply| matches!(reply.message, OrderSagaMessage::StockReserved(_)))
        .map(|reply| reply.order_id.unwrap())
        .collect();
    assert_eq!(reserved.len(), 100);
    assert!(orders[..100].iter().all(|order| reserved.contains(order)), "first come, first served");
    assert!(replies.iter().all(|reply| match &reply.message {
        OrderSagaMessage::StockReserved(_) => true,
        OrderSagaMessage::StockRefused(refused) => refused.reason == ReserveRefusal::SoldOut,
        _ => false,
    }));
    let pool = world.database().await;
    assert_eq!(counts(&pool, &sku).await, [100, 0, 0, 100, 0, 100, 101]);
    let level = world.last_level(&sku, 101).await;
    assert_eq!((level.available, level.held, &level.product), (0, 100, &product()));
    let item = folded_ledger(&pool, &sku).await;
    assert_eq!(item.level(), level, "the ledger alone tells the same");
}

/// Every kind of command and answer.
fn a_whole_life(sku: &domain_types::Sku, orders: &[domain_types::OrderId]) -> Vec<Envelope<StockCommand>> {
    let mut commands = vec![change(sku, 5), change(sku, -1_000)];
    for (number, order) in orders.iter().enumerate() {
        if number % 5 == 4 {
            commands.push(release(*order, sku));
        }
        commands.push(reserve(*order, sku, 2, fresh_customer()));
        match number % 5 {
            0 => commands.push(confirm(*order, sku)),
            1 => commands.push(release(*order, sku)),
            2 => commands.extend([confirm(*order, sku), restock(*order, sku)]),
            _ => {}
        }
    }
    commands
}

#[tokio::test]
async fn the_whole_log_again_changes_nothing_and_is_answered_alike() {
    let world = world().await;
    let sku = world.product(20, product()).await;
    let orders = fresh_orders(40);
    let commands = a_whole_life(&sku, &orders);
    let about_orders = commands.iter().filter(|command| command.order_id.is_some()).count();
    world.send(&commands).await;
    let first = world.replies(&orders, about_orders).await;
    let answered = world.answers(&sku, 3).await;
    let pool = world.database().await;
    let before = everything(&pool, &sku).await;
    assert!(by_type(&first).len() >= 5, "{:?}", by_type(&first));

    world.send(&commands).await;
    let both = world.replies(&orders, 2 * about_orders).await;
    let mut answers: HashMap<MessageId, Vec<_>> = HashMap::new();
    for reply in both {
        answers.entry(reply.message_id).or_default().push(reply.message);
    }
    for (id, messages) in &answers {
        assert_eq!(messages.len(), 2, "{id}: {messages:?}");
        assert!(messages.windows(2).all(|pair| pair[0] == pair[1]), "{id}: {messages:?}");
    }
    let again = world.answers(&sku, 5).await;
    assert_eq!(again[3..], answered[1..]);
    assert_eq!(everything(&pool, &sku).await, before);
    assert_eq!(folded_ledger(&pool, &sku).await.version, counts(&pool, &sku).await[6]);
}

#[tokio::test]
async fn a_release_that_comes_first_leaves_a_tombstone_that_refuses_the_reserve() {
    let world = world().await;
    let sku = world.product(10, product()).await;
    let orders = fresh_orders(1);
    world.send(&[release(orders[0], &sku)]).await;
    let released = world.replies(&orders, 1).await;
    assert!(matches!(&released[0].message, OrderSagaMessage::StockReleased(released) if released.units == 0));
    world.send(&[reserve(orders[0], &sku, 1, fresh_customer())]).await;
    let replies = world.replies(&orders, 2).await;
    assert!(matches!(&replies[1].message, OrderSagaMessage::StockRefused(refused)
        if refused.reason == ReserveRefusal::Released));
    let pool = world.database().await;
    assert_eq!(counts(&pool, &sku).await, [10, 0, 10, 0, 0, 10, 1]);
}

#[tokio::test]
async fn an_admin_s_change_is_applied_once_and_answered_each_time() {
    let world = world().await;
    let sku = world.product(10, product()).await;
    let (more, less) = (change(&sku, 7), change(&sku, -18));
    world.send(&[more.clone(), less.clone(), more.clone()]).await;
    let answers = world.answers(&sku, 4).await;
    world.send(&[less, more]).await;
    let again = world.answers(&sku, 6).await;
    assert_eq!((&answers[1], &answers[2]), (&answers[3], &again[4]));
    assert_eq!(answers[1], again[5]);
    assert!(matches!(&answers[1], StockEvent::StockChangeApplied(applied)
        if applied.quantity == Some(7) && applied.stock_version == 2));
    assert!(matches!(&answers[2], StockEvent::StockChangeRefused(refused)
        if refused.code == StockChangeCode::NotEnoughAvailable));
    let pool = world.database().await;
    assert_eq!(counts(&pool, &sku).await, [10, 7, 17, 0, 0, 17, 2]);
}

#[tokio::test]
async fn the_limit_counts_units_of_this_batch_and_of_earlier_ones() {
    let world = world().await;
    let limited = ProductData { limit_per_customer: Some(3), ..product() };
    let sku = world.product(100, limited).await;
    let (orders, customer) = (fresh_orders(5), fresh_customer());
    let exceeded = |message: &OrderSagaMessage| {
        matches!(message, OrderSagaMessage::StockRefused(refused)
            if refused.reason == ReserveRefusal::LimitExceeded)
    };
    let latest = |replies: &[Envelope<OrderSagaMessage>], order| {
        replies.iter().rfind(|reply| reply.order_id == Some(order)).unwrap().message.clone()
    };
    world.send(&[reserve(orders[0], &sku, 2, customer), reserve(orders[1], &sku, 2, customer)]).await;
    let replies = world.replies(&orders, 2).await;
    assert!(matches!(latest(&replies, orders[0]), OrderSagaMessage::StockReserved(_)));
    assert!(exceeded(&latest(&replies, orders[1])));
    world.send(&[confirm(orders[0], &sku)]).await;
    world.replies(&orders, 3).await;
    world.send(&[reserve(orders[2], &sku, 2, customer), reserve(orders[3], &sku, 1, customer)]).await;
    let replies = world.replies(&orders, 5).await;
    assert!(exceeded(&latest(&replies, orders[2])));
    assert!(matches!(latest(&replies, orders[3]), OrderSagaMessage::StockReserved(_)));
    world.send(&[restock(orders[0], &sku), reserve(orders[4], &sku, 2, customer)]).await;
    let replies = world.replies(&orders, 7).await;
    assert!(replies.iter().any(|reply| reply.order_id == Some(orders[4])
        && matches!(reply.message, OrderSagaMessage::StockReserved(_))));
    let pool = world.database().await;
    assert_eq!(counts(&pool, &sku).await, [100, 0, 97, 3, 0, 102, 6]);
}

#[tokio::test]
async fn a_command_under_another_key_is_parked_and_stops_nobody_else() {
    let world = world().await;
    let sku = world.product(10, product()).await;
    let orders = fresh_orders(2);
    let elsewhere = reserve(orders[0], &fresh_sku(), 1, fresh_customer());
    let misplaced = Output::new(Topic::StockCommands, sku.as_str(), &elsewhere).parking_key(orders[0]);
    let unreadable =
        Output::raw(Topic::StockCommands.name(), sku.as_str(), b"{".to_vec()).parking_key(orders[0]);
    let good = output(&reserve(orders[1], &sku, 1, fresh_customer()));
    world.publish(&[misplaced, unreadable, good]).await;
    let replies = world.replies(&orders, 1).await;
    assert_eq!(replies[0].order_id, Some(orders[1]));
    let parked: i64 = eventually(DEADLINE, "dead letters", async || {
        let letters = world.read(Topic::DeadLetters);
        let of_sku = letters.iter().filter(|letter| letter.key_str() == Some(sku.as_str())).count();
        if of_sku == 2 { Ok(2) } else { Err(format!("{of_sku} dead letters")) }
    })
    .await;
    assert_eq!(parked, 2);
    assert_eq!(counts(&world.database().await, &sku).await, [10, 0, 9, 1, 0, 10, 2]);
}

#[tokio::test]
async fn the_database_itself_refuses_what_must_not_be() {
    let world = world().await;
    let sku = world.product(10, product()).await;
    let pool = world.database().await;
    for (update, constraint) in [
        ("UPDATE items SET available = -1, held = 11 WHERE sku = $1", "items_available_not_negative"),
        ("UPDATE items SET held = -1, available = 11 WHERE sku = $1", "items_held_not_negative"),
        ("UPDATE items SET sold = -1, available = 11 WHERE sku = $1", "items_sold_not_negative"),
        ("UPDATE items SET available = 11 WHERE sku = $1", "items_balanced"),
    ] {
        let error = sqlx::query(update).bind(sku.as_str()).execute(&pool).await.unwrap_err();
        let refused_by = error.as_database_error().and_then(|error| error.constraint().map(str::to_owned));
        assert_eq!(refused_by.as_deref(), Some(constraint));
    }
}

#[tokio::test]
async fn what_was_changed_behind_the_owner_s_back_is_never_written_over() {
    let world = world().await;
    let sku = world.product(10, product()).await;
    let pool = world.database().await;
    let orders = fresh_orders(1);
    sqlx::query(
        "UPDATE items SET restocked = 5, available = 15, granted = 15, version = version + 1 WHERE sku = $1",
    )
    .bind(sku.as_str())
    .execute(&pool)
    .await
    .unwrap();
    world.send(&[reserve(orders[0], &sku, 1, fresh_customer())]).await;
    let replies = world.replies(&orders, 1).await;
    assert!(matches!(replies[0].message, OrderSagaMessage::StockReserved(_)), "{replies:?}");
    assert_eq!(counts(&pool, &sku).await, [10, 5, 14, 1, 0, 15, 3]);
}
