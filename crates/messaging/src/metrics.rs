//! Metrics of the runtime.

use prometheus::{
    HistogramVec, IntCounterVec, IntGaugeVec, Registry, exponential_buckets,
    register_histogram_vec_with_registry, register_int_counter_vec_with_registry,
    register_int_gauge_vec_with_registry,
};

/// Metrics of one process's consumers, labelled by topic and partition.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) records: IntCounterVec,
    pub(crate) batch_records: HistogramVec,
    pub(crate) transaction_seconds: HistogramVec,
    pub(crate) publish_seconds: HistogramVec,
    pub(crate) lag_records: IntGaugeVec,
    pub(crate) outbox_batches: IntGaugeVec,
    pub(crate) parked_keys: IntGaugeVec,
    pub(crate) take_overs: IntCounterVec,
    pub(crate) fencings: IntCounterVec,
    pub(crate) retries: IntCounterVec,
    pub(crate) control_ignored: IntCounterVec,
    pub(crate) read_again: IntCounterVec,
}

const LABELS: &[&str] = &["topic", "partition"];

impl Metrics {
    /// Registers the metrics; once per registry.
    ///
    /// # Errors
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter =
            |name: &str, help: &str| register_int_counter_vec_with_registry!(name, help, LABELS, registry);
        let gauge =
            |name: &str, help: &str| register_int_gauge_vec_with_registry!(name, help, LABELS, registry);
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            register_histogram_vec_with_registry!(name, help, LABELS, buckets, registry)
        };
        let seconds = || exponential_buckets(0.000_25, 2.0, 16);
        Ok(Self {
            records: counter("messaging_records_total", "records applied")?,
            batch_records: histogram(
                "messaging_batch_records",
                "records of a transaction",
                exponential_buckets(1.0, 2.0, 11)?,
            )?,
            transaction_seconds: histogram(
                "messaging_transaction_seconds",
                "duration of a transaction, handler included",
                seconds()?,
            )?,
            publish_seconds: histogram(
                "messaging_publish_seconds",
                "duration of a publication until its last acknowledgement",
                seconds()?,
            )?,
            lag_records: gauge("messaging_lag_records", "records of the log that are not applied yet")?,
            outbox_batches: gauge("messaging_outbox_batches", "batches committed and not acknowledged")?,
            parked_keys: gauge("messaging_parked_keys", "parking keys with parked records")?,
            take_overs: counter("messaging_take_overs_total", "partitions taken over")?,
            fencings: counter(
                "messaging_fencings_total",
                "ownerships lost to another owner or an unknown commit",
            )?,
            retries: counter("messaging_retries_total", "transactions rolled back and tried again")?,
            read_again: counter("messaging_read_again_total", "times that missing records were read again")?,
            control_ignored: counter(
                "messaging_control_ignored_total",
                "control records that meant nothing here",
            )?,
        })
    }
}
