//! One rate after the other until the system does not keep up any more: where saturation is, and what latency costs on
//! the way there.

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::audit::Audit;
use crate::endpoints::Endpoints;
use crate::http::{self, Http, Outcome};
use crate::out::say;
use crate::table::{Table, ms};

/// `load-test steps`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Orders a second, one step each, rising; ends with the first one that is not kept up with.
    #[arg(long, value_delimiter = ',', default_value = "250,500,1000,1500,2000,3000,4000,5000,6000,8000")]
    pub(crate) rates: Vec<u32>,
    /// Products that orders are spread over, a run of all steps for each: many, and one hot product.
    #[arg(long, value_delimiter = ',', default_value = "1000,1")]
    pub(crate) skus: Vec<usize>,
    /// Seconds of each step that count.
    #[arg(long, default_value_t = 15)]
    pub(crate) seconds: u32,
    /// Seconds before that, at the same rate, which do not count.
    #[arg(long, default_value_t = 5)]
    pub(crate) warm_up: u32,
}

/// All steps over that many products.
#[derive(Serialize)]
pub(crate) struct Steps {
    pub(crate) skus: usize,
    pub(crate) steps: Vec<Outcome>,
}

impl Steps {
    /// The highest rate that was kept up with.
    pub(crate) fn sustained(&self) -> Option<&Outcome> {
        self.steps.iter().rfind(|step| step.is_sustained())
    }

    /// The most orders that were completed in a second, whether or not more were offered.
    pub(crate) fn most_per_second(&self) -> f64 {
        self.steps.iter().map(|step| step.completed_per_second).fold(0.0, f64::max)
    }
}

/// Climbs.
pub(crate) async fn measure(endpoints: &Endpoints, options: &Options) -> anyhow::Result<Vec<Steps>> {
    let mut all = Vec::new();
    for skus in &options.skus {
        let shop = http::shop(endpoints, *skus).await?;
        let mut steps = Vec::new();
        for rate in &options.rates {
            let step = Http::at(*rate, options.seconds, options.warm_up, *skus);
            let step = http::measure(endpoints, &shop, &step).await?;
            eprintln!("  {skus} skus, {rate}/s offered: {:.0}/s completed", step.completed_per_second);
            let goes_on = step.is_sustained();
            steps.push(step);
            if !goes_on {
                break;
            }
        }
        all.push(Steps { skus: *skus, steps });
    }
    Ok(all)
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            "offered/s",
            "completed/s",
            "kept up",
            "202: p50, ms",
            "p99",
            "complete: p50, ms",
            "p95",
            "p99",
            "idle, %",
            "CPU/order, ms",
        ]);
        for step in &self.steps {
            let (taken, complete) = (step.seen.taken.figures(), step.seen.complete.figures());
            let kept_up = if step.is_sustained() { "yes" } else { "no" };
            table.row([
                format!("{:.0}", step.offered()),
                format!("{:.0}", step.completed_per_second),
                kept_up.to_owned(),
                ms(taken.p50),
                ms(taken.p99),
                ms(complete.p50),
                ms(complete.p95),
                ms(complete.p99),
                format!("{:.0}", step.usage.idle * 100.0),
                format!("{:.2}", step.cpu_ms_per_order()),
            ]);
        }
        let sustained = self.sustained().map_or(0.0, Outcome::offered);
        writeln!(f, "orders over {} skus: kept up with {sustained:.0}/s\n\n{table}", self.skus)
    }
}

/// `load-test steps`: whether every order ended as its payment says, and the audit is clean.
pub(crate) async fn run(endpoints: &Endpoints, options: &Options) -> anyhow::Result<bool> {
    let all = measure(endpoints, options).await?;
    let audit = Audit::run(endpoints).await?;
    for steps in &all {
        say(steps)?;
    }
    say(&audit)?;
    let wrong: u64 = all.iter().flat_map(|steps| &steps.steps).map(|step| step.seen.wrong).sum();
    Ok(wrong == 0 && audit.is_clean())
}
