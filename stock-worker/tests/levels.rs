//! `stock-levels` ends with the present level, whatever landed in it late.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use domain_types::{MessageId, Sku};
use messaging::Output;
use schemas::{Envelope, StockLevel, StockLevelMessage, Topic};
use support::{World, change, fresh_customer, fresh_orders, product, reserve, world};
use uuid::Uuid;

fn late(level: &StockLevel) -> Output {
    let envelope: Envelope<StockLevelMessage> = Envelope {
        message_id: MessageId(Uuid::new_v4()),
        order_id: None,
        causation_id: None,
        occurred_at: level.updated_at,
        message: level.clone().into(),
    };
    Output::new(Topic::StockLevels, level.sku.as_str(), &envelope)
}

/// A product at version 3, and its level of version 1.
async fn changed_product(world: &World) -> (Sku, StockLevel) {
    let sku = world.product(10, product()).await;
    let old = world.last_level(&sku, 1).await;
    for version in [2, 3] {
        world.send(&[change(&sku, 1)]).await;
        world.last_level(&sku, version).await;
    }
    (sku, old)
}

#[tokio::test]
async fn an_older_level_that_lands_late_is_followed_by_the_present_one() {
    let world = world().await;
    let (sku, old) = changed_product(world).await;
    let present = world.last_level(&sku, 3).await;
    let before = world.levels(&sku).len();
    world.publish(&[late(&old)]).await;
    let last = world.last_level_after(&sku, 3, before + 2).await;
    assert_eq!(last, present);
}

#[tokio::test]
async fn an_unreadable_level_is_followed_by_the_present_one() {
    let world = world().await;
    let (sku, _) = changed_product(world).await;
    let garbage = Output::raw(Topic::StockLevels.name(), sku.as_str(), b"{".to_vec());
    let readable = world.levels(&sku).len();
    world.publish(&[garbage]).await;
    world.last_level_after(&sku, 3, readable + 1).await;
}

#[tokio::test]
async fn a_worker_that_takes_over_finds_an_outdated_level_and_goes_on_with_the_stock() {
    let stack = testkit::private_stack("take-over").await;
    let world = World::on(&stack).await;
    let worker = world.start();
    let (sku, old) = changed_product(&world).await;
    let (other, _) = changed_product(&world).await;
    // Or the successor would publish the present level as its predecessor's unfinished work.
    world.outbox_is_empty().await;
    worker.stop().await;
    let levels = world.levels(&sku).len();
    world.publish(&[late(&old)]).await;
    let others = world.levels(&other).len();

    let worker = world.start();
    world.last_level_after(&sku, 3, levels + 2).await;
    let orders = fresh_orders(13);
    let reserves: Vec<_> = orders.iter().map(|order| reserve(*order, &sku, 1, fresh_customer())).collect();
    world.send(&reserves).await;
    let replies = world.replies(&orders, 13).await;
    assert_eq!(support::by_type(&replies)["StockReserved"], 12, "10 units and 2 more");
    assert_eq!(world.levels(&other).len(), others, "a present level is left alone");
    worker.stop().await;
}
