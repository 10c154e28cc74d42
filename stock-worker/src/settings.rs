//! Settings.

use std::net::SocketAddr;

use kafka_cluster::{Cluster, Security};
use serde::Deserialize;

/// All settings with what they mean, as TOML.
pub const EXAMPLE_SETTINGS: &str = include_str!("../stock-worker.example.toml");

/// Settings of the stock worker. There is no `Debug`: the database's url may hold a password.
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
}

const fn parked_records() -> usize {
    messaging::PARKED_RECORDS
}

const fn default_connections() -> u32 {
    8
}

fn default_admin_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9102))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_settings_are_settings_and_show_the_defaults() {
        let example: Settings = toml::from_str(EXAMPLE_SETTINGS).unwrap();
        assert_eq!(example.database_connections, default_connections());
        assert_eq!(example.admin_listen, default_admin_listen());
        assert!(toml::from_str::<Settings>(&format!("{EXAMPLE_SETTINGS}\nunknown = 1")).is_err());
    }
}
