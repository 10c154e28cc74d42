//! `endpoints.json`: what runs where, and what lies beside the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use kafka_cluster::{Cluster, Security};
use serde::Deserialize;

/// What of the file is needed here.
#[derive(Debug, Deserialize)]
pub(crate) struct Endpoints {
    pub(crate) api: Vec<String>,
    kafka: String,
    #[serde(default)]
    kafka_security: Security,
    pub(crate) redis: String,
    /// Database URLs by service.
    pub(crate) postgres: BTreeMap<String, Vec<String>>,
    /// The folder of the file.
    #[serde(skip)]
    pub(crate) home: PathBuf,
}

impl Endpoints {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| anyhow::anyhow!("{}: {error}; is Firstcome up?", path.display()))?;
        let mut endpoints: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is not right", path.display()))?;
        anyhow::ensure!(!endpoints.api.is_empty(), "{} names no api", path.display());
        endpoints.home = path.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(endpoints)
    }

    pub(crate) fn cluster(&self) -> Cluster {
        Cluster::new(&self.kafka, &self.kafka_security)
    }

    /// The development key, which tokens are signed with.
    pub(crate) fn keys(&self) -> PathBuf {
        self.home.join("keys.json")
    }

    /// `HOST:PORT` of the api's nodes.
    pub(crate) fn addresses(&self) -> anyhow::Result<Vec<String>> {
        let address = |url: &String| {
            let address = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/').to_owned());
            address.with_context(|| {
                format!("{url} does not begin with http://, which is all that is spoken here")
            })
        };
        self.api.iter().map(address).collect()
    }

    /// A database of that name on the server that the stock worker uses.
    pub(crate) fn database(&self, name: &str) -> anyhow::Result<String> {
        let url = self.postgres.get("stock").and_then(|urls| urls.first());
        let url = url.context("endpoints.json names no stock database")?;
        let (server, _stock) = url.rsplit_once('/').context("the stock database's url names no database")?;
        Ok(format!("{server}/{name}"))
    }
}
