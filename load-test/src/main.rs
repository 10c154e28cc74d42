#![doc = include_str!("../README.md")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kafka_cluster::{Cluster, Security};
use serde::Deserialize;

mod catalogue;
mod sagas;
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
}

/// What of the file is needed here.
#[derive(Debug, Deserialize)]
struct Endpoints {
    kafka: String,
    #[serde(default)]
    kafka_security: Security,
}

fn cluster(endpoints: &PathBuf) -> anyhow::Result<Cluster> {
    let text = std::fs::read_to_string(endpoints)
        .map_err(|error| anyhow::anyhow!("{}: {error}; is Firstcome up?", endpoints.display()))?;
    let endpoints: Endpoints = serde_json::from_str(&text)?;
    Ok(Cluster::new(&endpoints.kafka, &endpoints.kafka_security))
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let cluster = cluster(&cli.endpoints)?;
    let fine = match cli.scenario {
        Scenario::Sagas(closed) => sagas::closed(&cluster, &closed).await?,
        Scenario::Idle(idle) => sagas::idle(&cluster, &idle).await?,
    };
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
