//! Settings of the api.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use kafka_cluster::{Cluster, Security};
use schemas::{Policy, SAGA_DEFINITION};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::edge::EdgeSettings;
use crate::notices::MailSettings;
use crate::orders::live::LiveSettings;

/// Settings of one api node. See `settings.toml` for what each means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address of the public port; port 0 takes a free one.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// Address of the admin port; port 0 takes a free one.
    #[serde(default = "admin_listen")]
    pub admin_listen: SocketAddr,
    /// Kafka, `host:port,...`.
    pub brokers: String,
    /// How Kafka lets us in.
    #[serde(default, deserialize_with = "kafka_cluster::checked")]
    pub kafka_security: Security,
    /// PostgreSQL URL of the api's own database.
    pub database_url: String,
    /// Redis: one server, or some nodes of a cluster. What is in it is a hint; the api works without it.
    #[serde(default = "redis_urls")]
    pub redis_urls: Vec<String>,
    /// Whether `redis_urls` are nodes of a Redis Cluster.
    #[serde(default)]
    pub redis_cluster: bool,
    /// PEM file of the authority that signed the certificates of a Redis at `rediss://`; without it the system's.
    #[serde(default)]
    pub redis_ca_file: Option<PathBuf>,
    /// Connections for requests; the projection has [`Settings::projection_connections`] of its own.
    #[serde(default = "request_connections")]
    pub request_connections: u32,
    /// Connections of the projection.
    #[serde(default = "projection_connections")]
    pub projection_connections: u32,
    /// The keys that tokens are verified with.
    pub keys_file: PathBuf,
    /// `iss` of a token.
    #[serde(default = "issuer")]
    pub issuer: String,
    /// `aud` of a token.
    #[serde(default = "audience")]
    pub audience: String,
    /// First part of the names of the consumer groups; the same for all nodes of one database.
    #[serde(default = "consumer_group")]
    pub consumer_group: String,
    /// Name of this node, if a restart keeps it: it gets its partitions back at once.
    #[serde(default)]
    pub instance_id: Option<String>,
    /// Records of a partition that may be set aside; with one more the partition stands still.
    #[serde(default = "parked_records")]
    pub parked_records: usize,
    /// How long after its arrival an order may reach the log, milliseconds.
    #[serde(default = "publish_within_ms")]
    pub publish_within_ms: u64,
    /// How long after that an order without a saga is published once more, milliseconds.
    #[serde(default = "republish_after_ms")]
    pub republish_after_ms: u64,
    /// Deadlines of orders placed from now on.
    #[serde(default)]
    pub policy: Policy,
    /// The definition of the saga that orders placed from now on begin, and end, with.
    #[serde(default = "saga_definition", deserialize_with = "known_definition")]
    pub saga_definition: u16,
    /// How customers hear about their payments by mail; without it they don't, and no address is kept.
    #[serde(default)]
    pub mail: Option<MailSettings>,
    /// Limits of live answers.
    #[serde(default)]
    pub live: LiveSettings,
    /// Limits and headers of the public port.
    #[serde(default)]
    pub edge: EdgeSettings,
}

impl Settings {
    /// What is in [`Settings::redis_ca_file`].
    pub(crate) fn redis_authority(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let read = |file: &PathBuf| {
            std::fs::read(file).with_context(|| format!("redis_ca_file {} can't be read", file.display()))
        };
        self.redis_ca_file.as_ref().map(read).transpose()
    }

    /// Which Kafka, and how it lets us in.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        Cluster::new(&self.brokers, &self.kafka_security)
    }
}

fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}

fn admin_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn redis_urls() -> Vec<String> {
    vec!["redis://127.0.0.1:6379/".to_owned()]
}

const fn parked_records() -> usize {
    messaging::PARKED_RECORDS
}

const fn request_connections() -> u32 {
    8
}

const fn projection_connections() -> u32 {
    8
}

/// Follows [`SAGA_DEFINITION`] a release later: a build that knows a definition comes before one that writes it.
const fn saga_definition() -> u16 {
    2
}

fn known_definition<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let definition = u16::deserialize(deserializer)?;
    if (1..=SAGA_DEFINITION).contains(&definition) {
        Ok(definition)
    } else {
        Err(D::Error::custom(format!("saga_definition must be 1 to {SAGA_DEFINITION}, not {definition}")))
    }
}

fn issuer() -> String {
    "firstcome".to_owned()
}

fn audience() -> String {
    "firstcome-api".to_owned()
}

fn consumer_group() -> String {
    "api".to_owned()
}

const fn publish_within_ms() -> u64 {
    30_000
}

const fn republish_after_ms() -> u64 {
    5_000
}
