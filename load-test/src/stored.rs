//! What many stored orders cost: the same figures of this system and of one that has few, in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use domain_types::CustomerId;
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use crate::audit::Audit;
use crate::catalogue::PLENTY;
use crate::endpoints::Endpoints;
use crate::http::drive::{Shop, customers};
use crate::http::{self, CUSTOMERS, Http};
use crate::latency::Latency;
use crate::machine::Processes;
use crate::out::say;
use crate::sagas::{self, Closed, Idle};
use crate::second::Second;
use crate::spread::{Spread, in_turn};
use crate::table::{Table, ms};

/// Orders that each customer has before anything is measured: as many as are read.
const FIRST_ORDERS: usize = 5;
/// Orders of a round that come one at a time.
const ONE_BY_ONE: usize = 200;
/// Seconds of each run over HTTP that do not count.
const WARM_UP_S: u32 = 5;
/// Orders stored between two lines of progress.
const AT_ONCE: usize = 100_000;
/// What the load leaves behind is over when the machine is idle for so much of each such moment (checkpoints, read models), and no vacuum
/// of PostgreSQL's own runs, whose rests between pages leave the machine idle, too ...
const QUIET: (f64, Duration) = (0.85, Duration::from_secs(5));
/// ... for longer than `autovacuum_naptime`, within which it looks once at each database whether a vacuum is due ...
const QUIET_FOR: Duration = Duration::from_secs(60);
/// ... or, after so long, does not count as the load's any more.
const QUIET_WITHIN: Duration = Duration::from_secs(600);

/// `load-test stored`
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// Orders to store: complete sagas, as many of each of 10,000 customers. An order takes 6 KB of disk, and 0.7 KB of memory in the audit.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) orders: usize,
    /// Rounds with few and with many orders stored, in turn; one more comes first and does not count.
    #[arg(long, default_value_t = 7)]
    pub(crate) pairs: u32,
    /// Requests a second over HTTP, half of them orders and half reads.
    #[arg(long, default_value_t = 200)]
    pub(crate) rate: u32,
    /// Seconds of each run over HTTP that count.
    #[arg(long, default_value_t = 15)]
    pub(crate) seconds: u32,
    /// Complete sagas of each round, straight onto order-saga.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) sagas: usize,
}

/// What one round saw.
#[derive(Serialize)]
struct Round {
    sagas_per_second: f64,
    idle: Latency,
    complete: Latency,
    latest: Latency,
    product: Latency,
    memory_mib: BTreeMap<String, f64>,
    /// Microseconds of CPU per saga, as many at once as there can be.
    saturated_us: BTreeMap<String, f64>,
    /// The same of PostgreSQL's processes, by database.
    database_us: BTreeMap<String, f64>,
    /// Seconds of CPU over HTTP.
    cpu_s: BTreeMap<String, f64>,
}

/// What was seen of both.
#[derive(Serialize)]
pub(crate) struct Stored {
    options: Options,
    pairs: Pairs,
    /// Orders that ended otherwise than their payment says.
    wrong: usize,
    /// Of the system with few.
    audit: Audit,
}

/// A round of each.
#[derive(Serialize)]
struct Pair {
    few: Round,
    many: Round,
}

/// In the order in which they were measured.
#[derive(Serialize)]
#[serde(transparent)]
struct Pairs(Vec<Pair>);

/// A figure over all pairs: the medians of both, and of the pairs' ratios the middle and the extremes.
struct Compared {
    few: f64,
    many: f64,
    ratio: Spread,
}

/// A figure of a round, by its name, and whether more of it is better.
type Named = (&'static str, fn(&Round) -> f64, bool);

/// All figures but CPU and memory.
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
    /// So many orders, and so many pairs of rounds of that size.
    pub(crate) const fn sized(orders: usize, pairs: u32, seconds: u32, sagas: usize) -> Self {
        Self { orders, pairs, rate: 200, seconds, sagas }
    }

    /// Orders that a round adds.
    fn of_a_round(&self) -> usize {
        let over_http = self.rate * (self.seconds + WARM_UP_S) / 2;
        self.sagas + ONE_BY_ONE + usize::try_from(over_http).unwrap_or_default()
    }
}

/// A system, its products and its customers.
struct Side<'a> {
    endpoints: &'a Endpoints,
    buyers: Vec<CustomerId>,
    shop: Arc<Shop>,
}

/// `load-test stored`: whether every order ended as its payment says, and the audits are clean.
pub(crate) async fn run(endpoints: &Endpoints, options: &Options) -> anyhow::Result<bool> {
    let stored = measure(endpoints, options).await?;
    let audit = Audit::run(endpoints).await?;
    say(format_args!("{stored}\n{audit}"))?;
    Ok(stored.holds() && audit.is_clean())
}

/// Stores the orders, and measures this system and a second one, which has few, in turn.
pub(crate) async fn measure(endpoints: &Endpoints, options: &Options) -> anyhow::Result<Stored> {
    let many = Side::open(endpoints).await?;
    let mut wrong = many.store(FIRST_ORDERS * CUSTOMERS + options.orders).await?;
    let second = Second::start(endpoints).await?;
    let measured = beside(&many, &second.endpoints, options).await;
    // Also if that failed.
    second.end().await?;
    let (pairs, wrong_of_few, audit) = measured?;
    wrong += wrong_of_few;
    Ok(Stored { options: options.clone(), pairs, wrong, audit })
}

/// Pairs, orders of the second system that ended wrong, and its audit.
async fn beside(
    many: &Side<'_>,
    second: &Endpoints,
    options: &Options,
) -> anyhow::Result<(Pairs, usize, Audit)> {
    let few = Side::open(second).await?;
    let wrong = few.store(FIRST_ORDERS * CUSTOMERS).await?;
    for endpoints in [many.endpoints, second] {
        vacuum(endpoints).await?;
    }
    settle([many.endpoints, second]).await?;
    let mut pairs = Vec::new();
    let last = options.pairs.max(1);
    for number in 0..=last {
        eprintln!("  pair {number} of {last} ...");
        let (few, many) = in_turn(number, few.round(options), many.round(options)).await?;
        // The first warms a young JVM up.
        if number > 0 {
            pairs.push(Pair { few, many });
        }
    }
    let pairs = Pairs(pairs);
    // The audits of many orders take a while.
    eprintln!("{pairs}");
    Ok((pairs, wrong, Audit::run(second).await?))
}

/// Vacuums what the services have, as PostgreSQL's documentation says to after much was loaded; by itself it takes its time for that.
async fn vacuum(endpoints: &Endpoints) -> anyhow::Result<()> {
    for url in endpoints.postgres.values().flatten() {
        sqlx::raw_sql("VACUUM").execute(&mut PgConnection::connect(url).await?).await?;
    }
    Ok(())
}

/// Waits until the machine and both systems' databases have come to rest.
async fn settle(systems: [&Endpoints; 2]) -> anyhow::Result<()> {
    let mut servers = Vec::new();
    for endpoints in systems {
        servers.push(PgConnection::connect(&endpoints.database("postgres")?).await?);
    }
    let (quiet, moment) = QUIET;
    let (processes, begun) = (Processes::of(&systems[1].home), Instant::now());
    let mut quiet_since = begun;
    while quiet_since.elapsed() < QUIET_FOR && begun.elapsed() < QUIET_WITHIN {
        let before = processes.begin();
        tokio::time::sleep(moment).await;
        if processes.end(&before).idle < quiet || vacuums(&mut servers).await? > 0 {
            quiet_since = Instant::now();
        }
    }
    let waited = begun.elapsed().as_secs();
    eprintln!("  waited {waited} s; quiet, without a vacuum, for {} s", quiet_since.elapsed().as_secs());
    Ok(())
}

/// Vacuums that PostgreSQL runs by itself.
async fn vacuums(servers: &mut [PgConnection]) -> sqlx::Result<i64> {
    let mut running = 0;
    for server in servers {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'";
        running += sqlx::query_scalar::<_, i64>(query).fetch_one(server).await?;
    }
    Ok(running)
}

impl<'a> Side<'a> {
    async fn open(endpoints: &'a Endpoints) -> anyhow::Result<Self> {
        let buyers = customers(CUSTOMERS);
        let shop = Arc::new(Shop::open(endpoints, 1_000, PLENTY, &buyers).await?);
        Ok(Self { endpoints, buyers, shop })
    }

    /// Has orders placed and ended; how many ended otherwise than their payment says.
    async fn store(&self, orders: usize) -> anyhow::Result<usize> {
        let (mut stored, mut wrong) = (0, 0);
        while stored < orders {
            let some = (orders - stored).min(AT_ONCE);
            let closed = Closed { customers: self.buyers.clone(), ..Closed::of(some, 1_000) };
            let outcome = sagas::closed(self.endpoints, &closed).await?;
            wrong += outcome.wrong;
            stored += some;
            eprintln!("  {stored} of {orders} orders stored, {:.0}/s", outcome.per_second);
        }
        Ok(wrong)
    }

    async fn round(&self, options: &Options) -> anyhow::Result<Round> {
        let Self { endpoints, shop, .. } = self;
        let sagas = sagas::closed(endpoints, &Closed::of(options.sagas, 1_000)).await?;
        let mixed = Http { reads: 50, ..Http::at(options.rate, options.seconds, WARM_UP_S, 1_000) };
        let mixed = http::measure(endpoints, shop, &mixed).await?;
        // Last: what saturation has left to be written to the disk delays a commit for a moment, up to ten seconds and more after it.
        let idle = sagas::idle(endpoints, &Idle { orders: ONE_BY_ONE, pause_ms: 50 }).await?;
        anyhow::ensure!(
            sagas.wrong == 0 && idle.wrong == 0 && mixed.is_right(),
            "not every order ended right"
        );
        let read = |name: &str| mixed.seen.reads.get(name).cloned().unwrap_or_default();
        Ok(Round {
            saturated_us: sagas.cpu_by_process().map(|(name, us)| (name.to_owned(), us)).collect(),
            database_us: sagas.cpu_by_database().map(|(name, us)| (name.to_owned(), us)).collect(),
            sagas_per_second: sagas.per_second,
            idle: idle.latency,
            latest: read("latest five orders"),
            product: read("product"),
            complete: mixed.seen.complete,
            memory_mib: mixed.usage.memory_mib,
            cpu_s: mixed.usage.cpu_s,
        })
    }
}

impl Pair {
    /// Many by few; nothing if there is nothing of few.
    fn ratio(&self, of: impl Fn(&Round) -> f64) -> Option<f64> {
        let few = of(&self.few);
        (few > 0.0).then(|| of(&self.many) / few)
    }
}

impl Stored {
    /// Whether every order ended right on both, and the audit of the system with few is clean.
    pub(crate) fn holds(&self) -> bool {
        self.wrong == 0 && self.audit.is_clean()
    }

    /// The figure that is worse by most: its name, and how many times as bad; and the latest five orders' p95 in ms.
    pub(crate) fn worst(&self) -> Option<(&'static str, Spread, f64)> {
        self.pairs.worst()
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} orders stored for this, and {} in a second system; {} pairs of rounds after one to warm up, in turn; a round adds {} orders; \
             medians\n",
            FIRST_ORDERS * CUSTOMERS + self.options.orders,
            FIRST_ORDERS * CUSTOMERS,
            self.pairs.0.len(),
            self.options.of_a_round()
        )?;
        writeln!(f, "{}\nAudit of the second system:\n\n{}", self.pairs, self.audit)
    }
}

impl Pairs {
    fn compared(&self, of: impl Fn(&Round) -> f64) -> Option<Compared> {
        let few = Spread::of(self.0.iter().map(|pair| of(&pair.few)))?;
        let many = Spread::of(self.0.iter().map(|pair| of(&pair.many)))?;
        let ratio = Spread::of(self.0.iter().filter_map(|pair| pair.ratio(&of)))?;
        Some(Compared { few: few.median, many: many.median, ratio })
    }

    /// The figure that is worse by most: its name, and how many times as bad; and the latest five orders' p95 in ms.
    fn worst(&self) -> Option<(&'static str, Spread, f64)> {
        let worse = FIGURES.iter().filter_map(|(name, of, is_more_better)| {
            let worse = |pair: &Pair| {
                let ratio = pair.ratio(of).filter(|ratio| *ratio > 0.0)?;
                Some(if *is_more_better { 1.0 / ratio } else { ratio })
            };
            Some((*name, Spread::of(self.0.iter().filter_map(worse))?))
        });
        let (name, ratio) = worse.max_by(|(_, one), (_, other)| one.median.total_cmp(&other.median))?;
        Some((name, ratio, self.compared(|round| round.latest.figures().p95)?.many))
    }
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table =
            Table::new(["figure", "few stored", "many stored", "ratio in pairs, median (least to most)"]);
        let mut row = |name: &str, of: &dyn Fn(&Round) -> f64, shown: &dyn Fn(f64) -> String| {
            if let Some(Compared { few, many, ratio }) = self.compared(of) {
                table.row([name.to_owned(), shown(few), shown(many), ratio.to_string()]);
            }
        };
        let whole = |figure: f64| format!("{figure:.0}");
        for (name, of, is_more_better) in FIGURES {
            row(name, &of, if is_more_better { &whole } else { &ms });
        }
        let mut by_process =
            |what: &str, of: fn(&Round) -> &BTreeMap<String, f64>, shown: &dyn Fn(f64) -> String| {
                let names = |round: &Round| of(round).keys().cloned().collect::<BTreeSet<_>>();
                let Some(Pair { few, many }) = self.0.first() else { return };
                for process in names(few).intersection(&names(many)) {
                    // What is not of one system tells nothing about it.
                    if ["load", "others"].contains(&process.as_str()) {
                        continue;
                    }
                    let one = |round: &Round| of(round).get(process).copied().unwrap_or_default();
                    row(&format!("{what} of {process}"), &one, shown);
                }
            };
        by_process("saturated, CPU in us per saga", |round| &round.saturated_us, &whole);
        by_process("saturated, PostgreSQL's CPU in us per saga", |round| &round.database_us, &whole);
        by_process("ordered over HTTP, CPU in s", |round| &round.cpu_s, &|figure| format!("{figure:.1}"));
        by_process("memory in MiB", |round| &round.memory_mib, &whole);
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(sagas_per_second: f64, product_ms: u64) -> Round {
        let latency = |ms| {
            let mut latency = Latency::default();
            latency.record(Duration::from_millis(ms));
            latency
        };
        Round {
            sagas_per_second,
            idle: latency(10),
            complete: latency(10),
            latest: latency(5),
            product: latency(product_ms),
            memory_mib: BTreeMap::new(),
            saturated_us: BTreeMap::new(),
            database_us: BTreeMap::new(),
            cpu_s: BTreeMap::new(),
        }
    }

    #[test]
    fn the_worst_figure_is_told_by_its_median_whether_more_or_less_is_better() {
        let pair = |sagas, product| Pair { few: round(3_000.0, 10), many: round(sagas, product) };
        // One pair with an outlier, and a figure that is half as much: twice as bad.
        let pairs = Pairs(vec![pair(1_500.0, 90), pair(1_500.0, 15), pair(1_500.0, 15)]);
        let (name, ratio, latest) = pairs.worst().unwrap();
        assert_eq!((name, ratio.median, ratio.most), ("complete sagas/s", 2.0, 2.0));
        assert!((latest - 5.0).abs() < 0.01, "{latest}");
        let compared = pairs.compared(|round| round.product.figures().p95).unwrap();
        assert!(
            (compared.ratio.median - 1.5).abs() < 0.01 && compared.ratio.most > 8.9,
            "{}",
            compared.ratio
        );
    }
}
