#![doc = include_str!("../README.md")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use endpoints::Endpoints;

mod audit;
mod bare;
mod catalogue;
mod database;
mod endpoints;
mod http;
mod kafka;
mod latency;
mod locks;
mod machine;
mod out;
mod report;
mod rivals;
mod sagas;
mod sale;
mod second;
mod slow;
mod spread;
mod steps;
mod stored;
mod table;
mod users;
mod watch;

/// The services' allocator: what is compared with them is not to lose by another one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Puts load on a running Firstcome and prints what it saw.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Where `firstcome up` says what runs where; by itself in the data folder, `FIRSTCOME_DATA_DIR` or .firstcome.
    #[arg(long, default_value_os_t = tool_kit::endpoints_file())]
    endpoints: PathBuf,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Complete sagas per second, commands straight onto order-saga.
    Sagas(sagas::Closed),
    /// What a saga costs at one rate after the other, commands straight onto order-saga (an open loop); ends with the audit.
    Paced(sagas::paced::Options),
    /// Latency of one order at a time.
    Idle(sagas::Idle),
    /// More customers than units storm the api, each of them several times at once.
    Sale(sale::Sale),
    /// Complete sagas ordered over HTTP at a pace of their own (an open loop); ends with the audit.
    Http(http::Http),
    /// Users who look, order, wait and look, one thing after the other (a closed loop); ends with the audit.
    Users(users::Options),
    /// Whether payments that the provider is slow to answer delay others: pairs of runs without and with them.
    Slow(slow::Options),
    /// What many stored orders cost: this system and a second one with few orders, in turn; ends with the audit.
    Stored(stored::Options),
    /// One rate after the other, until the system does not keep up any more.
    Steps(steps::Options),
    /// The floor: bare loops with the same round trips and nothing else, beside the running system's own figures.
    Bare(bare::Options),
    /// One hot product sold under each way of keeping buyers apart that people use.
    Locks(locks::Options),
    /// The same saga on workflow engines that people use, beside this product.
    Rivals(rivals::Options),
    /// All of these in turn, written as Markdown, JSON and plots.
    Report(report::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let endpoints = Endpoints::read(&cli.endpoints)?;
    let fine = match cli.scenario {
        Scenario::Sagas(closed) => print(&sagas::closed(&endpoints, &closed).await?)?,
        Scenario::Paced(options) => sagas::paced::run(&endpoints, &options).await?,
        Scenario::Idle(idle) => print(&sagas::idle(&endpoints, &idle).await?)?,
        Scenario::Sale(sale) => sale::run(&endpoints, &sale).await?,
        Scenario::Http(http) => http::run(&endpoints, &http).await?,
        Scenario::Users(options) => users::run(&endpoints, &options).await?,
        Scenario::Bare(options) => bare::run(&endpoints, &options).await?,
        Scenario::Slow(options) => slow::run(&endpoints, &options).await?,
        Scenario::Stored(options) => stored::run(&endpoints, &options).await?,
        Scenario::Steps(options) => steps::run(&endpoints, &options).await?,
        Scenario::Rivals(options) => rivals::run(&endpoints, &options).await?,
        Scenario::Report(options) => Box::pin(report::run(&endpoints, &options)).await?,
        Scenario::Locks(options) => locks::run(&endpoints, &options).await?,
    };
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(outcome: &sagas::Outcome) -> anyhow::Result<bool> {
    out::say(outcome)?;
    Ok(outcome.wrong == 0)
}
