//! A record that can't be applied stops its parking key and nothing else. On a real broker and database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::atomic::Ordering;

use messaging::{TailFrom, dead_letter};
use schemas::{DiscardParked, RedriveParked, ReplaceParked};
use support::{LONG, World, add, failing};

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

fn redrive(key: &str, offsets: Vec<i64>) -> schemas::ControlMessage {
    RedriveParked {
        consumer_group: "adders".into(),
        parking_key: key.into(),
        offsets,
        operator: "test".into(),
        reason: "mended".into(),
    }
    .into()
}

#[tokio::test]
async fn a_culprit_in_a_large_batch_is_found_and_parked_with_what_is_behind_it() {
    for how in ["permanent", "panic"] {
        let world = World::new("culprit", 1).await;
        let mut records: Vec<_> = (0..700).map(|n| add(&format!("k{}", n % 10), 1)).collect();
        records.insert(333, failing("k3", how));
        world.send(records).await;
        let running = world.start();
        // k3 had 33 records (3, 13, ... 323) before the culprit, so 37 behind it.
        world.until_parked(38).await;
        world.until_records(700 - 37).await;
        assert_eq!(world.records_of("k3").await, 33);
        let letters = world.read(&world.dead_letters).await;
        assert_eq!(letters.len(), 38);
        assert_eq!(letters[0].header(dead_letter::CAUSE), Some("failed".as_bytes()));
        assert_eq!(letters[0].header(dead_letter::OFFSET), Some("333".as_bytes()));
        assert_eq!(letters[1].header(dead_letter::CAUSE), Some("behind".as_bytes()));
        running.stop().await;
    }
}

#[tokio::test]
async fn redriven_records_are_applied_in_order_with_their_offsets_and_the_key_goes_on() {
    let world = World::new("redrive", 1).await;
    let running = world.start();
    world
        .send([
            add("a", 1),
            failing("a", "permanent"),
            add("a", 1),
            ("a".into(), "no json".into()),
            add("b", 1),
        ])
        .await;
    world.until_parked(3).await;
    world.control("a", redrive("a", vec![1, 2, 3])).await;
    world.send([add("b", 1)]).await;
    world.until_records(3).await;
    world.until_parked(3).await;

    world.mended.store(true, Ordering::SeqCst);
    // Another group's redrive, and one that would leave out the first, change nothing.
    let mut others = redrive("a", vec![1, 2, 3]);
    if let schemas::ControlMessage::RedriveParked(redrive) = &mut others {
        redrive.consumer_group = "somebody else".into();
    }
    world.control("a", others).await;
    world.control("a", redrive("a", vec![2, 3])).await;
    world.control("a", redrive("a", vec![1, 2, 3])).await;
    // The broken one still can't be read: those before it are applied, it stays.
    world.until_parked(1).await;
    let discard = DiscardParked {
        consumer_group: "adders".into(),
        parking_key: "a".into(),
        offsets: vec![3],
        operator: "test".into(),
        reason: "nobody can read it".into(),
    };
    world.control("a", discard.into()).await;
    world.until_parked(0).await;
    world.send([add("a", 10)]).await;
    world.until_records(6).await;
    let offsets: Vec<i64> =
        sqlx::query_scalar("SELECT offsets FROM sums WHERE key = 'a'").fetch_one(&world.pool).await.unwrap();
    assert_eq!(offsets[..3], [0, 1, 2], "in order, with the original offsets");
    assert_eq!(running.metric("messaging_control_ignored_total"), 2.0);
    running.stop().await;
}

#[tokio::test]
async fn a_parked_record_can_be_replaced() {
    let world = World::new("replace", 1).await;
    let running = world.start();
    world.send([("a".into(), "no json".into()), add("a", 1)]).await;
    world.until_parked(2).await;
    let replace = ReplaceParked {
        consumer_group: "adders".into(),
        parking_key: "a".into(),
        offset: 0,
        value: "{\"add\":41}".into(),
        operator: "test".into(),
        reason: "that is what was meant".into(),
    };
    world.control("a", replace.into()).await;
    world.until_parked(1).await;
    world.control("a", redrive("a", vec![1])).await;
    world.until_parked(0).await;
    assert_eq!(world.sums().await, (42, 2));
    running.stop().await;
}

#[tokio::test]
async fn a_build_that_knows_a_parked_version_redrives_it_itself() {
    let world = World::new("versions", 1).await;
    let old = world.start();
    world.send([("a".into(), "{\"add\":5,\"version\":2}".into()), add("a", 1)]).await;
    world.until_parked(2).await;
    old.stop().await;
    let mut factory = world.factory();
    factory.knows_version = 2;
    let new = world.start_with(factory, world.publisher.clone());
    world.until_records(2).await;
    world.until_parked(0).await;
    assert_eq!(world.sums().await.0, 6);
    new.stop().await;
}

#[tokio::test]
async fn a_database_restored_from_a_backup_parks_what_the_dead_letters_name() {
    let world = World::new("restored", 1).await;
    let running = world.start();
    world.send([add("a", 1), failing("a", "permanent"), add("a", 1), add("b", 1)]).await;
    world.until_parked(2).await;
    world.until_records(2).await;
    running.stop().await;
    // The backup is from before all of that, and by now the handler could apply the record.
    sqlx::raw_sql(
        "UPDATE messaging_position SET next_offset = 0; DELETE FROM messaging_parked; DELETE FROM sums",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    world.mended.store(true, Ordering::SeqCst);
    let running = world.start();
    world.until_parked(2).await;
    world.until_records(2).await;
    assert_eq!(world.records_of("a").await, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_tail_hears_every_record_from_the_beginning_and_on() {
    let world = World::new("tail", 2).await;
    world.send((0..50).map(|n| add(&format!("k{n}"), 1))).await;
    let (sender, receiver) = std::sync::mpsc::channel();
    let stop = tokio_util::sync::CancellationToken::new();
    let (brokers, topic, token) = (world.brokers.clone(), world.topic.clone(), stop.clone());
    let tail = tokio::spawn(async move {
        messaging::tail(
            &brokers,
            &topic,
            TailFrom::Beginning,
            std::time::Duration::ZERO,
            token,
            move |record| {
                let _test_over = sender.send(record.offset);
            },
        )
        .await
    });
    world.send((0..50).map(|n| add(&format!("k{n}"), 1))).await;
    let mut heard = 0;
    testkit::eventually(LONG, "100 records are heard", async || {
        heard += receiver.try_iter().count();
        if heard == 100 { Ok(()) } else { Err(format!("{heard} are")) }
    })
    .await;
    stop.cancel();
    tail.await.unwrap().unwrap();
}
