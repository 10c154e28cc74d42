//! Users who come back: each does one thing after the other, as those of comparable systems' load tests do (a closed loop). A system
//! that is slow gets fewer requests, so its latencies flatter it where those of [`crate::http`] do not; they are for
//! comparison with figures that were made the same way.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use domain_types::OrderId;
use hyper::Method;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::audit::Audit;
use crate::endpoints::Endpoints;
use crate::http::client::{Answer, Call, Connection};
use crate::http::drive::{Shop, order_of};
use crate::http::plan::{Payment, to_f64};
use crate::http::{self, hear};
use crate::latency::Latency;
use crate::machine::{Processes, Usage};
use crate::table::{Table, ms};
use crate::watch::{Ended, Watch, watch};

/// How long an order may take to its end.
const PATIENCE: Duration = Duration::from_secs(30);

/// `load-test users`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Users at once. Each looks at a product, orders a unit of it, waits for the order's end, looks at the latest five orders, and begins
    /// again as another customer, without a pause.
    #[arg(long, default_value_t = 40)]
    pub(crate) users: usize,
    /// Products.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) skus: usize,
    /// Of a hundred orders, how many have a payment that is declined.
    #[arg(long, default_value_t = 10)]
    pub(crate) declined: usize,
    /// Seconds that count.
    #[arg(long, default_value_t = 30)]
    pub(crate) seconds: u32,
    /// Seconds before that, which do not count.
    #[arg(long, default_value_t = 10)]
    pub(crate) warm_up: u32,
}

/// What all users saw.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) users: usize,
    pub(crate) declined: usize,
    pub(crate) seconds: f64,
    pub(crate) seen: Seen,
    usage: Usage,
}

/// What was seen.
#[derive(Default, Clone, Serialize)]
pub(crate) struct Seen {
    /// From the request to its answer, by what was asked.
    pub(crate) requests: BTreeMap<&'static str, Latency>,
    /// From sending an order to its end on `order-events`.
    pub(crate) complete: Latency,
    /// Answers that are no success; `none`: no answer.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Orders that ended otherwise than their payment says, or not in time.
    pub(crate) wrong: u64,
}

/// Where users wait for the ends of their orders.
#[derive(Default)]
struct Ends(Mutex<HashMap<OrderId, Half>>);

/// An order of which one half is known.
enum Half {
    Waits(oneshot::Sender<Ended>),
    Over(Ended),
}

impl Ends {
    fn over(&self, ended: Ended) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match halves.remove(&ended.order) {
            Some(Half::Waits(waits)) => drop(waits.send(ended)),
            Some(Half::Over(_)) | None => drop(halves.insert(ended.order, Half::Over(ended))),
        }
    }

    /// How the order ends; nothing if it does not in time.
    async fn of(&self, order: OrderId) -> Option<Ended> {
        let waits = {
            let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Half::Over(ended)) = halves.remove(&order) {
                return Some(ended);
            }
            let (sender, receiver) = oneshot::channel();
            halves.insert(order, Half::Waits(sender));
            receiver
        };
        tokio::time::timeout(PATIENCE, waits).await.ok()?.ok()
    }
}

/// What users share.
struct Everybody {
    shop: Arc<Shop>,
    ends: Ends,
    /// Journeys that were begun.
    begun: AtomicUsize,
    declined: usize,
    counts_from: Instant,
    until: Instant,
}

/// `load-test users`: whether everything was right, and the audit clean.
pub(crate) async fn run(endpoints: &Endpoints, options: &Options) -> anyhow::Result<bool> {
    let outcome = measure(endpoints, options).await?;
    let audit = Audit::run(endpoints).await?;
    println!("{outcome}\n{audit}");
    Ok(outcome.is_right() && audit.is_clean())
}

/// Lets the users come.
pub(crate) async fn measure(endpoints: &Endpoints, options: &Options) -> anyhow::Result<Outcome> {
    anyhow::ensure!(options.declined <= 100, "--declined is of a hundred");
    let shop = http::shop(endpoints, options.skus).await?;
    let mut watch = watch(&endpoints.cluster());
    hear(&shop, &mut watch).await?;
    let processes = Processes::of(&endpoints.home);
    let counts_from = Instant::now() + Duration::from_secs(options.warm_up.into());
    let until = counts_from + Duration::from_secs(options.seconds.max(1).into());
    let everybody = Arc::new(Everybody {
        shop,
        ends: Ends::default(),
        begun: AtomicUsize::new(0),
        declined: options.declined,
        counts_from,
        until,
    });
    let listening = tokio::spawn(listen(watch, Arc::clone(&everybody)));
    let mut users = Vec::new();
    for number in 0..options.users.max(1) {
        let addresses = &everybody.shop.addresses;
        let address = addresses.get(number % addresses.len().max(1)).context("no api")?;
        let user = User { connection: Connection::new(address)?, seen: Seen::default() };
        users.push(tokio::spawn(user.come(Arc::clone(&everybody))));
    }
    tokio::time::sleep_until(counts_from.into()).await;
    let before = processes.begin();
    let mut seen = Seen::default();
    for user in users {
        seen.merge(&user.await?);
    }
    let usage = processes.end(&before);
    listening.abort();
    let Options { users, declined, seconds, .. } = *options;
    Ok(Outcome { users, declined, seconds: f64::from(seconds.max(1)), seen, usage })
}

async fn listen(mut watch: Watch, everybody: Arc<Everybody>) {
    while let Some(ended) = watch.ended.recv().await {
        everybody.ends.over(ended);
    }
}

struct User {
    connection: Connection,
    seen: Seen,
}

impl User {
    async fn come(mut self, everybody: Arc<Everybody>) -> Seen {
        while Instant::now() < everybody.until {
            let number = everybody.begun.fetch_add(1, Ordering::Relaxed);
            self.journey(&everybody, number).await;
        }
        self.seen
    }

    async fn journey(&mut self, everybody: &Everybody, number: usize) {
        let Everybody { shop, ends, declined, .. } = everybody;
        // Neighbours choose different products; of each hundred in a row, so many are declined.
        let sku = number.wrapping_mul(7_919) % shop.skus.len().max(1);
        let customer = number % shop.customers.len().max(1);
        let payment =
            if number.wrapping_mul(37) % 100 < *declined { Payment::Declined } else { Payment::Approved };
        let Some(path) = shop.skus.get(sku).map(|sku| format!("/v1/products/{sku}")) else { return };
        self.ask(everybody, "product", customer, (Method::GET, &path, Bytes::new())).await;

        let Ok(body) = shop.order(sku, payment) else { return };
        let sent = Instant::now();
        let answer = self.ask(everybody, "order", customer, (Method::POST, "/v1/orders", body)).await;
        let Some(order) = answer.as_ref().and_then(order_of) else { return };
        let ended = ends.of(order).await;
        if sent >= everybody.counts_from {
            match ended.filter(|ended| ended.state == payment.wanted()) {
                Some(ended) => self.seen.complete.record(ended.at.saturating_duration_since(sent)),
                None => self.seen.wrong += 1,
            }
        }

        let latest = (Method::GET, "/v1/orders?limit=5", Bytes::new());
        self.ask(everybody, "latest five orders", customer, latest).await;
    }

    /// A request, and its answer if there is one that is a success.
    async fn ask(
        &mut self,
        everybody: &Everybody,
        what: &'static str,
        customer: usize,
        (method, path, body): (Method, &str, Bytes),
    ) -> Option<Answer> {
        let authorization = everybody.shop.customers.get(customer);
        let sent = Instant::now();
        let answer = self.connection.send(Call { method, path, authorization, body }).await;
        let took = sent.elapsed();
        let refused = match answer {
            Ok(answer) if answer.status.is_success() => {
                if sent >= everybody.counts_from {
                    self.seen.requests.entry(what).or_default().record(took);
                }
                return Some(answer);
            }
            Ok(answer) => answer.status.as_u16().to_string(),
            Err(_unheard) => "none".to_owned(),
        };
        *self.seen.refused.entry(refused).or_default() += 1;
        None
    }
}

impl Seen {
    fn merge(&mut self, other: &Self) {
        for (what, latency) in &other.requests {
            self.requests.entry(what).or_default().merge(latency);
        }
        for (answer, count) in &other.refused {
            *self.refused.entry(answer.clone()).or_default() += count;
        }
        self.complete.merge(&other.complete);
        self.wrong += other.wrong;
    }
}

impl Outcome {
    /// Every answer was a success, and every order ended as its payment says.
    pub(crate) fn is_right(&self) -> bool {
        self.seen.refused.is_empty() && self.seen.wrong == 0
    }

    /// All requests together.
    pub(crate) fn requests(&self) -> Latency {
        let mut all = Latency::default();
        self.seen.requests.values().for_each(|latency| all.merge(latency));
        all
    }

    /// So many of these a second.
    pub(crate) fn per_second(&self, latency: &Latency) -> f64 {
        to_f64(latency.figures().tries) / self.seconds
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, declined, seconds, seen, usage } = self;
        writeln!(
            f,
            "{users} users at once for {seconds:.0} s, without pauses; of a hundred orders {declined} declined\n"
        )?;
        let mut table = Table::new(["latency, ms", "a second", "mean", "p50", "p95", "p99", "max"]);
        let mut row = |name: &str, latency: &Latency| {
            let figures = latency.figures();
            let times = [figures.mean, figures.p50, figures.p95, figures.p99, figures.max].map(ms);
            table.row([name.to_owned(), format!("{:.0}", self.per_second(latency))].into_iter().chain(times));
        };
        for (what, latency) in &seen.requests {
            row(what, latency);
        }
        row("all requests", &self.requests());
        row("order complete (order-events)", &seen.complete);
        writeln!(f, "{table}")?;
        let refused = seen.refused.iter().map(|(answer, count)| format!("{answer} {count}"));
        let refused = refused.collect::<Vec<_>>().join(", ");
        let refused = if refused.is_empty() { "none" } else { &refused };
        writeln!(
            f,
            "refused: {refused}; orders that ended otherwise than their payment says, or not: {}",
            seen.wrong
        )?;
        writeln!(f, "{usage}")
    }
}

#[cfg(test)]
mod tests {
    use schemas::OrderState;

    use super::*;

    #[tokio::test]
    async fn an_end_is_heard_whether_it_comes_before_or_after_its_answer() {
        let ends = Arc::new(Ends::default());
        let ended = |order| Ended { order, state: OrderState::Paid, at: Instant::now() };
        let (early, late) = (OrderId(uuid::Uuid::now_v7()), OrderId(uuid::Uuid::now_v7()));
        ends.over(ended(early));
        assert_eq!(ends.of(early).await.map(|ended| ended.order), Some(early));
        let waits = tokio::spawn({
            let ends = Arc::clone(&ends);
            async move { ends.of(late).await }
        });
        // Also if nobody waits for it yet.
        tokio::task::yield_now().await;
        ends.over(ended(late));
        assert_eq!(waits.await.unwrap().map(|ended| ended.order), Some(late));
        assert!(ends.0.lock().unwrap().is_empty(), "what was heard is not kept");
    }
}
