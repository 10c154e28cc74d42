//! The newest level of every sku, by this node's own tail of `stock-levels`, and its way into Redis.
//!
//! Every node feeds Redis: the highest version wins there. A node hands over what changes a count; a level that only says
//! how many units are held or sold does not.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain_types::Sku;
use futures::stream::{self, StreamExt as _};
use messaging::{Cluster, Record, TailFrom};
use schemas::{Envelope, StockLevel, StockLevelMessage, Topic};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::scripts;
use crate::intake::now;
use crate::redis::{Redis, RedisAway};

/// Levels that are handed over at the same time.
const AT_ONCE: usize = 64;
/// How long to wait when Redis is away.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// The newest levels. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Levels(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    newest: HashMap<Sku, StockLevel>,
    /// Skus whose level Redis has not got yet.
    to_feed: HashSet<Sku>,
}

impl Levels {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest level of a sku.
    pub(super) fn of(&self, sku: &Sku) -> Option<StockLevel> {
        self.seen().newest.get(sku).cloned()
    }

    /// All skus.
    pub(super) fn skus(&self) -> Vec<Sku> {
        self.seen().newest.keys().cloned().collect()
    }

    fn look_at(&self, record: &Record) {
        // An unreadable level is told by those who keep levels.
        let Ok(envelope) = Envelope::<StockLevelMessage>::decode(&record.value) else { return };
        let StockLevelMessage::StockLevel(level) = envelope.message;
        let mut seen = self.seen();
        let before = seen.newest.get(&level.sku);
        if before.is_some_and(|before| before.version >= level.version) {
            return;
        }
        let matters = before.is_none_or(|before| {
            (before.granted, before.product_version) != (level.granted, level.product_version)
        });
        if matters {
            seen.to_feed.insert(level.sku.clone());
        }
        seen.newest.insert(level.sku.clone(), level);
        drop(seen);
        if matters {
            self.0.more.notify_one();
        }
    }

    /// Follows `stock-levels` and feeds Redis until `shutdown`.
    pub(super) async fn run(self, cluster: Cluster, redis: Redis, shutdown: CancellationToken) {
        let seen = self.clone();
        let tail = messaging::tail(
            &cluster,
            Topic::StockLevels.name(),
            TailFrom::Beginning,
            // Who was told that a product is closed, or limited, expects the door to know.
            Duration::ZERO,
            shutdown.clone(),
            move |record| seen.look_at(&record),
        );
        let feeding = shutdown.run_until_cancelled(self.feed_all(&redis));
        let (tailed, _ended) = tokio::join!(tail, feeding);
        if let Err(error) = tailed {
            tracing::error!(%error, "the door no longer sees stock levels: the stock worker decides");
        }
    }

    async fn feed_all(&self, redis: &Redis) {
        loop {
            let skus: Vec<Sku> = self.seen().to_feed.drain().collect();
            if skus.is_empty() {
                self.0.more.notified().await;
                continue;
            }
            let fed = stream::iter(skus)
                .map(async |sku| (self.feed(redis, &sku).await, sku))
                .buffer_unordered(AT_ONCE)
                .collect::<Vec<_>>()
                .await;
            let failed: Vec<Sku> =
                fed.into_iter().filter(|(fed, _)| fed.is_err()).map(|(_, sku)| sku).collect();
            if !failed.is_empty() {
                self.seen().to_feed.extend(failed);
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }

    /// Hands the newest level of a sku over. `false`: there is none.
    pub(super) async fn feed(&self, redis: &Redis, sku: &Sku) -> Result<bool, RedisAway> {
        let Some(level) = self.of(sku) else { return Ok(false) };
        if scripts::feed(redis, &level, now(), None).await? {
            tracing::debug!(%sku, version = level.version, "admission counts anew");
        }
        Ok(true)
    }
}
