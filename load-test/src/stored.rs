//! What many stored orders cost: the same figures while few are stored, and once many are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use domain_types::CustomerId;
use serde::Serialize;
use tokio::time::Instant;

use crate::audit::Audit;
use crate::catalogue::PLENTY;
use crate::endpoints::Endpoints;
use crate::http::drive::{Shop, customers};
use crate::http::{self, CUSTOMERS, Http};
use crate::latency::Latency;
use crate::machine::Processes;
use crate::sagas::{self, Closed, Idle};
use crate::spread::Spread;
use crate::table::{Table, ms};

/// Orders that each customer has before anything is measured: as many as are read.
const FIRST_ORDERS: usize = 5;
/// Orders stored between two lines of progress.
const AT_ONCE: usize = 100_000;
/// What the load leaves behind (vacuum, checkpoints, read models) is over when the machine is idle for so much of a while ...
const QUIET: (f64, Duration) = (0.85, Duration::from_secs(5));
/// ... or does not count as the load's any more.
const QUIET_WITHIN: Duration = Duration::from_secs(600);

/// `load-test stored`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Orders to store: complete sagas, as many of each of 10,000 customers. An order takes 6 KB of disk, and 0.7 KB of memory in the audit.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) orders: usize,
    /// Rounds of measuring before, and after.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    /// Requests a second over HTTP, half of them orders and half reads.
    #[arg(long, default_value_t = 200)]
    pub(crate) rate: u32,
    /// Seconds of each run over HTTP that count.
    #[arg(long, default_value_t = 15)]
    pub(crate) seconds: u32,
    /// Complete sagas of each round, straight onto order-saga.
    #[arg(long, default_value_t = 30_000)]
    pub(crate) sagas: usize,
}

/// What one round saw.
#[derive(Serialize)]
pub(crate) struct Round {
    sagas_per_second: f64,
    idle: Latency,
    complete: Latency,
    latest: Latency,
    product: Latency,
    memory_mib: BTreeMap<String, f64>,
    /// Seconds of CPU over HTTP.
    cpu_s: BTreeMap<String, f64>,
}

/// What was seen before and after.
#[derive(Serialize)]
pub(crate) struct Stored {
    orders: usize,
    few: Vec<Round>,
    many: Vec<Round>,
    /// Orders that ended otherwise than their payment says.
    pub(crate) wrong: usize,
}

/// A figure of a round, by its name, and whether more of it is better.
type Named = (&'static str, fn(&Round) -> f64, bool);

/// All figures but memory.
const FIGURES: [Named; 7] = [
    ("complete sagas/s", |round| round.sagas_per_second, true),
    ("one at a time: p50, ms", |round| round.idle.figures().p50, false),
    ("one at a time: p99, ms", |round| round.idle.figures().p99, false),
    ("ordered over HTTP, complete: p50, ms", |round| round.complete.figures().p50, false),
    ("ordered over HTTP, complete: p95, ms", |round| round.complete.figures().p95, false),
    ("latest five orders: p95, ms", |round| round.latest.figures().p95, false),
    ("product: p95, ms", |round| round.product.figures().p95, false),
];

impl Options {
    /// The figures of that many rounds, which store that many orders between them.
    pub(crate) const fn sized(orders: usize, rounds: u32, seconds: u32, sagas: usize) -> Self {
        Self { orders, rounds, rate: 200, seconds, sagas }
    }
}

/// What was seen before most orders are stored.
pub(crate) struct Few {
    buyers: Vec<CustomerId>,
    shop: Arc<Shop>,
    rounds: Vec<Round>,
}

/// `load-test stored`: whether every order ended as its payment says, and the audit is clean.
pub(crate) async fn run(endpoints: &Endpoints, options: &Options) -> anyhow::Result<bool> {
    let few = few(endpoints, options).await?;
    let stored = many(endpoints, options, few).await?;
    let audit = Audit::run(endpoints).await?;
    println!("{stored}\n{audit}");
    Ok(stored.wrong == 0 && audit.is_clean())
}

/// Measures while few orders are stored: those of each customer that are read later.
pub(crate) async fn few(endpoints: &Endpoints, options: &Options) -> anyhow::Result<Few> {
    let buyers = customers(CUSTOMERS);
    let shop = Arc::new(Shop::open(endpoints, 1_000, PLENTY, &buyers).await?);
    let wrong = store(endpoints, &buyers, FIRST_ORDERS * CUSTOMERS).await?;
    anyhow::ensure!(wrong == 0, "{wrong} orders ended otherwise than their payment says");
    let rounds = rounds(endpoints, &shop, options, "few").await?;
    Ok(Few { buyers, shop, rounds })
}

/// Stores the others, and measures again.
pub(crate) async fn many(endpoints: &Endpoints, options: &Options, few: Few) -> anyhow::Result<Stored> {
    let Few { buyers, shop, rounds: few } = few;
    let wrong = store(endpoints, &buyers, options.orders).await?;
    let many = rounds(endpoints, &shop, options, "many").await?;
    Ok(Stored { orders: options.orders, few, many, wrong })
}

async fn rounds(
    endpoints: &Endpoints,
    shop: &Arc<Shop>,
    options: &Options,
    what: &str,
) -> anyhow::Result<Vec<Round>> {
    settle(endpoints).await;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds.max(1) {
        eprintln!("  round {number} with {what} orders stored ...");
        rounds.push(round(endpoints, shop, options).await?);
    }
    Ok(rounds)
}

/// Has orders placed and ended; how many ended otherwise than their payment says.
async fn store(endpoints: &Endpoints, buyers: &[CustomerId], orders: usize) -> anyhow::Result<usize> {
    let (mut stored, mut wrong) = (0, 0);
    while stored < orders {
        let some = (orders - stored).min(AT_ONCE);
        let closed = Closed { customers: buyers.to_vec(), ..Closed::of(some, 1_000) };
        let outcome = sagas::closed(endpoints, &closed).await?;
        wrong += outcome.wrong;
        stored += some;
        eprintln!("  {stored} of {orders} orders stored, {:.0}/s", outcome.per_second);
    }
    Ok(wrong)
}

/// Waits until the machine has come to rest.
async fn settle(endpoints: &Endpoints) {
    let (quiet, moment) = QUIET;
    let (processes, begun) = (Processes::of(&endpoints.home), Instant::now());
    let mut idle = 0.0;
    while idle < quiet && begun.elapsed() < QUIET_WITHIN {
        let before = processes.begin();
        tokio::time::sleep(moment).await;
        idle = processes.end(&before).idle;
    }
    eprintln!("  after {} s the machine is idle for {:.0} %", begun.elapsed().as_secs(), idle * 100.0);
}

async fn round(endpoints: &Endpoints, shop: &Arc<Shop>, options: &Options) -> anyhow::Result<Round> {
    let sagas = sagas::closed(endpoints, &Closed::of(options.sagas, 1_000)).await?;
    let idle = sagas::idle(endpoints, &Idle { orders: 200, pause_ms: 50 }).await?;
    let mixed = Http { reads: 50, ..Http::at(options.rate, options.seconds, 5, 1_000) };
    let mixed = http::measure(endpoints, shop, &mixed).await?;
    anyhow::ensure!(sagas.wrong == 0 && idle.wrong == 0 && mixed.is_right(), "not every order ended right");
    let read = |name: &str| mixed.seen.reads.get(name).cloned().unwrap_or_default();
    Ok(Round {
        sagas_per_second: sagas.per_second,
        idle: idle.latency,
        latest: read("latest five orders"),
        product: read("product"),
        complete: mixed.seen.complete,
        memory_mib: mixed.usage.memory_mib,
        cpu_s: mixed.usage.cpu_s,
    })
}

impl Stored {
    /// The medians of a figure before and after.
    fn medians(&self, of: impl Fn(&Round) -> f64) -> (f64, f64) {
        let median =
            |rounds: &[Round]| Spread::of(rounds.iter().map(&of)).map_or(0.0, |spread| spread.median);
        (median(&self.few), median(&self.many))
    }

    /// The figure that became worse by most, how many times as bad it is, and the latest five orders' p95 in ms.
    pub(crate) fn worst(&self) -> (&'static str, f64, f64) {
        let worse = FIGURES.iter().map(|(name, of, is_more_better)| {
            let (few, many) = self.medians(of);
            (*name, if *is_more_better { few / many.max(0.001) } else { many / few.max(0.001) })
        });
        let (name, ratio) = worse.max_by(|(_, one), (_, other)| one.total_cmp(other)).unwrap_or(("", 0.0));
        (name, ratio, self.medians(|round| round.latest.figures().p95).1)
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} orders stored between the two; of {} rounds each the median\n",
            self.orders,
            self.few.len()
        )?;
        let mut table = Table::new(["figure", "few stored", "many stored", "ratio"]);
        let mut row = |name: &str, (few, many): (f64, f64), shown: &dyn Fn(f64) -> String| {
            table.row([name.to_owned(), shown(few), shown(many), format!("{:.2}", many / few.max(0.001))]);
        };
        let whole = |figure: f64| format!("{figure:.0}");
        for (name, of, is_more_better) in FIGURES {
            row(name, self.medians(of), if is_more_better { &whole } else { &ms });
        }
        let mut by_process =
            |what: &str, of: fn(&Round) -> &BTreeMap<String, f64>, shown: &dyn Fn(f64) -> String| {
                let processes = self.few.iter().chain(&self.many).flat_map(|round| of(round).keys());
                for process in processes.collect::<BTreeSet<_>>() {
                    let one = |round: &Round| of(round).get(process).copied().unwrap_or_default();
                    row(&format!("{what} of {process}"), self.medians(one), shown);
                }
            };
        by_process("ordered over HTTP, CPU in s", |round| &round.cpu_s, &|figure| format!("{figure:.1}"));
        by_process("memory in MiB", |round| &round.memory_mib, &whole);
        write!(f, "{table}")
    }
}
