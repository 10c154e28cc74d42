//! Users who come back: each does one thing after the other, as those of comparable systems' load tests do (a closed loop). A system
//! that is slow gets fewer requests, so its latencies flatter it where those of [`crate::http`] do not; they are for
//! comparison with figures that were made the same way.

use std::collections::BTreeMap;
use std::fmt;
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
use crate::catalogue::PLENTY;
use crate::endpoints::Endpoints;
use crate::http::client::{Answer, Call, Connection};
use crate::http::drive::{Shop, customers, order_of, said};
use crate::http::hear;
use crate::http::plan::{Payment, to_f64};
use crate::latency::Latency;
use crate::machine::{Processes, Usage};
use crate::out::say;
use crate::table::{Table, ms};
use crate::watch::{Ended, Halves, Watch, watch};

/// How long an order may take to its end.
const PATIENCE: Duration = Duration::from_secs(30);

/// `load-test users`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Users at once. Each looks at a product, orders a unit of it, waits for the order's end, looks at its latest five orders, and begins
    /// again with another product, without a pause.
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
    /// Answers that are no success, by status and code, the warm-up's too; `none`: no answer.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Orders that ended otherwise than their payment says.
    pub(crate) wrong: u64,
    /// Journeys that could not go on: after a refusal, or because an order did not end in time.
    pub(crate) broken_off: u64,
}

/// Where users wait for the ends of their orders.
#[derive(Default)]
struct Ends(Mutex<Halves<oneshot::Sender<Ended>>>);

impl Ends {
    fn over(&self, ended: Ended) {
        let both = self.0.lock().unwrap_or_else(PoisonError::into_inner).ended(ended);
        if let Some((waits, ended)) = both {
            // Whoever waited may have gone.
            let _gone = waits.send(ended);
        }
    }

    /// How the order ends; nothing if it does not in time.
    async fn of(&self, order: OrderId) -> Option<Ended> {
        let (sender, waits) = oneshot::channel();
        let both = self.0.lock().unwrap_or_else(PoisonError::into_inner).answered(order, sender);
        match both {
            Some((_sender, ended)) => Some(ended),
            None => tokio::time::timeout(PATIENCE, waits).await.ok()?.ok(),
        }
    }
}

/// What users share.
struct Everybody {
    shop: Arc<Shop>,
    ends: Ends,
    declined: usize,
    counts_from: Instant,
    until: Instant,
}

/// `load-test users`: whether everything was right, and the audit clean.
pub(crate) async fn run(endpoints: &Endpoints, options: &Options) -> anyhow::Result<bool> {
    let outcome = measure(endpoints, options).await?;
    let audit = Audit::run(endpoints).await?;
    say(format_args!("{outcome}\n{audit}"))?;
    Ok(outcome.is_right() && audit.is_clean())
}

/// Lets the users come.
pub(crate) async fn measure(endpoints: &Endpoints, options: &Options) -> anyhow::Result<Outcome> {
    anyhow::ensure!(options.declined <= 100, "--declined is of a hundred");
    let customers = customers(options.users.max(1));
    let shop = Arc::new(Shop::open(endpoints, options.skus, PLENTY, &customers).await?);
    let mut watch = watch(&endpoints.cluster());
    hear(&shop, &mut watch).await?;
    let processes = Processes::of(&endpoints.home);
    let counts_from = Instant::now() + Duration::from_secs(options.warm_up.into());
    let until = counts_from + Duration::from_secs(options.seconds.max(1).into());
    let everybody =
        Arc::new(Everybody { shop, ends: Ends::default(), declined: options.declined, counts_from, until });
    let listening = tokio::spawn(listen(watch, Arc::clone(&everybody)));
    let mut users = Vec::new();
    for number in 0..options.users.max(1) {
        let addresses = &everybody.shop.addresses;
        let address = addresses.get(number % addresses.len().max(1)).context("no api")?;
        let user = User { number, connection: Connection::new(address)?, seen: Seen::default() };
        users.push(tokio::spawn(user.come(Arc::clone(&everybody))));
    }
    tokio::time::sleep_until(counts_from.into()).await;
    let before = processes.begin();
    let mut seen = Seen::default();
    for user in users {
        seen.merge(&user.await?);
    }
    let usage = processes.end(&before);
    anyhow::ensure!(!listening.is_finished(), "order-events could not be heard to the end");
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
    number: usize,
    connection: Connection,
    seen: Seen,
}

impl User {
    async fn come(mut self, everybody: Arc<Everybody>) -> Seen {
        // Users, and a user's orders, are spread over all products.
        let mut journey = self.number.wrapping_mul(7_919);
        while Instant::now() < everybody.until {
            if self.journey(&everybody, journey).await.is_none() {
                self.seen.broken_off += 1;
            }
            journey = journey.wrapping_add(1);
        }
        self.seen
    }

    /// Nothing if it could not be gone to its end.
    async fn journey(&mut self, everybody: &Everybody, journey: usize) -> Option<()> {
        let Everybody { shop, ends, declined, .. } = everybody;
        let sku = journey % shop.skus.len().max(1);
        // Of each hundred in a row, so many.
        let is_declined = journey.wrapping_mul(37) % 100 < *declined;
        let payment = if is_declined { Payment::Declined } else { Payment::Approved };
        let path = format!("/v1/products/{}", shop.skus.get(sku)?);
        self.ask(everybody, "product", (Method::GET, &path, Bytes::new())).await?;

        let (body, sent) = (shop.order(sku, payment).ok()?, Instant::now());
        let answer = self.ask(everybody, "order", (Method::POST, "/v1/orders", body)).await?;
        let ended = ends.of(order_of(&answer)?).await?;
        self.seen.wrong += u64::from(ended.state != payment.wanted());
        if everybody.counts(sent, ended.at) {
            self.seen.complete.record(ended.at.saturating_duration_since(sent));
        }

        self.ask(everybody, "latest five orders", (Method::GET, "/v1/orders?limit=5", Bytes::new())).await?;
        Some(())
    }

    /// A request, and its answer if there is one that is a success.
    async fn ask(
        &mut self,
        everybody: &Everybody,
        what: &'static str,
        (method, path, body): (Method, &str, Bytes),
    ) -> Option<Answer> {
        let authorization = everybody.shop.customers.get(self.number);
        let sent = Instant::now();
        let answer = self.connection.send(Call { method, path, authorization, body }).await;
        let answered = Instant::now();
        match answer {
            Ok(answer) if answer.status.is_success() => {
                if everybody.counts(sent, answered) {
                    self.seen.requests.entry(what).or_default().record(answered - sent);
                }
                Some(answer)
            }
            refused => {
                *self.seen.refused.entry(said(&refused)).or_default() += 1;
                None
            }
        }
    }
}

impl Everybody {
    /// Whether what began and ended then counts.
    fn counts(&self, began: Instant, ended: Instant) -> bool {
        began >= self.counts_from && ended < self.until
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
        self.broken_off += other.broken_off;
    }
}

impl Outcome {
    /// Every journey went to its end, and every order ended as its payment says.
    pub(crate) fn is_right(&self) -> bool {
        self.seen.broken_off == 0 && self.seen.wrong == 0
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
            "refused: {refused}; journeys broken off: {}; orders that ended otherwise than their payment says: {}",
            seen.broken_off, seen.wrong
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
    }
    #[test]
    fn only_what_began_and_ended_within_the_time_counts() {
        let (counts_from, second) = (Instant::now(), Duration::from_secs(1));
        let shop = Shop { addresses: Vec::new(), skus: Vec::new(), customers: Vec::new() };
        let everybody = Everybody {
            shop: Arc::new(shop),
            ends: Ends::default(),
            declined: 0,
            counts_from,
            until: counts_from + second * 2,
        };
        assert!(everybody.counts(counts_from, counts_from + second));
        assert!(!everybody.counts(counts_from - second, counts_from + second), "begun to warm up");
        assert!(!everybody.counts(counts_from + second, counts_from + second * 2), "over too late");
    }
}
