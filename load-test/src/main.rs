#![doc = include_str!("../README.md")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

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

fn brokers(endpoints: &PathBuf) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(endpoints)
        .map_err(|error| anyhow::anyhow!("{}: {error}; is Firstcome up?", endpoints.display()))?;
    let endpoints: serde_json::Value = serde_json::from_str(&text)?;
    let kafka = endpoints.get("kafka").and_then(serde_json::Value::as_str);
    Ok(kafka.ok_or_else(|| anyhow::anyhow!("the endpoints file names no kafka"))?.to_owned())
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let brokers = brokers(&cli.endpoints)?;
    let fine = match cli.scenario {
        Scenario::Sagas(closed) => sagas::closed(&brokers, &closed).await?,
        Scenario::Idle(idle) => sagas::idle(&brokers, &idle).await?,
    };
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
