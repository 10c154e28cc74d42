//! Rates by key, in bounded memory.

use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::edge::settings::Rate;

/// Most keys that are remembered; about 10 MB.
const MAX_KEYS: usize = 100_000;
/// How many requests pass between two looks at how many keys there are.
const LOOK_EVERY: usize = 1_024;

/// Counts requests by key.
pub(crate) struct Limited<K: Hash + Eq + Clone> {
    quota: Option<Quota>,
    limiter: RwLock<Arc<DefaultKeyedRateLimiter<K>>>,
    seen: AtomicUsize,
    max_keys: usize,
    clock: DefaultClock,
}

impl<K: Hash + Eq + Clone> fmt::Debug for Limited<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited").field("quota", &self.quota).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone> Limited<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self::with_keys(rate, MAX_KEYS)
    }

    fn with_keys(rate: Rate, max_keys: usize) -> Self {
        let quota = match (rate.per_second, rate.burst) {
            (Some(per_second), Some(burst)) => Some(Quota::per_second(per_second).allow_burst(burst)),
            (None, _) | (_, None) => None,
        };
        let unused = Quota::per_second(std::num::NonZeroU32::MIN);
        Self {
            quota,
            limiter: RwLock::new(Arc::new(RateLimiter::keyed(quota.unwrap_or(unused)))),
            seen: AtomicUsize::new(0),
            max_keys,
            clock: DefaultClock::default(),
        }
    }

    /// Counts one request.
    ///
    /// # Errors
    /// It was one too many; the next is let in after that time.
    pub(crate) fn count(&self, key: &K) -> Result<(), Duration> {
        let Some(quota) = self.quota else { return Ok(()) };
        if self.seen.fetch_add(1, Ordering::Relaxed) % LOOK_EVERY == LOOK_EVERY - 1 {
            self.forget(quota);
        }
        let limiter = self.limiter();
        limiter.check_key(key).map_err(|refused| refused.wait_time_from(self.clock.now()))
    }

    fn limiter(&self) -> Arc<DefaultKeyedRateLimiter<K>> {
        Arc::clone(&self.limiter.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets keys that have been quiet; all, if there are still too many: so many callers are no few that need slowing
    /// down, and memory must end somewhere.
    fn forget(&self, quota: Quota) {
        let limiter = self.limiter();
        if limiter.len() <= self.max_keys / 2 {
            return;
        }
        limiter.retain_recent();
        limiter.shrink_to_fit();
        if limiter.len() > self.max_keys {
            *self.limiter.write().unwrap_or_else(PoisonError::into_inner) =
                Arc::new(RateLimiter::keyed(quota));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second: NonZeroU32::new(per_second), burst: NonZeroU32::new(burst) }
    }

    #[test]
    fn a_burst_passes_and_then_each_key_waits_for_itself() {
        let limited = Limited::new(rate(1, 3));
        for _ in 0..3 {
            assert_eq!(limited.count(&1), Ok(()));
        }
        let wait = limited.count(&1).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(limited.count(&2), Ok(()));
        let unlimited = Limited::new(rate(0, 3));
        assert!((0..100).all(|_| unlimited.count(&1).is_ok()));
    }

    #[test]
    fn any_number_of_keys_fits_into_bounded_memory() {
        let max = 5_000;
        let limited = Limited::with_keys(rate(1, 1_000), max);
        let most = (0..50_000_u32)
            .map(|key| {
                let _let_in = limited.count(&key);
                limited.limiter().len()
            })
            .max();
        assert!(most.is_some_and(|most| most <= max + LOOK_EVERY), "{most:?}");
    }
}
