#![doc = include_str!("../README.md")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kafka_cluster::{Cluster, Security};
use serde::Deserialize;

mod catalogue;
mod sagas;
mod sale;
mod watch;

/// Puts load on a running Firstcome and prints what it saw.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Where `firstcome up` says what runs where.
    #[arg(long, default_value = ".firstcome/endpoints.json")]
    endpoints: PathBuf,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Complete sagas per second, commands straight onto order-saga.
    Sagas(sagas::Closed),
    /// Latency of one order at a time.
    Idle(sagas::Idle),
    /// More customers than units storm the api, each of them several times at once.
    Sale(sale::Sale),
}

/// What of the file is needed here.
#[derive(Debug, Deserialize)]
struct Endpoints {
    api: Vec<String>,
    kafka: String,
    #[serde(default)]
    kafka_security: Security,
}

impl Endpoints {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| anyhow::anyhow!("{}: {error}; is Firstcome up?", path.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    fn cluster(&self) -> Cluster {
        Cluster::new(&self.kafka, &self.kafka_security)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let endpoints = Endpoints::read(&cli.endpoints)?;
    let fine = match cli.scenario {
        Scenario::Sagas(closed) => sagas::closed(&endpoints.cluster(), &closed).await?,
        Scenario::Idle(idle) => sagas::idle(&endpoints.cluster(), &idle).await?,
        // The development key is beside the file.
        Scenario::Sale(sale) => {
            sale::run(&endpoints, &cli.endpoints.with_file_name("keys.json"), &sale).await?
        }
    };
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
