//! Complete sagas ordered over HTTP, as an open loop: orders come at their own pace, whatever becomes of those before
//! them, and latency counts from the instant at which each was to be sent. So a system that stands still is seen by
//! all that would have come meanwhile.

pub(crate) mod client;
pub(crate) mod count;
pub(crate) mod drive;
pub(crate) mod plan;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::audit::Audit;
use crate::catalogue::PLENTY;
use crate::endpoints::Endpoints;
use crate::latency::Latency;
use crate::machine::{Processes, Usage};
use crate::out::say;
use crate::table::{Table, ms};
use crate::watch::{Watch, watch};
use client::Connection;
use count::{Count, Seen};
use drive::{Shop, customers, drive};
use plan::{Mix, Plan};

/// How long nothing may happen before what is still on its way is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Customers who order in turn: enough that none comes near the limit of one.
pub(crate) const CUSTOMERS: usize = 10_000;

/// `load-test http`
#[derive(Debug, Clone, Args)]
pub(crate) struct Http {
    /// Requests a second.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) rate: u32,
    /// Seconds that count.
    #[arg(long, default_value_t = 30)]
    pub(crate) seconds: u32,
    /// Seconds before that, at the same rate, which do not count.
    #[arg(long, default_value_t = 10)]
    pub(crate) warm_up: u32,
    /// Products that orders are spread over; 1: one hot product.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) skus: usize,
    /// Of a hundred orders, how many have a payment that is declined.
    #[arg(long, default_value_t = 10)]
    pub(crate) declined: u32,
    /// Of a hundred orders, how many have a payment that the customer abandons.
    #[arg(long, default_value_t = 0)]
    pub(crate) abandoned: u32,
    /// Of a hundred orders, how many come without a payment: they are complete when they wait for it.
    #[arg(long, default_value_t = 0)]
    pub(crate) unpaid: u32,
    /// Of a hundred orders, how many have a payment that the provider approves after three seconds; they are counted apart.
    #[arg(long, default_value_t = 0)]
    pub(crate) slow: u32,
    /// Of a hundred requests, how many only read: a product, or the customer's latest five orders.
    #[arg(long, default_value_t = 0)]
    pub(crate) reads: u32,
    /// Most requests at once, each on a connection of its own; what waits for one waits from when it was to be sent.
    #[arg(long, default_value_t = 256)]
    pub(crate) connections: usize,
    /// Decides who orders what, and what becomes of it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print one JSON value.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Http {
    /// The defaults at another rate and for another time.
    pub(crate) const fn at(rate: u32, seconds: u32, warm_up: u32, skus: usize) -> Self {
        Self {
            rate,
            seconds,
            warm_up,
            skus,
            declined: 10,
            abandoned: 0,
            unpaid: 0,
            slow: 0,
            reads: 0,
            connections: 256,
            seed: 1,
            json: false,
        }
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        anyhow::ensure!(self.rate > 0, "--rate must be at least 1");
        anyhow::ensure!(
            self.declined + self.abandoned + self.unpaid + self.slow <= 100 && self.reads < 100,
            "--declined, --abandoned, --unpaid and --slow are at most 100 together, and --reads is below 100"
        );
        let Self { declined, abandoned, unpaid, slow, reads, .. } = *self;
        Ok(Plan {
            per_second: f64::from(self.rate),
            warm_up: Duration::from_secs(self.warm_up.into()),
            steady: Duration::from_secs(self.seconds.max(1).into()),
            mix: Mix { declined, abandoned, unpaid, slow, reads },
            skus: self.skus.max(1),
            customers: CUSTOMERS,
            seed: self.seed,
        })
    }
}

/// What one rate brought.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    /// Orders completed a second.
    pub(crate) completed_per_second: f64,
    pub(crate) seen: Seen,
    /// Over the steady time and the drain.
    pub(crate) usage: Usage,
}

impl Outcome {
    /// Every request was answered as it should be, and every order ended as its payment says.
    pub(crate) fn is_right(&self) -> bool {
        let others = self.seen.answers.keys().filter(|answer| !answer.starts_with('2')).count();
        others == 0 && self.seen.wrong == 0 && self.seen.unended == 0
    }

    /// Whether the system kept up: right answers, completed at nineteen twentieths of the pace at least.
    pub(crate) fn is_sustained(&self) -> bool {
        self.is_right() && self.completed_per_second >= 0.95 * self.offered()
    }

    /// Orders a second that were to be sent.
    pub(crate) fn offered(&self) -> f64 {
        self.plan.per_second * f64::from(100 - self.plan.mix.reads) / 100.0
    }

    /// Milliseconds of the system's CPU per order; reads are counted in.
    pub(crate) fn cpu_ms_per_order(&self) -> f64 {
        self.usage.of_system_s() * 1e3 / plan::to_f64(self.seen.completed().max(1))
    }
}

/// Drives a plan against a shop.
pub(crate) async fn measure(
    endpoints: &Endpoints,
    shop: &Arc<Shop>,
    options: &Http,
) -> anyhow::Result<Outcome> {
    let plan = options.plan()?;
    let mut watch = watch(&endpoints.cluster());
    hear(shop, &mut watch).await?;
    let processes = Processes::of(&endpoints.home);
    let (begin, mut answers) = drive(shop, &plan, options.connections)?;
    let mut count = Count::new(&plan, begin);
    let (steady_from, mut before) = (begin + plan.warm_up, None);
    let (mut is_answered, mut last) = (false, Instant::now());
    while !is_answered || count.on_their_way > 0 {
        if before.is_none() && Instant::now() >= steady_from {
            before = Some(processes.begin());
        }
        tokio::select! {
            answered = answers.recv(), if !is_answered => match answered {
                Some(answered) => count.answered(answered),
                None => is_answered = true,
            },
            ended = watch.ended.recv() => match ended {
                Some(ended) => count.ended(&ended),
                None => anyhow::bail!("order-events can't be heard any more"),
            },
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                if is_answered && last.elapsed() > PATIENCE {
                    break;
                }
                continue;
            }
        }
        last = Instant::now();
    }
    let usage = processes.end(&before.unwrap_or_else(|| processes.begin()));
    let (seen, completed_per_second) = count.finish(plan.steady);
    Ok(Outcome { plan, completed_per_second, seen, usage })
}

/// The watch begins at the end of the log, some time after it was asked to: orders are placed until one is heard of.
pub(crate) async fn hear(shop: &Shop, watch: &mut Watch) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut connection = Connection::new(shop.addresses.first().context("no api")?)?;
    loop {
        let answer = shop.order_once(&mut connection).await?;
        anyhow::ensure!(answer.status.is_success(), "an order was answered {}", answer.status);
        if let Ok(Some(_heard)) = tokio::time::timeout(Duration::from_secs(1), watch.ended.recv()).await {
            return Ok(());
        }
        anyhow::ensure!(begun.elapsed() < PATIENCE, "nothing was heard of an order within {PATIENCE:?}");
    }
}

/// `load-test http`: whether everything was right, and the audit clean.
pub(crate) async fn run(endpoints: &Endpoints, options: &Http) -> anyhow::Result<bool> {
    let outcome = alone(endpoints, options).await?;
    let audit = Audit::run(endpoints).await?;
    if options.json {
        say(serde_json::json!({"outcome": outcome, "audit": audit}))?;
    } else {
        say(format_args!("{outcome}\n{audit}"))?;
    }
    Ok(outcome.is_right() && audit.is_clean())
}

/// Drives a plan against a shop of its own.
pub(crate) async fn alone(endpoints: &Endpoints, options: &Http) -> anyhow::Result<Outcome> {
    let shop = shop(endpoints, options.skus).await?;
    measure(endpoints, &shop, options).await
}

/// A shop for scenarios that follow each other.
pub(crate) async fn shop(endpoints: &Endpoints, skus: usize) -> anyhow::Result<Arc<Shop>> {
    Ok(Arc::new(Shop::open(endpoints, skus, PLENTY, &customers(CUSTOMERS)).await?))
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, completed_per_second, seen, usage } = self;
        let Mix { declined, abandoned, unpaid, slow, reads } = plan.mix;
        writeln!(
            f,
            "{:.0} requests/s for {} s after {} s to warm up, {} skus; of a hundred orders {declined} declined, {abandoned} \
             abandoned, {unpaid} unpaid, {slow} slow; of a hundred requests {reads} reads; seed {}\n",
            plan.per_second,
            plan.steady.as_secs(),
            plan.warm_up.as_secs(),
            plan.skus,
            plan.seed
        )?;
        let mut table = Table::new(["latency, ms", "count", "p50", "p95", "p99", "max"]);
        let mut row = |name: &str, latency: &Latency| {
            let figures = latency.figures();
            let times = [figures.p50, figures.p95, figures.p99, figures.max].map(ms);
            table.row([name.to_owned(), figures.tries.to_string()].into_iter().chain(times));
        };
        row("sent (what the load was late)", &seen.sent);
        row("order taken (202)", &seen.taken);
        row("order complete (order-events)", &seen.complete);
        if slow > 0 {
            row("complete, paid slowly", &seen.slow);
        }
        for (name, latency) in &seen.reads {
            row(&format!("read: {name}"), latency);
        }
        writeln!(f, "{table}")?;
        let counts = |all: Vec<(String, u64)>| {
            all.into_iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        writeln!(
            f,
            "answers: {}",
            counts(seen.answers.iter().map(|(name, count)| (name.clone(), *count)).collect())
        )?;
        writeln!(
            f,
            "orders: {}; ended otherwise than their payment says: {}; not ended: {}",
            counts(seen.ends.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()),
            seen.wrong,
            seen.unended
        )?;
        writeln!(
            f,
            "complete: {completed_per_second:.0} orders/s of {:.0} offered; {:.2} ms of the system's CPU per order",
            self.offered(),
            self.cpu_ms_per_order()
        )?;
        writeln!(f, "{usage}")
    }
}
