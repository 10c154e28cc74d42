//! `simulate`: many schedules on all cores.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use simulation::{Planted, run, run_and_tell};

/// Runs seeded schedules of faults over the real cores, owners and handlers.
#[derive(Parser)]
struct Args {
    /// How many schedules.
    #[arg(long, default_value_t = 200_000)]
    schedules: u64,
    /// The first seed; the others follow.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run one seed, and tell what happened.
    #[arg(long)]
    seed: Option<u64>,
    /// Plant a bug, by its name.
    #[arg(long)]
    planted: Option<String>,
    /// Go on after a violation, and print one line for each.
    #[arg(long)]
    all: bool,
    /// Threads; all cores, if absent.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let planted = match &args.planted {
        None => None,
        Some(name) => {
            Some(Planted::ALL.iter().copied().find(|bug| format!("{bug:?}") == *name).ok_or_else(|| {
                anyhow::anyhow!("no planted bug is called {name}; there are {:?}", Planted::ALL)
            })?)
        }
    };
    match args.seed {
        Some(seed) => one(seed, planted),
        None => many(&args, planted),
    }
}

fn one(seed: u64, planted: Option<Planted>) -> anyhow::Result<ExitCode> {
    let outcome = run(seed, planted, true)?;
    for line in &outcome.story {
        println!("{line}");
    }
    println!("seed {seed}: {} orders, {} records, {} steps", outcome.orders, outcome.records, outcome.steps);
    report(&outcome.violations);
    Ok(code(outcome.violations.is_empty()))
}

fn report(violations: &[String]) {
    for violation in violations {
        println!("violation: {violation}");
    }
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(args: &Args, planted: Option<Planted>) -> anyhow::Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.unwrap_or(cores).max(1);
    let (next, done, records, failed) =
        (AtomicU64::new(args.from), AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.from.saturating_add(args.schedules) {
                        break;
                    }
                    let Ok(outcome) = run_and_tell(seed, planted) else { break };
                    done.fetch_add(1, Ordering::Relaxed);
                    records.fetch_add(outcome.records as u64, Ordering::Relaxed);
                    if let (true, Some(first)) = (args.all, outcome.violations.first()) {
                        println!("seed {seed}: {first}");
                    } else if !outcome.violations.is_empty() && !failed.swap(true, Ordering::Relaxed) {
                        let from = outcome.story.len().saturating_sub(60);
                        for line in outcome.story.iter().skip(from) {
                            println!("{line}");
                        }
                        report(&outcome.violations);
                        println!("again, with the whole story: make simulate ARGS=\"--seed {seed}\"");
                    }
                }
            });
        }
    });
    let (done, seconds) = (done.load(Ordering::Relaxed), started.elapsed().as_secs_f64());
    println!(
        "{done} schedules in {seconds:.1} s ({:.0} per second on {threads} threads), {} records",
        done as f64 / seconds,
        records.load(Ordering::Relaxed)
    );
    Ok(code(!failed.load(Ordering::Relaxed)))
}
