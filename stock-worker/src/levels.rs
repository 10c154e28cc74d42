//! The watch over `stock-levels`: an older level that lands behind a newer one (a predecessor's late publish) would
//! stay the last one for ever in a compacted topic, so the owner publishes the present one again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use domain_types::Sku;
use messaging::{Record, Waker};
use schemas::{Envelope, StockLevelMessage};

/// What one process has seen in `stock-levels`, and what its owners are to publish again. Topics of a service have
/// the same partitions, so a level's partition is its product's.
#[derive(Debug, Clone, Default)]
pub struct LevelWatch(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    seen: HashMap<Sku, Seen>,
    /// One past the last offset seen of each partition.
    next: HashMap<i32, i64>,
    owners: HashMap<i32, Owner>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    highest: i64,
    last: i64,
}

#[derive(Debug)]
struct Owner {
    epoch: i64,
    waker: Waker,
    outdated: BTreeSet<Sku>,
    /// The levels up to here were there when the partition was taken over: wake the owner once they are seen.
    end_at_take_over: i64,
}

impl LevelWatch {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes note of a record of `stock-levels`.
    pub fn observe(&self, record: &Record) {
        let sku = record.key_str().and_then(|key| Sku::new(key).ok());
        // Nobody can read it, and it hides the level before it: like an older one.
        let version = match Envelope::<StockLevelMessage>::decode(&record.value) {
            Ok(Envelope { message: StockLevelMessage::StockLevel(level), .. }) => level.version,
            Err(error) => {
                tracing::warn!(%error, offset = record.offset.0, "a stock level can't be read");
                0
            }
        };
        self.with(|inner| inner.observe(record.partition, record.offset.0, sku, version));
    }

    /// This process owns a partition from now on, whose levels end at `end`.
    pub(crate) fn taken_over(&self, partition: i32, epoch: i64, waker: Waker, end: i64) {
        self.with(|inner| {
            let owner = Owner { epoch, waker, outdated: BTreeSet::new(), end_at_take_over: end };
            inner.owners.insert(partition, owner);
        });
    }

    /// This process does not own it any more (unless it has taken it over again since).
    pub(crate) fn left(&self, partition: i32, epoch: i64) {
        self.with(|inner| {
            if inner.owners.get(&partition).is_some_and(|owner| owner.epoch == epoch) {
                inner.owners.remove(&partition);
            }
        });
    }

    /// Whether all levels that were there at the take-over have been seen.
    pub(crate) fn has_caught_up(&self, partition: i32) -> bool {
        self.with(|inner| {
            let next = inner.next.get(&partition).copied().unwrap_or(0);
            inner.owners.get(&partition).is_some_and(|owner| next >= owner.end_at_take_over)
        })
    }

    /// The version of the last level seen of a product; 0 if there is none.
    pub(crate) fn last_seen(&self, sku: &Sku) -> i64 {
        self.with(|inner| inner.seen.get(sku).map_or(0, |seen| seen.last))
    }

    /// Takes up to `limit` products whose level is to be published again.
    pub(crate) fn take_outdated(&self, partition: i32, limit: usize) -> Vec<Sku> {
        self.with(|inner| {
            let Some(owner) = inner.owners.get_mut(&partition) else { return Vec::new() };
            let taken: Vec<Sku> = owner.outdated.iter().take(limit).cloned().collect();
            for sku in &taken {
                owner.outdated.remove(sku);
            }
            if !owner.outdated.is_empty() {
                owner.waker.wake();
            }
            taken
        })
    }

    /// Gives back what was taken and not published; wakes the owner.
    pub(crate) fn give_back(&self, partition: i32, skus: Vec<Sku>) {
        self.with(|inner| {
            if let Some(owner) = inner.owners.get_mut(&partition).filter(|_| !skus.is_empty()) {
                owner.outdated.extend(skus);
                owner.waker.wake();
            }
        });
    }
}

impl Inner {
    fn observe(&mut self, partition: i32, offset: i64, sku: Option<Sku>, version: i64) {
        let next = self.next.entry(partition).or_insert(0);
        let was = *next;
        *next = offset.saturating_add(1).max(was);
        let caught_up = |owner: &Owner| was < owner.end_at_take_over && offset >= owner.end_at_take_over - 1;
        if let Some(owner) = self.owners.get(&partition).filter(|owner| caught_up(owner)) {
            owner.waker.wake();
        }
        let Some(sku) = sku else { return };
        let seen = self.seen.entry(sku.clone()).or_insert(Seen { highest: 0, last: 0 });
        *seen = Seen { highest: seen.highest.max(version), last: version };
        if version < seen.highest
            && let Some(owner) = self.owners.get_mut(&partition)
        {
            owner.outdated.insert(sku);
            owner.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(end: i64) -> LevelWatch {
        let watch = LevelWatch::default();
        watch.taken_over(0, 1, Waker::default(), end);
        watch
    }

    fn observe(watch: &LevelWatch, offset: i64, sku: &str, version: i64) {
        watch.with(|inner| inner.observe(0, offset, Sku::new(sku).ok(), version));
    }

    #[test]
    fn an_older_level_behind_a_newer_one_is_outdated_and_a_repeat_is_not() {
        let watch = watch(0);
        for (offset, version) in [(0, 1), (1, 3), (2, 3), (3, 4)] {
            observe(&watch, offset, "SHOE", version);
        }
        assert!(watch.take_outdated(0, 10).is_empty());
        observe(&watch, 4, "SHOE", 2);
        let outdated = watch.take_outdated(0, 10);
        assert_eq!(outdated, [Sku::new("SHOE").unwrap()]);
        assert!(watch.take_outdated(0, 10).is_empty(), "taken twice");
        watch.give_back(0, outdated);
        assert_eq!(watch.take_outdated(0, 10).len(), 1);
    }

    #[test]
    fn levels_of_other_owners_are_left_to_them() {
        let watch = watch(0);
        watch.left(0, 1);
        observe(&watch, 0, "SHOE", 2);
        observe(&watch, 1, "SHOE", 1);
        watch.taken_over(0, 2, Waker::default(), 2);
        assert!(watch.take_outdated(0, 10).is_empty());
        assert_eq!(watch.last_seen(&Sku::new("SHOE").unwrap()), 1, "the check at take-over finds it");
        watch.left(0, 1);
        assert!(watch.has_caught_up(0), "a former ownership's end does not end this one");
    }

    #[test]
    fn the_watch_has_caught_up_when_the_end_at_take_over_is_seen() {
        let watch = watch(2);
        assert!(!watch.has_caught_up(0));
        observe(&watch, 0, "SHOE", 1);
        assert!(!watch.has_caught_up(0));
        observe(&watch, 1, "SHOE", 2);
        assert!(watch.has_caught_up(0));
    }
}
