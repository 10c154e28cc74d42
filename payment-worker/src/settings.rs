//! Settings. Durations are in milliseconds or seconds, as their names say.

use std::net::SocketAddr;
use std::time::Duration;

use kafka_cluster::{Cluster, Security};
use payment_domain::Policy;
use secrecy::SecretString;
use serde::Deserialize;

/// All settings with what they mean, as TOML.
pub const EXAMPLE_SETTINGS: &str = include_str!("../payment-worker.example.toml");

/// Settings of the payment worker. There is no `Debug`: the database's url may hold a password.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Kafka: `host:port,...`.
    pub brokers: String,
    /// How Kafka lets us in.
    #[serde(default, deserialize_with = "kafka_cluster::checked")]
    pub kafka_security: Security,
    /// The service's own database.
    pub database_url: String,
    /// Further databases of its own, for some of the partitions; the same for every replica, in the same order.
    #[serde(default)]
    pub more_database_urls: Vec<String>,
    /// Connections to it; each owned partition uses one while it works.
    #[serde(default = "default_connections")]
    pub database_connections: u32,
    /// Health, readiness and metrics.
    #[serde(default = "default_admin_listen")]
    pub admin_listen: SocketAddr,
    /// Static member id of the consumer group.
    #[serde(default)]
    pub instance_id: Option<String>,
    /// Records of a partition that may be set aside; with one more the partition stands still.
    #[serde(default = "parked_records")]
    pub parked_records: usize,
    /// Bounds on provider calls.
    #[serde(default)]
    pub calls: CallSettings,
    /// The simulated provider, used unless there is an `http_provider`.
    #[serde(default)]
    pub provider: SimulatedSettings,
    /// A provider over HTTP.
    #[serde(default)]
    pub http_provider: Option<HttpSettings>,
}

/// Bounds on provider calls.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallSettings {
    /// Most calls in flight, over all partitions of the process.
    pub at_once: usize,
    /// Most charges of a partition whose next call is in memory; the others wait in their rows.
    pub in_memory: usize,
    /// Pause before the first repeat of a call whose outcome is unknown; doubles with each further one.
    pub first_retry_ms: u64,
    /// The longest pause.
    pub longest_retry_ms: u64,
    /// An outcome unknown for so long is handed to an operator.
    pub unknown_limit_s: u64,
    /// With a provider that can't void a key it has not seen: how late a request may still arrive there.
    pub late_request_limit_s: u64,
}

impl Default for CallSettings {
    fn default() -> Self {
        Self {
            at_once: 1_024,
            in_memory: 10_000,
            first_retry_ms: 250,
            longest_retry_ms: 60_000,
            unknown_limit_s: 86_400,
            late_request_limit_s: 3_600,
        }
    }
}

impl CallSettings {
    pub(crate) const fn policy(&self) -> Policy {
        Policy {
            first_retry: Duration::from_millis(self.first_retry_ms),
            longest_retry: Duration::from_millis(self.longest_retry_ms),
            unknown_limit: Duration::from_secs(self.unknown_limit_s),
            late_request_limit: Duration::from_secs(self.late_request_limit_s),
        }
    }
}

/// The simulated provider. Rates are from 0 to 1 and are for `tok_random`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimulatedSettings {
    /// So many customers leave the payment page.
    pub abandon: f64,
    /// So many of the others are declined.
    pub decline: f64,
    /// So many of the others are over their limit.
    pub over_limit: f64,
    /// So many first answers are lost; a query finds the outcome.
    pub unknown: f64,
    /// How long every call takes.
    pub latency_ms: u64,
    /// The same seed and order give the same outcome.
    pub seed: u64,
}

impl Default for SimulatedSettings {
    fn default() -> Self {
        Self { abandon: 0.2, decline: 0.2, over_limit: 0.0, unknown: 0.0, latency_ms: 0, seed: 1 }
    }
}

/// A provider over HTTP; its wire format is in the README.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// Where its API begins, e.g. `https://pay.example.com/v1`.
    pub base_url: String,
    /// Bearer token.
    #[serde(default)]
    pub token: Option<SecretString>,
    /// How long one exchange may take.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// How long connecting may take.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Repeats of an exchange that failed, within a call.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// Pause before the first of them; doubles.
    #[serde(default = "default_retry_pause_ms")]
    pub retry_pause_ms: u64,
    /// So many failures in a row open the circuit breaker.
    #[serde(default = "default_breaker_failures")]
    pub breaker_failures: u32,
    /// How long it stays open before one call tries again.
    #[serde(default = "default_breaker_open_ms")]
    pub breaker_open_ms: u64,
}

const fn parked_records() -> usize {
    messaging::PARKED_RECORDS
}

const fn default_connections() -> u32 {
    8
}

fn default_admin_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9103))
}

const fn default_timeout_ms() -> u64 {
    5_000
}

const fn default_connect_timeout_ms() -> u64 {
    1_000
}

const fn default_retries() -> u32 {
    1
}

const fn default_retry_pause_ms() -> u64 {
    100
}

const fn default_breaker_failures() -> u32 {
    5
}

const fn default_breaker_open_ms() -> u64 {
    5_000
}

/// Settings that can't be worked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// A rate is not from 0 to 1.
    #[error("provider.{0} is a rate from 0 to 1")]
    Rate(&'static str),
    /// A bound is 0.
    #[error("calls.{0} is at least 1")]
    Bound(&'static str),
}

impl Settings {
    /// Home first.
    pub(crate) fn database_urls(&self) -> Vec<&str> {
        std::iter::once(&self.database_url).chain(&self.more_database_urls).map(String::as_str).collect()
    }

    /// Which Kafka, and how it lets us in.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        Cluster::new(&self.brokers, &self.kafka_security)
    }

    /// Checks what types can't say.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        let provider = &self.provider;
        let rates = [
            ("abandon", provider.abandon),
            ("decline", provider.decline),
            ("over_limit", provider.over_limit),
            ("unknown", provider.unknown),
        ];
        if let Some((name, _)) = rates.into_iter().find(|(_, rate)| !(0.0..=1.0).contains(rate)) {
            return Err(InvalidSettings::Rate(name));
        }
        let bounds = [("at_once", self.calls.at_once), ("in_memory", self.calls.in_memory)];
        match bounds.into_iter().find(|(_, bound)| *bound == 0) {
            Some((name, _)) => Err(InvalidSettings::Bound(name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_settings_are_settings_and_show_the_defaults() {
        let example: Settings = toml::from_str(EXAMPLE_SETTINGS).unwrap();
        let least: Settings = toml::from_str("brokers = \"b\"\ndatabase_url = \"d\"").unwrap();
        assert_eq!(example.database_connections, least.database_connections);
        assert_eq!(example.admin_listen, least.admin_listen);
        assert_eq!(format!("{:?}", example.calls), format!("{:?}", least.calls));
        assert_eq!(format!("{:?}", example.provider), format!("{:?}", least.provider));
        assert!(least.http_provider.is_none());
        assert!(toml::from_str::<Settings>(&format!("unknown = 1\n{EXAMPLE_SETTINGS}")).is_err());
    }

    #[test]
    fn a_rate_above_one_and_a_bound_of_zero_are_refused() {
        let mut settings: Settings = toml::from_str(EXAMPLE_SETTINGS).unwrap();
        assert_eq!(settings.check(), Ok(()));
        settings.calls.at_once = 0;
        assert_eq!(settings.check(), Err(InvalidSettings::Bound("at_once")));
        settings.provider.decline = 1.1;
        assert_eq!(settings.check(), Err(InvalidSettings::Rate("decline")));
    }
}
