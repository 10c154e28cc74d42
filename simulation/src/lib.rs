#![doc = include_str!("../README.md")]

mod actors;
mod calm;
mod checks;
mod database;
mod fleet;
mod member;
mod network;
mod planted;
mod ports;
mod provider;
mod rng;
mod schedule;
mod services;
mod world;

pub use planted::Planted;
pub use schedule::Outcome;

/// Runs the schedule of a seed, on this thread. With `planted` that bug is in it; with `with_story` the outcome says what
/// happened. The same arguments give the same outcome on any machine.
///
/// # Errors
/// If no runtime can be made.
pub fn run(seed: u64, planted: Option<Planted>, with_story: bool) -> std::io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(async { schedule::Sim::new(seed, planted, with_story).run().await }))
}

/// Runs a schedule, and once more with its story if it found something.
///
/// # Errors
/// If no runtime can be made.
pub fn run_and_tell(seed: u64, planted: Option<Planted>) -> std::io::Result<Outcome> {
    let outcome = run(seed, planted, false)?;
    if outcome.violations.is_empty() { Ok(outcome) } else { run(seed, planted, true) }
}
