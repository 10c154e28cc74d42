//! `endpoints.json`: where everything is. Part of the public contract.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context;
use kafka_cluster::Security;
use serde::{Deserialize, Serialize};

use crate::home::{Home, write_private};

/// Addresses of a running system, all on loopback unless yours are used. Holds the database's password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    /// Base URLs of the api's nodes; the first one has the port that was asked for.
    pub(crate) api: Vec<String>,
    /// Bootstrap address.
    pub(crate) kafka: String,
    /// How Kafka lets us in; not there if it lets everybody in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) kafka_security: Security,
    pub(crate) redis: String,
    /// Database URLs by service.
    pub(crate) postgres: BTreeMap<String, Vec<String>>,
    /// URL of `/metrics` by replica (`api-1`); `/healthz` and `/readyz` are beside it.
    pub(crate) metrics: BTreeMap<String, String>,
}

fn is_default(security: &Security) -> bool {
    *security == Security::default()
}

impl Endpoints {
    pub(crate) fn write(&self, home: &Home) -> anyhow::Result<()> {
        write_private(&home.endpoints(), &(serde_json::to_string_pretty(self)? + "\n"))
    }

    /// Of the running system.
    pub(crate) fn read(home: &Home) -> anyhow::Result<Self> {
        let path = home.endpoints();
        if home.owner().is_none() || !path.exists() {
            anyhow::bail!("nothing is running in {}; start it with `firstcome up`", home.dir().display());
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not right", path.display()))
    }

    pub(crate) fn first_api(&self) -> anyhow::Result<&str> {
        self.api.first().map(String::as_str).context("endpoints.json names no api")
    }
}
