//! The table at the end, and whether everything adds up.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use auditor::Databases;
use auditor::settled::{Claim, Patience, audit_settled};
use hdrhistogram::Histogram;
use kafka_cluster::Cluster;

use super::buyer::{Money, Outcome, Purchase};
use crate::cli::Demo;
use crate::endpoints::Endpoints;

/// Orders may still be on their way when the sale is over, those of others too.
const PATIENCE: Patience = Patience { unchanged: Duration::from_secs(15), total: Duration::from_secs(30) };

pub(super) struct Report {
    buyers: u32,
    units: u32,
    took: Duration,
    sold: u32,
    payment_failed: BTreeMap<String, u32>,
    refused: BTreeMap<String, u32>,
    unsettled: Vec<String>,
    /// What the auditor said.
    notes: Vec<String>,
    repeats: u32,
    accepted: Latency,
    settled: Latency,
    money: Money,
    left: u64,
    /// Each claim with whether it holds.
    checks: Vec<(String, bool)>,
}

impl Report {
    pub(super) fn new(options: &Demo, purchases: &[Purchase], took: Duration, left: u64) -> Self {
        let mut report = Self {
            buyers: options.buyers,
            units: options.units,
            took,
            sold: 0,
            payment_failed: BTreeMap::new(),
            refused: BTreeMap::new(),
            unsettled: Vec::new(),
            notes: Vec::new(),
            repeats: 0,
            accepted: Latency::new(),
            settled: Latency::new(),
            money: Money::default(),
            left,
            checks: Vec::new(),
        };
        let mut wrong_money = 0_u32;
        for purchase in purchases {
            wrong_money += u32::from(!report.add(purchase));
        }
        report.check(wrong_money);
        report
    }

    /// Counts one purchase; `false` if its money is wrong.
    fn add(&mut self, purchase: &Purchase) -> bool {
        let money = purchase.money;
        let mut kept_is_right = money.charged == money.refunded;
        match &purchase.outcome {
            Outcome::Sold => {
                self.sold += 1;
                kept_is_right = money.charged == money.due && money.due > 0 && money.refunded == 0;
            }
            Outcome::PaymentFailed { reason } => *self.payment_failed.entry(reason.clone()).or_default() += 1,
            Outcome::Refused { reason } => *self.refused.entry(reason.clone()).or_default() += 1,
            Outcome::Other { state } => self.unsettled.push(format!("an order ended {state}")),
            Outcome::Unsettled { last } => self.unsettled.push(last.clone()),
        }
        self.repeats += purchase.repeats;
        self.accepted.record(purchase.accepted_after);
        self.settled.record(purchase.settled_after);
        self.money.due += money.due;
        self.money.charged += money.charged;
        self.money.refunded += money.refunded;
        kept_is_right
    }

    fn check(&mut self, wrong_money: u32) {
        let sold_and_left = u64::from(self.sold) + self.left;
        let claims = [
            (format!("nothing oversold: {} sold of {}", self.sold, self.units), self.sold <= self.units),
            (
                format!("units conserved: {} = {} sold + {} left", self.units, self.sold, self.left),
                u64::from(self.units) == sold_and_left,
            ),
            (
                format!("money conserved: {} orders whose charges do not match their end", wrong_money),
                wrong_money == 0,
            ),
            (
                format!("every buyer knows the outcome: {} do not", self.unsettled.len()),
                self.unsettled.is_empty(),
            ),
        ];
        self.checks.extend(claims);
    }

    /// Lets the auditor compare the services' databases, once nothing of this sale is on its way, and takes over what it found.
    pub(super) async fn audit(&mut self, endpoints: &Endpoints) -> anyhow::Result<()> {
        let databases = Databases::open(&endpoints.postgres)?;
        let cluster = Cluster::new(&endpoints.kafka, &endpoints.kafka_security);
        let settled = audit_settled(&databases, cluster, PATIENCE).await?;
        self.checks.extend(settled.claims.into_iter().map(|Claim { claim, holds }| (claim, holds)));
        self.notes.extend(settled.notes);
        Ok(())
    }

    pub(super) fn holds(&self) -> bool {
        self.checks.iter().all(|(_, holds)| *holds)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: u32 = self.payment_failed.values().sum();
        let refused: u32 = self.refused.values().sum();
        writeln!(f, "\n  {:<26} {:>10}", "buyers", self.buyers)?;
        writeln!(f, "  {:<26} {:>10}", "units", self.units)?;
        writeln!(f, "  {:<26} {:>10}", "sold", self.sold)?;
        writeln!(f, "  {:<26} {failed:>10}   {}", "compensated", reasons(&self.payment_failed))?;
        writeln!(f, "  {:<26} {refused:>10}   {}", "refused", reasons(&self.refused))?;
        writeln!(f, "  {:<26} {:>10}", "unsettled", self.unsettled.len())?;
        writeln!(f, "  {:<26} {:>10}", "requests repeated", self.repeats)?;
        writeln!(f, "  {:<26} {:>10}", "charged, minor units", self.money.charged)?;
        writeln!(f, "  {:<26} {:>10}", "refunded, minor units", self.money.refunded)?;
        writeln!(f, "  {:<26} {:>8.1} s", "took", self.took.as_secs_f64())?;
        writeln!(f, "\n  {:<26} {:>10} {:>10} {:>10}", "latency, ms", "p50", "p95", "p99")?;
        writeln!(f, "  {:<26} {}", "order accepted (202)", self.accepted)?;
        writeln!(f, "  {:<26} {}", "outcome known", self.settled)?;
        writeln!(f)?;
        for (claim, holds) in &self.checks {
            writeln!(f, "  {} {claim}", if *holds { "ok    " } else { "BROKEN" })?;
        }
        for last in self.unsettled.iter().chain(&self.notes).take(10) {
            writeln!(f, "         {last}")?;
        }
        Ok(())
    }
}

fn reasons(counts: &BTreeMap<String, u32>) -> String {
    counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
}

/// Latencies in microseconds, three digits exact.
struct Latency(Option<Histogram<u64>>);

impl Latency {
    fn new() -> Self {
        Self(Histogram::new(3).ok())
    }

    fn record(&mut self, latency: Option<Duration>) {
        if let (Some(histogram), Some(latency)) = (&mut self.0, latency) {
            // Grows as needed; only a latency of centuries has no place.
            histogram.record(u64::try_from(latency.as_micros()).unwrap_or_default()).ok();
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(histogram) = &self.0 else { return Ok(()) };
        let ms =
            |quantile: f64| Duration::from_micros(histogram.value_at_quantile(quantile)).as_secs_f64() * 1e3;
        write!(f, "{:>10.1} {:>10.1} {:>10.1}", ms(0.5), ms(0.95), ms(0.99))
    }
}
