//! Bare loops: what the parts allow, next to what the whole does with them in the same run.

mod door;
mod hops;
mod single;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::audit::Audit;
use crate::endpoints::Endpoints;
use crate::http::CUSTOMERS;
use crate::http::client::{Connection, problem_code};
use crate::http::drive::{Shop, customers};
use crate::latency::{Figures, Latency};
use crate::out::say;
use crate::sagas;
use crate::spread::Spread;
use crate::table::{Table, ms};
use door::{Answers, BareDoor};
use hops::Hops;

/// How long the door may take to hear that there is nothing to be had.
const SOLD_OUT_WITHIN: Duration = Duration::from_secs(10);
/// The door's own warm-up, which does not count.
const WARM_UP: Duration = Duration::from_secs(1);
/// Orders that are alone on their way, one right after the other.
const ALONE: usize = 500;

/// `load-test bare`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Orders that go through all hops, and as many sagas of the running system beside them.
    #[arg(long, default_value_t = 40_000)]
    pub(crate) orders: usize,
    /// Of these, how many may be under way at once.
    #[arg(long, default_value_t = 4_000)]
    pub(crate) in_flight: usize,
    /// Times that the bare door and the api are stormed in turn.
    #[arg(long, default_value_t = 7)]
    pub(crate) rounds: usize,
    /// Seconds of each.
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u64,
    /// Connections of each storm.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Flushes, hand-overs between two threads, and acknowledged produces.
    #[arg(long, default_value_t = 2_000)]
    pub(crate) singles: usize,
}

/// What was seen.
#[derive(Serialize)]
pub(crate) struct Bare {
    pub(crate) flush: Latency,
    pub(crate) hand_over: Latency,
    pub(crate) produce: Latency,
    pub(crate) bare_door: Vec<Answers>,
    pub(crate) api: Vec<Answers>,
    pub(crate) hops: Hops,
    pub(crate) sagas: sagas::Outcome,
    /// The same, one order right after the other.
    pub(crate) hops_alone: Hops,
    pub(crate) sagas_alone: sagas::Outcome,
}

/// Measures everything.
pub(crate) async fn measure(endpoints: &Endpoints, options: &Options) -> anyhow::Result<Bare> {
    let folder = endpoints.home.clone();
    let singles = options.singles;
    let flush = tokio::task::spawn_blocking(move || single::flushes(&folder, singles)).await??;
    let hand_over = tokio::task::spawn_blocking(move || single::hand_overs(singles)).await??;
    let produce = single::produces(&endpoints.cluster(), singles).await?;
    let (bare_door, api) = doors(endpoints, options).await?;
    let hops = hops::run(endpoints, options.orders, options.in_flight).await?;
    let closed = sagas::Closed {
        in_flight: options.in_flight,
        declined: 0,
        ..sagas::Closed::of(options.orders, 1_000)
    };
    let sagas = sagas::closed(endpoints, &closed).await?;
    let hops_alone = hops::run(endpoints, ALONE, 1).await?;
    let sagas_alone = sagas::idle(endpoints, &sagas::Idle { orders: ALONE, pause_ms: 0 }).await?;
    Ok(Bare { flush, hand_over, produce, bare_door, api, hops, sagas, hops_alone, sagas_alone })
}

/// The bare door and the api in turn.
async fn doors(endpoints: &Endpoints, options: &Options) -> anyhow::Result<(Vec<Answers>, Vec<Answers>)> {
    let shop = Arc::new(Shop::open(endpoints, 1, 0, &customers(CUSTOMERS)).await?);
    let sku = shop.skus.first().map(ToString::to_string).unwrap_or_default();
    let address = shop.addresses.first().cloned().unwrap_or_default();
    sold_out(&shop, &address).await?;
    let bare = BareDoor::open(&endpoints.redis).await?;
    let lasts = Duration::from_secs(options.seconds.max(1));
    let connections = options.connections.max(1);
    let (mut of_bare, mut of_api) = (Vec::new(), Vec::new());
    for round in 0..=options.rounds {
        let is_counted = round > 0;
        let lasts = if is_counted { lasts } else { WARM_UP };
        let answers = door::storm(&shop, &bare.address, &bare.sku, connections, lasts).await?;
        let of_the_api = door::storm(&shop, &address, &sku, connections, lasts).await?;
        if is_counted {
            of_bare.push(answers);
            of_api.push(of_the_api);
        }
    }
    bare.close().await?;
    Ok((of_bare, of_api))
}

/// Waits until the api says that the product is sold out.
async fn sold_out(shop: &Shop, address: &str) -> anyhow::Result<()> {
    let (begun, mut connection) = (std::time::Instant::now(), Connection::new(address)?);
    loop {
        let answer = shop.order_once(&mut connection).await?;
        let code = problem_code(&answer.body);
        if code == "sold_out" {
            return Ok(());
        }
        anyhow::ensure!(begun.elapsed() < SOLD_OUT_WITHIN, "nothing is left, and the api says {code:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Bare {
    /// Whether every order of the complete ones ended as its payment says.
    pub(crate) fn is_right(&self) -> bool {
        self.sagas.wrong == 0 && self.sagas_alone.wrong == 0
    }

    /// What the api answers of what the bare door does, pair by pair.
    pub(crate) fn door_ratio(&self) -> Option<Spread> {
        Spread::of(self.api.iter().zip(&self.bare_door).map(|(api, bare)| api.per_second / bare.per_second))
    }

    /// Complete sagas of bare ones.
    pub(crate) fn saga_ratio(&self) -> f64 {
        self.sagas.per_second / self.hops.per_second
    }

    /// How long a bare saga takes that is alone, and a complete one; means, in milliseconds.
    pub(crate) fn alone_ms(&self) -> (f64, f64) {
        (1e3 / self.hops_alone.per_second, self.sagas_alone.latency.figures().mean)
    }
}

impl fmt::Display for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["floor", "a second", "p50, ms", "p99, ms", "of the floor"]);
        let mut single = |name: &str, latency: &Latency| {
            let figures = latency.figures();
            table.row([name.to_owned(), String::new(), ms(figures.p50), ms(figures.p99)]);
        };
        single("one fdatasync", &self.flush);
        single("one hand-over from thread to thread", &self.hand_over);
        single("one acknowledged produce", &self.produce);
        let mut door = |name: &str, answers: &[Answers], ratio: String| {
            let mut all = Latency::default();
            answers.iter().for_each(|answers| all.merge(&answers.latency));
            let per_second = Spread::of(answers.iter().map(|answers| answers.per_second));
            let per_second = per_second.map_or(String::new(), |found| format!("{:.0}", found.median));
            let figures = all.figures();
            table.row([name.to_owned(), per_second, ms(figures.p50), ms(figures.p99), ratio]);
        };
        door("sold out: axum and the admission script, nothing else", &self.bare_door, "1".to_owned());
        let ratio = self.door_ratio().map_or(String::new(), |ratio| ratio.to_string());
        door("sold out: the api", &self.api, ratio);
        let mut saga = |name: String, per_second: f64, latency: Option<&Latency>, ratio: f64| {
            let figures = latency.map(Latency::figures);
            let of = |figure: fn(&Figures) -> f64| figures.as_ref().map(figure).map_or(String::new(), ms);
            let (p50, p99) = (of(|figures| figures.p50), of(|figures| figures.p99));
            table.row([name, format!("{per_second:.0}"), p50, p99, format!("{ratio:.2}")]);
        };
        let Hops { orders, in_flight, per_second } = self.hops;
        let bare =
            format!("saga: one produce, consume, set-based write and commit per hop, {in_flight} in flight");
        saga(bare, per_second, None, 1.0);
        let complete = format!("saga: complete ones, {orders} orders");
        saga(complete, self.sagas.per_second, Some(&self.sagas.latency), self.saga_ratio());
        let (bare_ms, complete_ms) = self.alone_ms();
        saga("saga: bare, one right after the other".to_owned(), self.hops_alone.per_second, None, 1.0);
        let complete = "saga: complete, one right after the other".to_owned();
        let latency = Some(&self.sagas_alone.latency);
        saga(complete, self.sagas_alone.per_second, latency, bare_ms / complete_ms);
        write!(f, "{table}")?;
        writeln!(
            f,
            "\none right after the other, mean: {} ms bare, {} ms complete",
            ms(bare_ms),
            ms(complete_ms)
        )
    }
}

/// `load-test bare`
pub(crate) async fn run(endpoints: &Endpoints, options: &Options) -> anyhow::Result<bool> {
    let bare = measure(endpoints, options).await?;
    let audit = Audit::run(endpoints).await?;
    say(format_args!("{bare}\n{audit}"))?;
    Ok(bare.is_right() && audit.is_clean())
}
