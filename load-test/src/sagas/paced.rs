//! One rate after the other, each an open loop: what a saga costs, and how long it takes, at that rate.

use std::fmt;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::{Outcome, Run};
use crate::audit::Audit;
use crate::endpoints::Endpoints;
use crate::latency::{Figures, Latency};
use crate::machine::Processes;
use crate::out::say;
use crate::table::{Table, ms};

/// `load-test paced`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Orders a second, one run each: an open loop, in which an order's latency begins at the instant that was its own.
    #[arg(long, value_delimiter = ',', default_value = "100,300,1000,3000,10000",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rates: Vec<u32>,
    /// Products they are spread over; 1: one hot product.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) skus: usize,
    /// Seconds of each run that count.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u32,
    /// Seconds before that, at the same rate, which do not count.
    #[arg(long, default_value_t = 5)]
    pub(crate) warm_up: u32,
    /// Of a hundred payments, how many are declined.
    #[arg(long, default_value_t = 10)]
    pub(crate) declined: usize,
}

/// A run at one rate.
#[derive(Serialize)]
pub(crate) struct AtRate {
    pub(crate) rate: u32,
    pub(crate) outcome: Outcome,
}

/// All rates, one after the other.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Rates(pub(crate) Vec<AtRate>);

impl Rates {
    /// Whether every order ended as its payment says.
    pub(crate) fn is_right(&self) -> bool {
        self.0.iter().all(|run| run.outcome.wrong == 0)
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "offered/s",
            "completed/s",
            "p50, ms",
            "p95",
            "p99",
            "idle, %",
            "CPU/saga, us",
            "of each process",
        ];
        let mut table = Table::new(head);
        for AtRate { rate, outcome } in &self.0 {
            let Figures { p50, p95, p99, .. } = outcome.latency.figures();
            table.row([
                rate.to_string(),
                format!("{:.0}", outcome.per_second),
                ms(p50),
                ms(p95),
                ms(p99),
                format!("{:.0}", outcome.usage.idle * 100.0),
                format!("{:.0}", outcome.cpu_us()),
                outcome.cpu_per_saga(),
            ]);
        }
        write!(f, "{table}")
    }
}

/// Measures at each rate.
pub(crate) async fn measure(endpoints: &Endpoints, options: &Options) -> anyhow::Result<Rates> {
    let mut all = Vec::new();
    for rate in options.rates.iter().copied() {
        let mut run = Run::prepare(&endpoints.cluster(), options.skus.max(1)).await?;
        let processes = Processes::of(&endpoints.home);
        let (warm_up, counted) =
            (rate.saturating_mul(options.warm_up), rate.saturating_mul(options.seconds.max(1)));
        let begun = Instant::now();
        let instant = |number: usize| {
            begun + Duration::from_secs_f64(u32::try_from(number).map_or(0.0, f64::from) / f64::from(rate))
        };
        run.open(0..warm_up as usize, options.declined, instant).await?;
        (run.since, run.latency) = (instant(warm_up as usize), Latency::default());
        let before = processes.begin();
        let numbers = warm_up as usize..warm_up.saturating_add(counted) as usize;
        run.open(numbers, options.declined, instant).await?;
        while !run.under_way.is_empty() {
            run.hear().await?;
        }
        let (took, usage) = (run.since.elapsed(), processes.end(&before));
        let outcome = run.outcome(format!("{rate} sagas/s"), took, counted as usize, usage);
        eprintln!("  {rate}/s offered: {:.0}/s completed", outcome.per_second);
        all.push(AtRate { rate, outcome });
    }
    Ok(Rates(all))
}

/// `load-test paced`: whether every order ended as its payment says, and the audit is clean.
pub(crate) async fn run(endpoints: &Endpoints, options: &Options) -> anyhow::Result<bool> {
    let rates = measure(endpoints, options).await?;
    let audit = Audit::run(endpoints).await?;
    say(format_args!("{rates}\n{audit}"))?;
    Ok(rates.is_right() && audit.is_clean())
}
