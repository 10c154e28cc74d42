//! A product's entry in Redis: its version, and the product as it is shown.

use std::sync::LazyLock;
use std::time::Duration;

use domain_types::Sku;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use redis::Script;

use super::metrics::{CacheMetrics, Write};
use super::write_through::Level;
use crate::products::model::Product;
use crate::redis::{Redis, RedisAway};

/// How long an entry lives from the instant at which the database said what is in it.
pub(super) const TTL: Duration = Duration::from_secs(5);
/// Entries that one script writes, so that other scripts don't wait long behind it; one in a cluster, where keys live apart.
const KEYS_PER_SCRIPT: usize = 64;
/// Scripts of one call that are under way at once.
const SCRIPTS_AT_ONCE: usize = 16;

static GET: LazyLock<Script> = LazyLock::new(|| Script::new("return redis.call('HGET', KEYS[1], 'product')"));

/// Writes each entry unless the same version or a newer one is there; answers how many it wrote. The versions are compared
/// where the entry is, so that it does not matter who comes first.
static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local written = 0
         for i, key in ipairs(KEYS) do
             local version, product, ttl_ms = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
             local known = redis.call('HGET', key, 'version')
             if not known or tonumber(known) < tonumber(version) then
                 redis.call('HSET', key, 'version', version, 'product', product)
                 redis.call('PEXPIRE', key, ttl_ms)
                 written = written + 1
             end
         end
         return written",
    )
});

/// The name ends with the version of what is written there: builds that show products otherwise don't read it.
fn key(sku: &Sku) -> String {
    format!("product:{{{sku}}}:1")
}

/// All entries. Clones share the connection.
#[derive(Debug, Clone)]
pub(super) struct Entries {
    redis: Redis,
    pub(super) keys_per_script: usize,
    metrics: CacheMetrics,
}

impl Entries {
    pub(super) fn new(redis: Redis, metrics: CacheMetrics) -> Self {
        let keys_per_script = if redis.is_cluster() { 1 } else { KEYS_PER_SCRIPT };
        Self { redis, keys_per_script, metrics }
    }

    pub(super) fn metrics(&self) -> &CacheMetrics {
        &self.metrics
    }

    /// The entry, if there is one that this build can read.
    pub(super) async fn get(&self, sku: &Sku) -> Result<Option<Product>, RedisAway> {
        let mut script = GET.prepare_invoke();
        let entry: Option<Vec<u8>> = self.redis.invoke(script.key(key(sku))).await?;
        let product = entry.map(|entry| serde_json::from_slice(&entry)).transpose();
        Ok(product.unwrap_or_else(|error| {
            tracing::warn!(%sku, error = &error as &dyn std::error::Error, "a product in redis can't be read");
            None
        }))
    }

    /// Writes what is newer than what is there.
    ///
    /// # Errors
    /// If Redis did not answer for some of them.
    pub(super) async fn put(&self, levels: &[Level]) -> Result<(), RedisAway> {
        let mut writing = FuturesUnordered::new();
        let mut all_taken = Ok(());
        for together in levels.chunks(self.keys_per_script) {
            if writing.len() == SCRIPTS_AT_ONCE {
                all_taken = writing.next().await.unwrap_or(Ok(())).and(all_taken);
            }
            writing.push(self.put_together(together));
        }
        while let Some(taken) = writing.next().await {
            all_taken = taken.and(all_taken);
        }
        all_taken
    }

    async fn put_together(&self, levels: &[Level]) -> Result<(), RedisAway> {
        let mut script = PUT.prepare_invoke();
        let mut asked = 0;
        for Level { product, as_of } in levels {
            // One that would have ended by now says nothing any more.
            let left = TTL.saturating_sub(as_of.elapsed()).as_millis();
            let left_ms = u64::try_from(left).unwrap_or(0);
            let Ok(json) = serde_json::to_vec(&product.product) else { continue };
            if left_ms > 0 {
                script.key(key(&product.product.sku)).arg(product.version).arg(json).arg(left_ms);
                asked += 1;
            }
        }
        self.metrics.wrote(Write::Late, levels.len() - asked);
        if asked == 0 {
            return Ok(());
        }
        match self.redis.invoke::<usize>(&script).await {
            Ok(written) => {
                self.metrics.wrote(Write::Stored, written);
                self.metrics.wrote(Write::NotNewer, asked.saturating_sub(written));
                Ok(())
            }
            Err(RedisAway) => {
                self.metrics.wrote(Write::Away, asked);
                Err(RedisAway)
            }
        }
    }
}
