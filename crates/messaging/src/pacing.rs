//! When to begin a transaction, and how long to wait after a failure. Pure: time comes in as a duration since some
//! fixed start.

use std::time::Duration;

/// A transaction that waited for a database that was away is no reason to rest for long.
const REST_AT_MOST: Duration = Duration::from_millis(250);

/// Bounds the transactions of a partition per second, without delaying the first ones after quiet: a token bucket.
///
/// A batch costs about the same however small it is, so under steady load fewer, larger batches save most of the
/// CPU; an idle system must not pay for that with latency.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    burst: f64,
    per_second: f64,
    tokens: f64,
    last: Duration,
    /// Times as long as a transaction took that none begins after it.
    rest: u32,
    /// The last transaction began then, and its end is not seen yet.
    begun: Option<Duration>,
    rest_until: Duration,
}

impl Pace {
    pub(crate) fn new(burst: u32, per_second: u32, rest: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self {
            burst,
            per_second: f64::from(per_second.max(1)),
            tokens: burst,
            last: Duration::ZERO,
            rest,
            begun: None,
            rest_until: Duration::ZERO,
        }
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst);
    }

    /// How long until the next transaction may begin; zero: now. Who `is_behind` has a full batch already: to rest would make
    /// it no larger, and let the log grow faster than it is read.
    pub(crate) fn wait(&mut self, now: Duration, is_behind: bool) -> Duration {
        self.refill(now);
        let token = if self.tokens >= 1.0 { 0.0 } else { (1.0 - self.tokens) / self.per_second };
        let rest = if is_behind { Duration::ZERO } else { self.rest_until.saturating_sub(now) };
        rest.max(Duration::from_secs_f64(token))
    }

    /// The transaction that began last, if there was one since, has ended, and what it led to is published.
    pub(crate) fn ended(&mut self, now: Duration) {
        if let Some(begun) = self.begun.take() {
            let rest = now.saturating_sub(begun).saturating_mul(self.rest);
            self.rest_until = now + rest.min(REST_AT_MOST);
        }
    }

    /// A transaction begins.
    pub(crate) fn spend(&mut self, now: Duration) {
        self.refill(now);
        self.tokens = (self.tokens - 1.0).max(-1.0);
        self.begun = Some(now);
    }
}

/// Waits that double.
#[derive(Debug, Clone)]
pub(crate) struct BackOff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl BackOff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    pub(crate) fn fail(&mut self) -> Duration {
        let wait = self.next;
        self.next = self.next.saturating_mul(2).min(self.max);
        wait
    }

    pub(crate) fn succeed(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_after_quiet_goes_at_once_and_steady_load_is_bounded() {
        let mut pace = Pace::new(2, 100, 0);
        let mut now = Duration::from_secs(5);
        let mut begun = 0;
        for _ in 0..10_000 {
            if pace.wait(now, false).is_zero() {
                pace.spend(now);
                begun += 1;
            }
            now += Duration::from_micros(100);
        }
        assert!((100..=104).contains(&begun), "one second at 100/s, after a burst of 2: {begun}");
        now += Duration::from_secs(1);
        assert!(pace.wait(now, false).is_zero(), "after quiet");
    }

    #[test]
    fn a_partition_rests_as_many_times_as_long_as_its_transaction_took() {
        let mut pace = Pace::new(8, 1_000, 3);
        let ms = Duration::from_millis;
        pace.spend(ms(100));
        pace.ended(ms(110));
        pace.ended(ms(111));
        assert_eq!(pace.wait(ms(110), false), ms(30), "10 ms of work");
        assert_eq!(pace.wait(ms(125), false), ms(15));
        assert_eq!(pace.wait(ms(110), true), ms(0), "a full batch waits");
        assert_eq!(pace.wait(ms(140), false), ms(0));
        pace.spend(ms(200));
        pace.ended(ms(201));
        assert_eq!(pace.wait(ms(60_000), false), ms(0), "quiet is no work");
        pace.spend(ms(61_000));
        pace.ended(ms(64_000));
        assert_eq!(pace.wait(ms(64_000), false), REST_AT_MOST, "nor is an outage");
    }

    #[test]
    fn waits_double_up_to_the_limit_and_start_again_after_success() {
        let mut back_off = BackOff::new(Duration::from_millis(10), Duration::from_millis(30));
        let waits: Vec<_> = (0..4).map(|_| back_off.fail().as_millis()).collect();
        assert_eq!(waits, [10, 20, 30, 30]);
        back_off.succeed();
        assert_eq!(back_off.fail().as_millis(), 10);
    }
}
