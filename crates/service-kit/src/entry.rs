//! A service's command line.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::load_settings;

/// What a service's command line says about it.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// The binary's name.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// Environment variables begin with this and two underscores.
    pub env_prefix: &'static str,
    /// All settings with their defaults and what they mean, as TOML.
    pub example_settings: &'static str,
}

/// A token that is cancelled by SIGTERM or SIGINT.
pub fn shutdown_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(mut terminate), Ok(mut interrupt)) => {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                tracing::info!("shutting down");
                cancelled.cancel();
            }
            (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "signals can't be handled"),
        }
    });
    token
}

/// `main` of a service: reads the command line and settings, then runs until a signal comes.
pub fn main_entry<S, F, Run>(service: Service, run: F) -> ExitCode
where
    S: DeserializeOwned,
    F: FnOnce(S, CancellationToken) -> Run,
    Run: Future<Output = anyhow::Result<()>>,
{
    let help = format!(
        "Settings (file given by --config; each can be set as {}__NAME too):\n\n{}",
        service.env_prefix, service.example_settings
    );
    let matches = clap::Command::new(service.name)
        .about(service.about)
        .version(env!("CARGO_PKG_VERSION"))
        .arg(clap::arg!(--config <FILE> "TOML file with settings").value_parser(clap::value_parser!(PathBuf)))
        .arg(clap::arg!(--"check-config" "Read the settings, say whether they are right, and end"))
        .after_help(help)
        .get_matches();
    let settings: S =
        match load_settings(matches.get_one::<PathBuf>("config").map(PathBuf::as_path), service.env_prefix) {
            Ok(settings) => settings,
            Err(error) => {
                eprintln!("{}: {:#}", service.name, anyhow::Error::from(error));
                return ExitCode::from(2);
            }
        };
    if matches.get_flag("check-config") {
        println!("{}: settings are fine", service.name);
        return ExitCode::SUCCESS;
    }
    init_logs();
    match run_to_end(|| run(settings, shutdown_signal())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "{} failed", service.name);
            ExitCode::FAILURE
        }
    }
}

fn run_to_end<Run: Future<Output = anyhow::Result<()>>>(run: impl FnOnce() -> Run) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async { run().await });
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    result
}

/// What services log unless they are told otherwise.
pub const DEFAULT_LOGS: &str = "info,sqlx=warn,librdkafka=error,rdkafka=error";

/// What is logged, by level and target: what this environment variable says (`info,api=debug`), else `default`. One that can't be read is
/// named on standard error.
pub fn log_filter(variable: &str, default: &str) -> Targets {
    let asked = std::env::var(variable).ok().and_then(|text| match text.parse() {
        Ok(filter) => Some(filter),
        Err(error) => {
            eprintln!("{variable}={text} is no log filter ({error}); taking {default}");
            None
        }
    });
    let default =
        || default.parse().unwrap_or_else(|_bad_default| Targets::new().with_default(LevelFilter::INFO));
    asked.unwrap_or_else(default)
}

/// Logs on standard error: JSON with `LOG_FORMAT=json`, else lines for people. `RUST_LOG` filters.
fn init_logs() {
    let filter = log_filter("RUST_LOG", DEFAULT_LOGS);
    let logs = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
    if std::env::var("LOG_FORMAT").is_ok_and(|format| format == "json") {
        logs.json().finish().with(filter).init();
    } else {
        logs.with_ansi(false).finish().with(filter).init();
    }
}
