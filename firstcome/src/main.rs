#![doc = include_str!("../README.md")]

mod catalogue;
mod cli;
mod client;
mod console;
mod demo;
mod detach;
mod down;
mod endpoints;
mod home;
mod keys;
mod overrides;
mod services;
mod status;
mod supervisor;
mod token;
mod topics;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let outcome = runtime.block_on(run(cli.command));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome.unwrap_or_else(|error| failed(&error))
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(options) => Box::pin(up::run(options.with_file()?)).await,
        Command::Down(options) => down::down(&options.home()).await,
        Command::Reset(options) => down::reset(&options).await,
        Command::Status(options) => status::run(&options).await,
        Command::Token(options) => token::run(&options),
        Command::Demo(options) => Box::pin(demo::run(&options)).await,
        Command::Topics(options) => topics::run(&options).await,
    }
}

/// One sentence, with its causes behind it.
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("firstcome: {error:#}");
    ExitCode::FAILURE
}
