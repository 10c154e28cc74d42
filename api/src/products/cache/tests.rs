//! Entries in a real Redis, and readers that share look-ups.

use std::time::{Duration, Instant};

use domain_types::{Currency, Money, Sku};
use prometheus::Registry;
use schemas::ProductKind;
use tokio::sync::oneshot::error::TryRecvError;

use super::entries::{Entries, TTL};
use super::flights::Flights;
use super::metrics::CacheMetrics;
use super::write_through::{Level, WriteThrough};
use crate::products::model::{Product, Versioned};
use crate::redis::{Redis, RedisAway};

fn new_sku() -> Sku {
    Sku::new(testkit::unique("SKU", '-').to_uppercase()).unwrap()
}

/// Version and units are the same number here.
fn level(sku: &Sku, version: i64, age: Duration) -> Level {
    let product = Product {
        sku: sku.clone(),
        name: "A".into(),
        option: None,
        category: "c".into(),
        kind: ProductKind::Limited,
        price: Money::new(5, Currency::KRW),
        available: version,
        sold_out: version == 0,
        sale: None,
        limit_per_customer: Some(3),
    };
    Level { product: Versioned { version, product }, as_of: Instant::now().checked_sub(age).unwrap() }
}

async fn entries() -> Entries {
    let redis = Redis::connect(&[testkit::infra().await.redis_url()], false, None).unwrap();
    Entries::new(redis, CacheMetrics::register(&Registry::new()).unwrap())
}

async fn shown(entries: &Entries, sku: &Sku) -> Option<i64> {
    entries.get(sku).await.unwrap().map(|product| product.available)
}

#[tokio::test]
async fn c5_the_newer_version_stays_whoever_comes_first() {
    let entries = entries().await;
    for versions in [[5, 6, 5], [6, 5, 6], [9, 10, 9], [10, 9, 10]] {
        let sku = new_sku();
        assert_eq!(shown(&entries, &sku).await, None);
        let mut newest = 0;
        for version in versions {
            entries.put(&[level(&sku, version, Duration::ZERO)]).await.unwrap();
            newest = newest.max(version);
            assert_eq!(shown(&entries, &sku).await, Some(newest), "{versions:?}");
        }
        let written = entries.get(&sku).await.unwrap().unwrap();
        assert_eq!(
            written,
            level(&sku, newest, Duration::ZERO).product.product,
            "nothing is lost on the way"
        );
    }
}

#[tokio::test]
async fn c5_an_entry_ends_5_s_after_the_database_said_so_however_late_it_was_written() {
    let entries = entries().await;
    let (late, too_late) = (new_sku(), new_sku());
    entries.put(&[level(&too_late, 1, TTL)]).await.unwrap();
    assert_eq!(shown(&entries, &too_late).await, None);
    let begun = Instant::now();
    entries.put(&[level(&late, 1, TTL - Duration::from_millis(800))]).await.unwrap();
    assert_eq!(shown(&entries, &late).await, Some(1));
    // The same version again makes it live no longer.
    entries.put(&[level(&late, 1, Duration::ZERO)]).await.unwrap();
    testkit::eventually(Duration::from_secs(3), "the entry ends", async || {
        shown(&entries, &late).await.map_or(Ok(()), Err)
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn c5_many_levels_are_written_together_and_in_a_cluster_one_by_one() {
    for is_cluster in [false, true] {
        let mut entries = entries().await;
        if is_cluster {
            entries.keys_per_script = 1;
        }
        let skus: Vec<Sku> = (0..150).map(|_| new_sku()).collect();
        let levels: Vec<Level> = (0..).zip(&skus).map(|(n, sku)| level(sku, n, Duration::ZERO)).collect();
        entries.put(&levels).await.unwrap();
        for (n, sku) in (0..).zip(&skus) {
            assert_eq!(shown(&entries, sku).await, Some(n));
        }
    }
}

#[tokio::test]
async fn c5_what_waits_for_redis_is_the_newest_of_each_sku() {
    let entries = entries().await;
    let write_through = WriteThrough::new(entries.clone());
    let (sku, other) = (new_sku(), new_sku());
    let of = |sku, version| level(sku, version, Duration::ZERO);
    write_through.stored(vec![of(&sku, 2), of(&other, 1)]);
    write_through.stored(vec![of(&sku, 1)]);
    write_through.stored(vec![of(&sku, 3)]);
    let end = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(write_through.run(end.clone()));
    testkit::eventually(Duration::from_secs(5), "both are written", async || {
        match (shown(&entries, &sku).await, shown(&entries, &other).await) {
            (Some(3), Some(1)) => Ok(()),
            others => Err(format!("{others:?}")),
        }
    })
    .await;
    end.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_told_and_not_waited_for() {
    let port = local_stack::free_port().unwrap();
    let redis = Redis::connect(&[format!("redis://127.0.0.1:{port}/")], false, None).unwrap();
    let entries = Entries::new(redis, CacheMetrics::register(&Registry::new()).unwrap());
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(entries.get(&new_sku()).await, Err(RedisAway));
        assert_eq!(entries.put(&[level(&new_sku(), 1, Duration::ZERO)]).await, Err(RedisAway));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn nobody_gets_an_answer_of_a_look_up_that_began_before_they_asked() {
    let (flights, sku) = (Flights::default(), new_sku());
    let (mut first, flight) = flights.join(&sku);
    let mut flight = flight.expect("the first one looks it up");
    let (mut second, none) = flights.join(&sku);
    assert!(none.is_none());
    let boarded = flight.board().unwrap();
    assert_eq!(boarded.len(), 2, "the look-up has not begun yet");
    // It has now.
    let (mut third, none) = flights.join(&sku);
    assert!(none.is_none());
    for reader in boarded {
        reader.send(Ok(None)).unwrap();
    }
    assert!(first.try_recv().is_ok() && second.try_recv().is_ok());
    assert!(matches!(third.try_recv(), Err(TryRecvError::Empty)));
    for reader in flight.board().unwrap() {
        reader.send(Ok(None)).unwrap();
    }
    assert!(third.try_recv().is_ok());
    assert!(flight.board().is_none());
    // Ended: the next one begins another, and the end of the first one does not touch it.
    let (mut fourth, next) = flights.join(&sku);
    drop(flight);
    assert!(flights.join(&sku).1.is_none());
    drop(next.expect("a new flight"));
    // One that failed leaves nobody waiting, and the sku free.
    assert!(matches!(fourth.try_recv(), Err(TryRecvError::Closed)));
    assert!(flights.join(&sku).1.is_some());
}
