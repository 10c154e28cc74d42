//! Latencies: HDR histograms of microseconds, three digits exact.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// Latencies that can be put together. It grows as needed.
#[derive(Default, Clone)]
pub(crate) struct Latency(Option<Histogram<u64>>);

impl Latency {
    pub(crate) fn record(&mut self, latency: Duration) {
        if self.0.is_none() {
            self.0 = Histogram::new(3).ok();
        }
        if let Some(histogram) = &mut self.0 {
            // Only a latency of centuries has no place.
            histogram.record(u64::try_from(latency.as_micros()).unwrap_or_default()).ok();
        }
    }

    /// Takes over all of another one's.
    pub(crate) fn merge(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (Some(mine), Some(theirs)) => {
                // Both have the same precision, and this one grows.
                mine.add(theirs).ok();
            }
            (mine @ None, theirs) => *mine = theirs.clone(),
            (Some(_), None) => {}
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        let Some(histogram) = &self.0 else { return Figures::default() };
        let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1e3;
        Figures {
            tries: histogram.len(),
            mean: histogram.mean() / 1e3,
            p50: ms(histogram.value_at_quantile(0.5)),
            p95: ms(histogram.value_at_quantile(0.95)),
            p99: ms(histogram.value_at_quantile(0.99)),
            max: ms(histogram.max()),
        }
    }
}

/// Milliseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) tries: u64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.figures().serialize(serializer)
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { tries, mean: _, p50, p95, p99, max } = self.figures();
        write!(f, "{tries:>8} {p50:>9.1} {p95:>9.1} {p99:>9.1} {max:>9.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(millis: std::ops::RangeInclusive<u64>) -> Latency {
        let mut latency = Latency::default();
        millis.for_each(|ms| latency.record(Duration::from_millis(ms)));
        latency
    }

    #[test]
    fn parts_put_together_are_the_whole() {
        let mut parts = of(1..=40);
        parts.merge(&Latency::default());
        parts.merge(&of(41..=100));
        assert_eq!(parts.figures(), of(1..=100).figures());
        let mut empty = Latency::default();
        empty.merge(&parts);
        assert_eq!(empty.figures().tries, 100);
    }

    #[test]
    fn quantiles_are_exact_to_three_digits() {
        let Figures { p50, p99, max, .. } = of(1..=1_000).figures();
        for (found, expected) in [(p50, 500.0), (p99, 990.0), (max, 1_000.0)] {
            assert!((found - expected).abs() / expected < 0.001, "{found} is not {expected}");
        }
    }
}
