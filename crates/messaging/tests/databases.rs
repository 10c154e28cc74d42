//! A consumer whose partitions are spread over databases, on a real broker and real databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use messaging::{Databases, DatabasesError};
use sqlx::PgPool;
use support::{LONG, Running, World, add};

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

const PARTITIONS: i32 = 4;

/// An empty database with the runtime's tables and the adder's.
async fn database(name: &str) -> PgPool {
    let pool = PgPool::connect(&testkit::fresh_database(name).await).await.unwrap();
    World::make_tables(&pool).await;
    pool
}

async fn open(world: &World, list: &[&PgPool]) -> Result<Databases, DatabasesError> {
    let pools = list.iter().map(|pool| (*pool).clone()).collect();
    Databases::open(pools, "adders", &world.topic).await
}

async fn start(world: &World, list: &[&PgPool]) -> Running {
    let databases = open(world, list).await.unwrap();
    world.start_on(databases, world.factory(), world.publisher.clone())
}

/// Partitions with state, and with a position.
async fn partitions(pool: &PgPool) -> (Vec<i32>, Vec<i32>) {
    let state = sqlx::query_scalar("SELECT DISTINCT partition_id FROM sums ORDER BY 1");
    let position = sqlx::query_scalar("SELECT partition_id FROM messaging_position ORDER BY 1");
    (state.fetch_all(pool).await.unwrap(), position.fetch_all(pool).await.unwrap())
}

async fn until_records(pools: &[&PgPool], wanted: i64) {
    testkit::eventually(LONG, &format!("{wanted} records are applied"), async || {
        let mut records = 0;
        for pool in pools {
            let sum = sqlx::query_scalar("SELECT coalesce(sum(records), 0)::bigint FROM sums");
            records += sum.fetch_one(*pool).await.unwrap_or(0_i64);
        }
        if records == wanted { Ok(()) } else { Err(format!("{records} are")) }
    })
    .await;
}

fn hundred() -> impl Iterator<Item = (String, String)> {
    (0..100).map(|n| add(&format!("k{n}"), 1))
}

#[tokio::test]
async fn partitions_are_spread_in_turn_and_stay_in_their_database_whoever_owns_them() {
    let world = World::new("spread", PARTITIONS).await;
    let (home, second) = (&world.pool, &database("spread-second").await);
    let list = [home, second];
    let (one, two) = tokio::join!(start(&world, &list), start(&world, &list));
    world.send(hundred()).await;
    until_records(&list, 100).await;
    one.stop().await;
    world.send(hundred()).await;
    until_records(&list, 200).await;
    two.stop().await;
    let three = start(&world, &list).await;
    world.send(hundred()).await;
    until_records(&list, 300).await;
    three.stop().await;
    world.until_output(300).await;
    assert_eq!(partitions(home).await, (vec![0, 2], vec![0, 2]));
    assert_eq!(partitions(second).await, (vec![1, 3], vec![1, 3]));
}

#[tokio::test]
async fn a_database_that_is_added_later_gets_no_partition_that_is_elsewhere() {
    let world = World::new("grown", 2).await;
    let (home, second) = (&world.pool, &database("grown-second").await);
    // Before there was a map.
    let old = world.start();
    world.send(hundred()).await;
    until_records(&[home], 100).await;
    old.stop().await;
    let grown = start(&world, &[home, second]).await;
    world.send(hundred()).await;
    until_records(&[home, second], 200).await;
    grown.stop().await;
    assert_eq!(partitions(home).await.1, [0, 1]);
    assert_eq!(partitions(second).await, (vec![], vec![]));
}

#[tokio::test]
async fn a_list_that_could_part_a_partitions_state_is_refused_before_anything_is_read() {
    let world = World::new("lists", PARTITIONS).await;
    let (home, second) = (&world.pool, &database("lists-second").await);
    let other = &database("lists-other").await;
    open(&world, &[home, second]).await.unwrap();
    open(&world, &[home, second]).await.expect("the same list again");

    let swapped = open(&world, &[second, home]).await;
    assert!(matches!(swapped, Err(DatabasesError::Elsewhere { number: 0, stored: 1, .. })), "{swapped:?}");
    let short = open(&world, &[home]).await;
    assert!(matches!(short, Err(DatabasesError::Missing { listed: 1, known: 2 })), "{short:?}");
    let alone = open(&world, &[second]).await;
    assert!(matches!(alone, Err(DatabasesError::Elsewhere { number: 0, stored: 1, .. })), "{alone:?}");
    let replaced = open(&world, &[home, other]).await;
    assert!(matches!(replaced, Err(DatabasesError::Replaced { number: 1, .. })), "{replaced:?}");
    let other_home = open(&world, &[other, second]).await;
    assert!(matches!(other_home, Err(DatabasesError::Elsewhere { number: 1, .. })), "{other_home:?}");
    let twice = open(&world, &[home, home]).await;
    assert!(matches!(twice, Err(DatabasesError::Twice { first: 0, second: 1 })), "{twice:?}");

    // Somebody copied a position; the map says where it belongs.
    let running = start(&world, &[home, second]).await;
    world.send(hundred()).await;
    until_records(&[home, second], 100).await;
    running.stop().await;
    sqlx::query("UPDATE messaging_position SET partition_id = 3 WHERE partition_id = 2")
        .execute(home)
        .await
        .unwrap();
    let astray = open(&world, &[home, second]).await;
    assert!(
        matches!(astray, Err(DatabasesError::Astray { partition: 3, found: 0, mapped: 1, .. })),
        "{astray:?}"
    );
}

#[tokio::test]
async fn a_map_that_is_changed_under_a_running_process_stops_the_partition_and_says_so() {
    let world = World::new("changed", 2).await;
    let (home, second) = (&world.pool, &database("changed-second").await);
    let running = start(&world, &[home, second]).await;
    world.send(hundred()).await;
    until_records(&[home, second], 100).await;

    let change = "UPDATE messaging_map SET number = 0";
    let refused = sqlx::query(change).execute(home).await.unwrap_err().to_string();
    assert!(refused.contains("the map of partitions to databases is fixed"), "{refused}");

    // By force, and then the owner has to take over anew.
    let forced = format!("ALTER TABLE messaging_map DISABLE TRIGGER ALL; {change};");
    sqlx::raw_sql(sqlx::AssertSqlSafe(forced)).execute(home).await.unwrap();
    sqlx::query("UPDATE messaging_position SET epoch = epoch + 1").execute(second).await.unwrap();
    world.send(hundred()).await;
    testkit::eventually(LONG, "partition 1 stands still and says why", async || {
        match running.status.ready() {
            Err(said)
                if said.contains(
                    "was in database 1 of the list when this process began, now the map says 0",
                ) =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(partitions(home).await.1, [0], "nothing of partition 1 began in the other database");
    running.stop().await;
    let astray = open(&world, &[home, second]).await;
    assert!(
        matches!(astray, Err(DatabasesError::Astray { partition: 1, found: 1, mapped: 0, .. })),
        "{astray:?}"
    );
}
