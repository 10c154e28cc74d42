#![doc = include_str!("../README.md")]

mod at;
mod audit;
mod cli;
mod dead_letters;
mod describe;
mod failure;
mod filter;
mod graph;
mod list;
mod log;
mod rebuild;
mod replay;
mod servers;
mod show;
mod steer;
mod terminal;
mod top;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{Cli, Command};
use crate::terminal::Terminal;

pub use failure::{Failure, Verdict};
pub use replay::{Drift, DriftAt, DriftKind, Replayed, Rules, Selection, replay};

/// The program: reads the command line, does it, and says how it went by its exit code: 0 fine, 1 something found, 2 usage, 3
/// a dependency away.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // What the client libraries log is not for operators, unless they ask.
    let filter = service_kit::log_filter("SAGACTL_LOG", "off");
    let logs = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
    logs.finish().with(filter).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sagactl: {error}");
            return ExitCode::from(3);
        }
    };
    let verdict = runtime.block_on(run(cli));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match verdict {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Found) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("sagactl: {}", terminal::plain(&failure.to_string()));
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn run(cli: Cli) -> Result<Verdict, Failure> {
    let terminal = Terminal::new(&cli.output)?;
    let servers = cli.servers;
    match cli.command {
        Command::List(options) => list::run(&servers, &options, &terminal).await,
        Command::Show(options) => show::run(&servers, &options, &terminal).await,
        Command::Top(options) => top::run(&servers, &options, &terminal).await,
        Command::Graph(options) => graph::run(&servers, &options, &terminal).await,
        Command::At(options) => at::at(&servers, &options, &terminal).await,
        Command::Diff(options) => at::diff(&servers, &options, &terminal).await,
        Command::Replay(options) => replay::run(&servers, &options, &terminal).await,
        Command::Audit(options) => audit::run(&servers, &options, &terminal).await,
        Command::Rebuild(options) => rebuild::run(&servers, &options, &terminal).await,
        Command::Pause(options) => steer::run(&servers, steer::Act::Pause, &options, &terminal).await,
        Command::Resume(options) => steer::run(&servers, steer::Act::Resume, &options, &terminal).await,
        Command::Compensate(options) => {
            steer::run(&servers, steer::Act::Compensate, &options, &terminal).await
        }
        Command::Retry(options) => {
            let act = steer::Act::Retry { step: options.step, line: options.line };
            steer::run(&servers, act, &options.steer, &terminal).await
        }
        Command::Skip(options) => {
            let act = steer::Act::Skip { step: options.step, settled_by: options.settled_by };
            steer::run(&servers, act, &options.steer, &terminal).await
        }
        Command::DeadLetters(command) => dead_letters::run(&servers, &command, &terminal).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "sagactl", &mut std::io::stdout());
            Ok(Verdict::Fine)
        }
        Command::Man { dir } => {
            clap_mangen::generate_to(Cli::command(), &dir)
                .map_err(|error| Failure::usage(format!("cannot write to {}: {error}", dir.display())))?;
            Ok(Verdict::Fine)
        }
    }
}
