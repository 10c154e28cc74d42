//! Figures of the product cache.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Where a reader's answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Hit,
    Miss,
    /// Redis did not answer; the projection did, or nobody.
    Away,
}

/// What became of an entry that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    Stored,
    NotNewer,
    Away,
    /// Too old to say anything.
    Late,
    /// Too many waited.
    Dropped,
}

/// Counts reads and writes.
#[derive(Debug, Clone)]
pub(super) struct CacheMetrics {
    reads: IntCounterVec,
    pub(super) loads: IntCounter,
    writes: IntCounterVec,
}

impl CacheMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reads = IntCounterVec::new(
            Opts::new(
                "api_product_reads_total",
                "Reads of a product by what the cache said: hit, miss, away",
            ),
            &["cache"],
        )?;
        let loads =
            IntCounter::new("api_product_loads_total", "Products looked up in the database for readers")?;
        let writes = IntCounterVec::new(
            Opts::new(
                "api_product_cache_writes_total",
                "Products to be written to the cache by what became of it",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(reads.clone()))?;
        registry.register(Box::new(loads.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        Ok(Self { reads, loads, writes })
    }

    pub(super) fn read(&self, read: Read, readers: usize) {
        let cache = match read {
            Read::Hit => "hit",
            Read::Miss => "miss",
            Read::Away => "away",
        };
        self.reads.with_label_values(&[cache]).inc_by(readers as u64);
    }

    pub(super) fn wrote(&self, write: Write, entries: usize) {
        let outcome = match write {
            Write::Stored => "stored",
            Write::NotNewer => "not_newer",
            Write::Away => "away",
            Write::Late => "late",
            Write::Dropped => "dropped",
        };
        self.writes.with_label_values(&[outcome]).inc_by(entries as u64);
    }
}
