//! `GET /v1/products/{sku}` through Redis.

use std::time::Duration;

use domain_types::Sku;
use futures::future::join_all;
use local_stack::{Part, Signal};
use reqwest::StatusCode;
use schemas::{StockLevel, Topic};
use serde_json::Value;
use sqlx::Row as _;
use testkit::eventually;

use crate::support::{Node, SOON, World, level, read, won};

fn new_sku() -> Sku {
    Sku::new(testkit::unique("SKU", '-').to_uppercase()).unwrap()
}

async fn see(node: &Node, sku: &Sku) -> Value {
    let (status, product) = read(node.get(&format!("/v1/products/{sku}"), None).await).await;
    assert_eq!(status, StatusCode::OK, "{product}");
    product
}

async fn metric(node: &Node, name: &str) -> u64 {
    let metrics = node.metrics().await;
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

const HITS: &str = "api_product_reads_total{cache=\"hit\"}";
const MISSES: &str = "api_product_reads_total{cache=\"miss\"}";
const AWAY: &str = "api_product_reads_total{cache=\"away\"}";
const LOADS: &str = "api_product_loads_total";

/// The cache's side, seen by another client.
struct Cache(redis::aio::MultiplexedConnection);

impl Cache {
    async fn of(world: &World) -> Self {
        let client = redis::Client::open(world.redis_url.as_str()).unwrap();
        Self(client.get_multiplexed_async_connection().await.unwrap())
    }

    fn key(sku: &Sku) -> String {
        format!("product:{{{sku}}}:1")
    }

    async fn version(&mut self, sku: &Sku) -> Option<i64> {
        redis::cmd("HGET").arg(Self::key(sku)).arg("version").query_async(&mut self.0).await.unwrap()
    }

    async fn ttl_ms(&mut self, sku: &Sku) -> i64 {
        redis::cmd("PTTL").arg(Self::key(sku)).query_async(&mut self.0).await.unwrap()
    }

    async fn forget(&mut self, sku: &Sku) {
        let () = redis::cmd("DEL").arg(Self::key(sku)).query_async(&mut self.0).await.unwrap();
    }

    async fn until_version(&mut self, sku: &Sku, version: i64) {
        eventually(SOON, "the level is in the cache", async || {
            let found = self.version(sku).await;
            if found == Some(version) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_a_burst_of_readers_of_a_product_that_is_not_cached_loads_it_once() {
    let world = World::shared().await;
    let node = world.node().await;
    let mut cache = Cache::of(&world).await;
    let sku = new_sku();
    world.level(level(&sku, 4, won(1))).await;
    cache.until_version(&sku, 4).await;
    for _ in 0..3 {
        let before = (metric(&node, LOADS).await, metric(&node, HITS).await + metric(&node, MISSES).await);
        cache.forget(&sku).await;
        let seen = join_all((0..200).map(|_| see(&node, &sku))).await;
        assert!(seen.iter().all(|product| product["available"] == 10));
        let after = (metric(&node, LOADS).await, metric(&node, HITS).await + metric(&node, MISSES).await);
        assert_eq!((after.0 - before.0, after.1 - before.1), (1, 200), "loads, readers");
        assert_eq!(cache.version(&sku).await, Some(4));
        assert!((1..=5_000).contains(&cache.ttl_ms(&sku).await));
    }
    // What nobody sells is never cached, so it is there once it is.
    let unknown = new_sku();
    let path = format!("/v1/products/{unknown}");
    let answers = join_all((0..50).map(|_| node.get(&path, None))).await;
    assert!(answers.iter().all(|answer| answer.status() == StatusCode::NOT_FOUND));
    assert_eq!(cache.version(&unknown).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_a_sale_is_seen_on_every_node_within_a_second_and_the_quiescent_cache_is_the_database() {
    let world = World::shared().await;
    let (node, other) = world.two_nodes().await;
    let mut cache = Cache::of(&world).await;
    let category = testkit::unique("c", '-');
    let mut levels: Vec<StockLevel> = (0..20)
        .map(|n| {
            let mut new = level(&new_sku(), 1, won(n));
            new.product.category.clone_from(&category);
            new
        })
        .collect();
    for _ in 0..15 {
        for level in &mut levels {
            level.version += 1;
            level.available = (level.available + 3) % 7;
            world.level(level.clone()).await;
        }
        // Readers fill while the projection writes; what they see is never older than what they saw.
        let skus: Vec<Sku> = levels.iter().map(|level| level.sku.clone()).collect();
        for sku in skus.iter().step_by(3) {
            cache.forget(sku).await;
        }
        join_all(skus.iter().flat_map(|sku| {
            [&node, &other].map(|node| async move {
                let _not_there_yet = node.get(&format!("/v1/products/{sku}"), None).await.status();
            })
        }))
        .await;
    }
    world.caught_up(Topic::StockLevels).await;
    let begun = std::time::Instant::now();
    for level in &levels {
        for node in [&node, &other] {
            eventually(Duration::from_secs(1), "the last sale is shown", async || {
                let seen = see(node, &level.sku).await;
                if seen["available"] == level.available { Ok(()) } else { Err(seen) }
            })
            .await;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}: the entries would have ended", begun.elapsed());
    // All of it, read back both ways.
    let list = node.get(&format!("/v1/products?category={category}&limit=100"), None).await;
    let listed = read(list).await.1["items"].as_array().unwrap().clone();
    assert_eq!(listed.len(), levels.len());
    for product in &listed {
        let sku = Sku::new(product["sku"].as_str().unwrap()).unwrap();
        let stored = sqlx::query("SELECT version FROM products WHERE sku = $1")
            .bind(sku.as_str())
            .fetch_one(&world.pool)
            .await
            .unwrap();
        let stored: i64 = stored.get(0);
        for node in [&node, &other] {
            assert_eq!(&see(node, &sku).await, product);
        }
        assert_eq!(cache.version(&sku).await, Some(stored));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_redis_frozen_or_dead_stops_no_reader_and_the_cache_fills_again() {
    let stack = testkit::private_stack("live-stock").await;
    let world = World::on(&stack).await;
    let node = world.node().await;
    let sku = new_sku();
    let mut version = 1;
    let sell = async |version: i64| {
        let sold = StockLevel { version, available: 1_000 - version, ..level(&sku, 1, won(1)) };
        world.level(sold).await;
        world.caught_up(Topic::StockLevels).await;
    };
    let path = format!("/v1/products/{sku}");
    let until_shown = async |version: i64, within: Duration| {
        eventually(within, "the sale is shown", async || {
            let answer = node.get(&path, None);
            let answer =
                tokio::time::timeout(Duration::from_secs(2), answer).await.expect("nobody waits long");
            let (status, seen) = read(answer).await;
            if seen["available"] == 1_000 - version { Ok(()) } else { Err(format!("{status} {seen}")) }
        })
        .await;
    };
    sell(version).await;
    until_shown(version, SOON).await;
    for how in ["frozen", "dead"] {
        let (hits, away) = (metric(&node, HITS).await, metric(&node, AWAY).await);
        match how {
            "frozen" => stack.signal_part(Part::Redis, Signal::Stop).await.unwrap(),
            _ => stack.kill_part(Part::Redis).await.unwrap(),
        }
        for _ in 0..3 {
            version += 1;
            sell(version).await;
            // From the projection: at once.
            until_shown(version, Duration::from_secs(3)).await;
        }
        assert!(metric(&node, AWAY).await > away, "{how}");
        match how {
            "frozen" => stack.signal_part(Part::Redis, Signal::Continue).await.unwrap(),
            _ => stack.start_part(Part::Redis).await.unwrap(),
        }
        eventually(SOON, "the cache answers again", async || {
            until_shown(version, SOON).await;
            let now = metric(&node, HITS).await;
            if now > hits + 3 { Ok(()) } else { Err(now) }
        })
        .await;
        let mut cache = Cache::of(&world).await;
        version += 1;
        sell(version).await;
        cache.until_version(&sku, version).await;
        until_shown(version, Duration::from_secs(1)).await;
    }
}
