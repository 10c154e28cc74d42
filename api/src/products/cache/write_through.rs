//! From the projection to the cache: what a batch stored is written after its commit, by a task of its own, so that the
//! projection never waits for Redis.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain_types::Sku;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::entries::{Entries, TTL};
use super::metrics::{CacheMetrics, Write};
use crate::products::model::Versioned;

/// Skus that wait while Redis is away or slow; more are left to the end of their entries.
const WAITING_SKUS: usize = 10_000;
/// Pause before it is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// A product as the database said that it is, no earlier than `as_of`.
#[derive(Debug, Clone)]
pub(crate) struct Level {
    pub(crate) product: Versioned,
    pub(crate) as_of: Instant,
}

/// Levels that are stored and not yet in the cache: the newest of each sku. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct WriteThrough(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: Mutex<HashMap<Sku, Level>>,
    arrived: Notify,
    entries: Entries,
}

impl WriteThrough {
    pub(super) fn new(entries: Entries) -> Self {
        let (waiting, arrived) = (Mutex::default(), Notify::new());
        Self(Arc::new(Shared { waiting, arrived, entries }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Sku, Level>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn metrics(&self) -> &CacheMetrics {
        self.0.entries.metrics()
    }

    /// Leaves levels that are committed.
    pub(crate) fn stored(&self, levels: Vec<Level>) {
        self.wait(levels);
        self.0.arrived.notify_one();
    }

    fn wait(&self, levels: Vec<Level>) {
        let mut dropped = 0;
        let mut waiting = self.lock();
        for level in levels {
            let has_room = waiting.len() < WAITING_SKUS;
            match waiting.entry(level.product.product.sku.clone()) {
                Entry::Occupied(mut known) if known.get().product.version < level.product.version => {
                    known.insert(level);
                }
                Entry::Occupied(_as_new) => {}
                Entry::Vacant(free) if has_room => {
                    free.insert(level);
                }
                Entry::Vacant(_no_room) => dropped += 1,
            }
        }
        drop(waiting);
        self.metrics().wrote(Write::Dropped, dropped);
    }

    /// Writes what arrives until `end`, and then what waits.
    pub(crate) async fn run(self, end: CancellationToken) {
        while !end.is_cancelled() {
            tokio::select! {
                () = self.0.arrived.notified() => {}
                () = end.cancelled() => {}
            }
            while self.write().await && !end.is_cancelled() {
                tokio::select! {
                    () = tokio::time::sleep(TRY_AGAIN) => {}
                    () = end.cancelled() => {}
                }
            }
        }
    }

    /// Writes what waits; whether to try again soon, because Redis did not take it.
    async fn write(&self) -> bool {
        let levels: Vec<Level> = std::mem::take(&mut *self.lock()).into_values().collect();
        if levels.is_empty() || self.0.entries.put(&levels).await.is_ok() {
            return false;
        }
        // Until an older entry of it must have ended.
        self.wait(levels.into_iter().filter(|level| level.as_of.elapsed() < TTL).collect());
        true
    }
}
