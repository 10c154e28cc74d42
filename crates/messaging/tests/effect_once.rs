//! Each record has its effect once, whatever stops or doubles the owner. On a real broker and database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use messaging::Publisher;
use sqlx::Row;
use support::{LONG, World, add};

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

#[tokio::test]
async fn each_record_is_applied_once_and_its_output_published() {
    let world = World::new("once", 3).await;
    let running = world.start();
    world.send((0..5_000).map(|n| add(&format!("k{}", n % 100), 1))).await;
    world.until_records(5_000).await;
    assert_eq!(world.until_output(5_000).await.len(), 5_000, "each output once while nothing fails");
    testkit::eventually(LONG, "the outbox is emptied after some quiet", async || {
        match world.count("messaging_outbox").await {
            0 => Ok(()),
            rows => Err(format!("{rows} rows")),
        }
    })
    .await;
    running.status.ready().unwrap();
    running.stop().await;
    let again = world.start();
    world.send([add("k0", 1)]).await;
    world.until_records(5_001).await;
    again.stop().await;
}

#[tokio::test]
async fn a_successor_publishes_what_its_predecessor_committed() {
    let world = World::new("heir", 1).await;
    let to_nowhere = Publisher::new("127.0.0.1:1", "to-nowhere").unwrap();
    let dying = world.start_with(world.factory(), to_nowhere);
    world.send((0..10).map(|_| add("a", 1))).await;
    testkit::eventually(LONG, "a batch is committed", async || {
        if world.count("messaging_outbox").await > 0 { Ok(()) } else { Err("not yet") }
    })
    .await;
    assert!(world.read(&world.out_topic).await.is_empty(), "nothing could be published");
    dying.stop().await;
    let heir = world.start();
    assert_eq!(world.until_output(10).await.len(), 10);
    world.until_records(10).await;
    heir.stop().await;
}

#[tokio::test]
async fn an_owner_that_is_fenced_drops_its_work_and_takes_over_again() {
    let world = World::new("fenced", 1).await;
    let running = world.start();
    world.send([add("a", 1)]).await;
    world.until_records(1).await;
    sqlx::query("UPDATE messaging_position SET epoch = epoch + 5").execute(&world.pool).await.unwrap();
    world.send((0..500).map(|_| add("a", 1))).await;
    world.until_records(501).await;
    assert!(running.metric("messaging_fencings_total") >= 1.0);
    let epoch: i64 = sqlx::query("SELECT epoch FROM messaging_position")
        .fetch_one(&world.pool)
        .await
        .unwrap()
        .get("epoch");
    assert_eq!(epoch, 7, "1 for the first take-over, 5 by somebody else, 1 for the second");
    running.stop().await;
}

#[tokio::test]
async fn rebalances_under_load_apply_each_record_once() {
    let world = World::new("rebalance", 4).await;
    let first = world.start();
    let sending = async {
        for _ in 0..40 {
            world.send((0..100).map(|n| add(&format!("k{n}"), 1))).await;
            tokio::task::yield_now().await;
        }
    };
    let joining = async {
        world.until_some_records().await;
        let second = world.start();
        testkit::eventually(LONG, "the second member owns a partition", async || {
            if second.metric("messaging_take_overs_total") >= 1.0 { Ok(()) } else { Err("none") }
        })
        .await;
        first.stop().await;
        second
    };
    let ((), second) = tokio::join!(sending, joining);
    world.send((0..100).map(|n| add(&format!("k{n}"), 1))).await;
    world.until_records(4_100).await;
    assert_eq!(world.sums().await.0, 4_100);
    second.stop().await;
}

#[tokio::test]
async fn a_static_member_that_was_fenced_by_its_own_name_joins_anew() {
    let world = World::new("fenced-member", 2).await;
    let send = async || world.send((0..100).map(|n| add(&format!("k{n}"), 1))).await;
    let first = world.start_as("one");
    send().await;
    world.until_records(100).await;
    // Another one with the same name: the broker says a fatal error to the first.
    let second = world.start_as("one");
    testkit::eventually(LONG, "the second member owns a partition", async || {
        if second.metric("messaging_take_overs_total") >= 1.0 { Ok(()) } else { Err("none") }
    })
    .await;
    second.stop().await;
    send().await;
    world.until_records(200).await;
    assert_eq!(world.sums().await.0, 200);
    first.stop().await;
}

#[tokio::test]
async fn an_owner_works_in_fenced_transactions_without_records() {
    let world = World::new("work", 1).await;
    let running = world.start();
    world.send([support::failing("a", "work")]).await;
    testkit::eventually(LONG, "the owner worked", async || {
        if world.count("worked").await == 1 { Ok(()) } else { Err("not yet") }
    })
    .await;
    let outputs = world.until_output(2).await;
    assert!(outputs.iter().any(|output| output.value == b"worked"));
    running.stop().await;
}

#[tokio::test]
async fn a_position_that_does_not_fit_its_log_stops_the_partition_with_a_named_error() {
    let world = World::new("misfit", 1).await;
    let running = world.start();
    world.send([add("a", 1), add("a", 1)]).await;
    world.until_records(2).await;
    running.stop().await;
    // The log was empty when it was taken over: its first record told who it is.
    let known: bool = sqlx::query_scalar("SELECT log_id IS NOT NULL FROM messaging_position")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(known, "nobody would notice that the topic is made anew");
    let cases = [
        ("UPDATE messaging_position SET next_offset = 99", "records are missing"),
        ("UPDATE messaging_position SET next_offset = 2, log_id = 'another'", "made anew"),
        ("UPDATE messaging_position SET cluster_id = 'another'", "belongs to kafka cluster another"),
    ];
    for (damage, error) in cases {
        sqlx::query(damage).execute(&world.pool).await.unwrap();
        let running = world.start();
        testkit::eventually(LONG, error, async || match running.status.ready() {
            Err(found) if found.contains(error) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        running.stop().await;
    }
    assert_eq!(world.sums().await, (2, 2));
}

#[tokio::test]
async fn broker_and_database_may_go_and_come_back() {
    let stack = testkit::private_stack("away").await;
    let world = World::within(&stack, "away", 2).await;
    let running = world.start();
    world.send((0..100).map(|n| add(&format!("k{n}"), 1))).await;
    world.until_records(100).await;

    stack.kill_part(local_stack::Part::Postgres).await.unwrap();
    world.send((0..100).map(|n| add(&format!("k{n}"), 1))).await;
    stack.start_part(local_stack::Part::Postgres).await.unwrap();
    world.until_records(200).await;

    stack.kill_part(local_stack::Part::Kafka).await.unwrap();
    testkit::eventually(LONG, "the publisher notices", async || match world.publisher.reachable().await {
        Err(_) => Ok(()),
        Ok(()) => Err("reachable"),
    })
    .await;
    stack.start_part(local_stack::Part::Kafka).await.unwrap();
    testkit::eventually(LONG, "the publisher notices", async || world.publisher.reachable().await).await;
    world.send((0..100).map(|n| add(&format!("k{n}"), 1))).await;
    world.until_records(300).await;
    assert_eq!(world.sums().await.0, 300);
    tokio::time::timeout(Duration::from_secs(20), running.stop()).await.unwrap();
}

impl World {
    async fn until_some_records(&self) {
        testkit::eventually(LONG, "something is applied", async || {
            if self.sums().await.1 > 0 { Ok(()) } else { Err("nothing is") }
        })
        .await;
    }
}
