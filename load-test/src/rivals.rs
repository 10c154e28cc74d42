//! The same saga on workflow engines that people use, beside this product's: one after the other, on the same machine. Each is a
//! program of its own below `rivals/`, with a `run` that says what it saw as one line of JSON; `rivals/README.md` has the terms.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::audit::Audit;
use crate::database::OwnDatabase;
use crate::endpoints::Endpoints;
use crate::out::say;
use crate::sagas;
use crate::table::{Table, ms};

/// What there is below `rivals/`.
const ALL: [&str; 3] = ["restate", "dbos", "temporal"];
/// How a rival's `run` ends when a runtime that it needs is not installed (`EX_UNAVAILABLE`).
const MISSING: i32 = 69;
/// How long a rival may take, the installation of its packages included.
const WITHIN: Duration = Duration::from_secs(1_200);

/// `load-test rivals`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Folder of the rivals.
    #[arg(long, default_value = "load-test/rivals")]
    pub(crate) from: PathBuf,
    /// Only these: restate, dbos, temporal.
    #[arg(long, value_delimiter = ',', default_values = ALL)]
    pub(crate) only: Vec<String>,
    /// Seconds of each of a rival's runs: one to warm up, three over 1,000 products, three of one product.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u32,
    /// Orders of each of this product's runs; a quarter of them warms up.
    #[arg(long, default_value_t = 40_000)]
    pub(crate) orders: usize,
    /// Orders one at a time.
    #[arg(long, default_value_t = 200)]
    pub(crate) idle_orders: usize,
}

impl Options {
    /// All of them, for that long.
    pub(crate) fn sized(seconds: u32, orders: usize) -> Self {
        Self {
            from: "load-test/rivals".into(),
            only: ALL.map(str::to_owned).to_vec(),
            seconds,
            orders,
            idle_orders: 200,
        }
    }
}

/// What one of them was seen to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Seen {
    name: String,
    idle: Idle,
    uniform: Closed,
    hot: Closed,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Idle {
    p50_ms: f64,
    p99_ms: f64,
}

/// The fastest of several runs with different numbers in flight.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Closed {
    in_flight: usize,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// All of them, and why one is missing.
#[derive(Debug, Serialize)]
pub(crate) struct Rivals {
    /// This product before the others, and after.
    own: [Seen; 2],
    seen: Vec<Seen>,
    skipped: Vec<String>,
    /// Orders of this product that ended otherwise than their payment says.
    pub(crate) wrong: usize,
}

/// `load-test rivals`: whether every saga ended as it should, and the audit is clean.
pub(crate) async fn run(endpoints: &Endpoints, options: &Options) -> anyhow::Result<bool> {
    let rivals = measure(endpoints, options).await?;
    let audit = Audit::run(endpoints).await?;
    say(format_args!("{rivals}\n{audit}"))?;
    Ok(rivals.wrong == 0 && audit.is_clean())
}

/// Measures this product, each rival, and this product again.
pub(crate) async fn measure(endpoints: &Endpoints, options: &Options) -> anyhow::Result<Rivals> {
    let mut wrong = 0;
    let before = own(endpoints, options, &mut wrong).await?;
    let (mut seen, mut skipped) = (Vec::new(), Vec::new());
    for name in &options.only {
        eprintln!("  {name} ...");
        match rival(endpoints, options, name).await {
            Ok(Ok(rival)) => seen.push(rival),
            Ok(Err(why)) => skipped.push(why),
            Err(error) => skipped.push(format!("{error:#}")),
        }
    }
    let own = [before, own(endpoints, options, &mut wrong).await?];
    Ok(Rivals { own, seen, skipped, wrong })
}

/// This product's figures, in the order in which a rival takes its own: some in flight to warm up, one at a time, then many.
async fn own(endpoints: &Endpoints, options: &Options, wrong: &mut usize) -> anyhow::Result<Seen> {
    let mut run = async |orders, in_flight, skus| {
        let closed = sagas::Closed { in_flight, ..sagas::Closed::of(orders, skus) };
        let outcome = sagas::closed(endpoints, &closed).await?;
        let figures = outcome.latency.figures();
        *wrong += outcome.wrong;
        let (per_second, p50_ms, p99_ms) = (outcome.per_second, figures.p50, figures.p99);
        anyhow::Ok(Closed { in_flight, per_second, p50_ms, p99_ms })
    };
    run(options.orders / 4, 64, 1_000).await?;
    let idle = sagas::idle(endpoints, &sagas::Idle { orders: options.idle_orders, pause_ms: 50 }).await?;
    let (uniform, hot) = (run(options.orders, 4_000, 1_000).await?, run(options.orders, 4_000, 1).await?);
    *wrong += idle.wrong;
    let figures = idle.latency.figures();
    let idle = Idle { p50_ms: figures.p50, p99_ms: figures.p99 };
    Ok(Seen { name: "Firstcome".to_owned(), idle, uniform, hot })
}

/// Runs one rival in a database and a folder of its own, which go with it. The inner error says what it lacks.
async fn rival(endpoints: &Endpoints, options: &Options, name: &str) -> anyhow::Result<Result<Seen, String>> {
    let database = OwnDatabase::make(endpoints, "", 1).await?;
    let home = std::env::temp_dir().join(format!("load-test-rival-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let seen = ran(&options.from.join(name).join("run"), options, &database.url, &home).await;
    std::fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
    database.remove().await?;
    seen.with_context(|| format!("{name} did not come to an end"))
}

async fn ran(
    program: &Path,
    options: &Options,
    database: &str,
    home: &Path,
) -> anyhow::Result<Result<Seen, String>> {
    let program =
        program.canonicalize().with_context(|| format!("{} is not there: see --from", program.display()))?;
    let child = Command::new(program)
        .args(["--seconds", &options.seconds.to_string()])
        .args(["--idle-orders", &options.idle_orders.to_string()])
        .env("RIVAL_DATABASE_URL", database)
        .env("RIVAL_HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output =
        tokio::time::timeout(WITHIN, child.wait_with_output()).await.context("it took too long")??;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(MISSING) {
        let why = said.lines().next_back().unwrap_or("a runtime is missing");
        return Ok(Err(why.to_owned()));
    }
    anyhow::ensure!(output.status.success(), "{}:\n{said}", output.status);
    Ok(Ok(serde_json::from_slice(&output.stdout).context("it printed something else")?))
}

/// Latencies of this product beside a rival's: p50 and p99 of each, in milliseconds.
pub(crate) struct Beside<'a> {
    pub(crate) name: &'a str,
    /// One order at a time; this product's slower run.
    pub(crate) idle: [(f64, f64); 2],
    /// The rival's own at its best rate over 1,000 products, and that rate.
    pub(crate) at_best: (f64, f64, f64),
}

impl Rivals {
    /// Latencies beside each rival's.
    pub(crate) fn beside(&self) -> impl Iterator<Item = Beside<'_>> {
        let slower = |of: fn(&Seen) -> f64| self.own.iter().map(of).fold(0.0, f64::max);
        let own = (slower(|seen| seen.idle.p50_ms), slower(|seen| seen.idle.p99_ms));
        self.seen.iter().map(move |Seen { name, idle, uniform, .. }| Beside {
            name,
            idle: [own, (idle.p50_ms, idle.p99_ms)],
            at_best: (uniform.p50_ms, uniform.p99_ms, uniform.per_second),
        })
    }

    /// How many times as many sagas this product completes, uniform and hot, by its slower run.
    pub(crate) fn ratios(&self) -> impl Iterator<Item = (&str, f64, f64)> {
        let slower = |of: fn(&Seen) -> f64| self.own.iter().map(of).fold(f64::INFINITY, f64::min);
        let (uniform, hot) = (slower(|seen| seen.uniform.per_second), slower(|seen| seen.hot.per_second));
        self.seen.iter().map(move |rival| {
            (rival.name.as_str(), uniform / rival.uniform.per_second, hot / rival.hot.per_second)
        })
    }
}

impl fmt::Display for Rivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            "",
            "sagas/s over 1,000 products",
            "in flight, p50, p99 ms",
            "sagas/s of one product",
            "in flight, p50, p99 ms",
            "one at a time: p50, p99 ms",
        ]);
        let [before, after] = &self.own;
        for Seen { name, idle, uniform, hot } in [before].into_iter().chain(&self.seen).chain([after]) {
            let closed =
                |seen: &Closed| format!("{}, {}, {}", seen.in_flight, ms(seen.p50_ms), ms(seen.p99_ms));
            table.row([
                name.clone(),
                format!("{:.0}", uniform.per_second),
                closed(uniform),
                format!("{:.0}", hot.per_second),
                closed(hot),
                format!("{}, {}", ms(idle.p50_ms), ms(idle.p99_ms)),
            ]);
        }
        writeln!(f, "{table}")?;
        for (name, uniform, hot) in self.ratios() {
            writeln!(f, "{uniform:.1} times as many as {name}, {hot:.1} times of one product")?;
        }
        for why in &self.skipped {
            writeln!(f, "skipped: {why}")?;
        }
        write!(f, "What is alike and what is not: load-test/rivals/README.md.")
    }
}
