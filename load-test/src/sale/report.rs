//! What was seen, and whether what must hold does.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use auditor::first_come::FirstCome;
use serde::Serialize;

use super::Sale;
use super::buyer::{Ended, Tried, is_sold};
use crate::latency::Latency;

/// Most details that are printed.
const MOST_NOTES: usize = 10;

/// What a sale brought.
#[derive(Serialize)]
pub(crate) struct Report {
    sku: String,
    buyers: u32,
    tries: u32,
    units: u32,
    limit: u32,
    offered_per_second: f64,
    took_s: f64,
    /// Answers by status and code, also those that asked to come again.
    answers: BTreeMap<String, u64>,
    /// Milliseconds from the instant at which the customer came, by what the try ended with.
    latency_ms: BTreeMap<String, Latency>,
    /// The same, to the first request: how late this program was.
    sent_ms: Latency,
    /// Tries without an answer.
    unanswered: u64,
    /// Orders by state and reason.
    orders: BTreeMap<String, u64>,
    sold: u64,
    most_of_one_customer: u64,
    available: Vec<u64>,
    reserves: u64,
    tickets: u64,
    /// Whether every order had a ticket of one count, so that all tickets had to be honoured.
    is_promised: bool,
    checks: Vec<Check>,
    notes: Vec<String>,
    #[serde(skip)]
    all_pay: bool,
}

/// A claim, and whether it holds.
#[derive(Serialize)]
struct Check {
    claim: String,
    holds: bool,
}

impl Report {
    pub(super) fn new(sku: &str, options: &Sale) -> anyhow::Result<Self> {
        let tries = f64::from(options.buyers) * f64::from(options.tries);
        Ok(Self {
            sku: sku.to_owned(),
            buyers: options.buyers,
            tries: options.tries,
            units: options.units,
            limit: options.limit,
            offered_per_second: tries / options.within.as_secs_f64(),
            took_s: 0.0,
            answers: BTreeMap::new(),
            latency_ms: BTreeMap::new(),
            sent_ms: Latency::default(),
            unanswered: 0,
            orders: BTreeMap::new(),
            sold: 0,
            most_of_one_customer: 0,
            available: Vec::new(),
            reserves: 0,
            tickets: 0,
            is_promised: false,
            checks: Vec::new(),
            notes: Vec::new(),
            all_pay: options.declined == 0,
        })
    }

    pub(super) fn tried(&mut self, tried: &Tried) {
        for answer in &tried.answers {
            *self.answers.entry(answer.clone()).or_default() += 1;
        }
        self.sent_ms.record(tried.sent_after);
        let ended = match &tried.ended {
            Ended::Accepted(_) => "accepted",
            Ended::Refused(code) => code.as_str(),
            Ended::Unanswered => {
                self.unanswered += 1;
                return;
            }
        };
        self.latency_ms.entry(ended.to_owned()).or_default().record(tried.ended_after);
    }

    pub(super) fn took(&mut self, took: Duration) {
        self.took_s = took.as_secs_f64();
        let known = ["accepted", "sold_out", "limit_exceeded"];
        let others: Vec<String> =
            self.latency_ms.keys().filter(|code| !known.contains(&code.as_str())).cloned().collect();
        let holds = self.unanswered == 0 && others.is_empty();
        let claim =
            format!("every try has an answer of this sale: {} have none, others {others:?}", self.unanswered);
        self.checks.push(Check { claim, holds });
    }

    /// Takes over how each order ended, and whose it is.
    pub(super) fn ended(&mut self, orders: Vec<(usize, String)>) {
        let mut of_customer: HashMap<usize, u64> = HashMap::new();
        let mut on_their_way = 0_u64;
        for (buyer, ended) in orders {
            let is_sold = ended.split(' ').next().is_some_and(is_sold);
            self.sold += u64::from(is_sold);
            *of_customer.entry(buyer).or_default() += u64::from(is_sold);
            if ended.starts_with("on its way") {
                on_their_way += 1;
            }
            *self.orders.entry(ended).or_default() += 1;
        }
        self.most_of_one_customer = of_customer.values().copied().max().unwrap_or_default();
        let (sold, units) = (self.sold, u64::from(self.units));
        let holds = on_their_way == 0 && if self.all_pay { sold == units } else { sold <= units };
        let claim = format!("{sold} sold of {units}, {on_their_way} on their way");
        self.checks.push(Check { claim, holds });
        let (most, limit) = (self.most_of_one_customer, self.limit);
        let claim = format!("no customer has more than {limit}: the most is {most}");
        self.checks.push(Check { claim, holds: most <= u64::from(limit) });
    }

    /// Units that must be left.
    pub(super) fn expected_left(&self) -> u64 {
        u64::from(self.units).saturating_sub(self.sold)
    }

    pub(super) fn available(&mut self, available: &[u64]) {
        self.available = available.to_vec();
        let expected = self.expected_left();
        let claim = format!("every node says that {expected} are left: {available:?}");
        self.checks.push(Check { claim, holds: available.iter().all(|left| *left == expected) });
    }

    pub(super) fn turns(&mut self, sku: &str, turns: &FirstCome) {
        (self.reserves, self.tickets) = (turns.reserves, turns.tickets);
        self.is_promised = !turns.skus_without_promise.contains(sku);
        let claim = format!(
            "first come, first served: {} reserves in the order they were applied, {} tickets, {} out of turn{}",
            turns.reserves,
            turns.tickets,
            turns.violations.len(),
            if self.is_promised { "" } else { "; tickets of this sale promise nothing: Redis was away" },
        );
        self.checks.push(Check { claim, holds: turns.violations.is_empty() });
        self.notes.extend(turns.violations.iter().take(MOST_NOTES).map(ToString::to_string));
    }

    /// What was promised, in short: how many were sold, and how many had their turn.
    pub(crate) fn sold(&self) -> String {
        format!(
            "{} of {} sold, {} reserves in order, {} tickets honoured",
            self.sold, self.units, self.reserves, self.tickets
        )
    }

    /// Whether all that must hold does.
    pub(crate) fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { buyers, tries, units, limit, .. } = self;
        writeln!(
            f,
            "{buyers} customers, {tries} tries each at once, {units} units, {limit} for each: {}",
            self.sku
        )?;
        writeln!(
            f,
            "  offered {:.0} orders/s; all answered after {:.2} s",
            self.offered_per_second, self.took_s
        )?;
        for (answer, count) in &self.answers {
            writeln!(f, "  {answer:<24} {count:>8} answers")?;
        }
        for (ended, count) in &self.orders {
            writeln!(f, "  {ended:<24} {count:>8} orders")?;
        }
        writeln!(
            f,
            "  {:<16} {:>8} {:>9} {:>9} {:>9} {:>9}",
            "latency, ms", "tries", "p50", "p95", "p99", "max"
        )?;
        for (ended, latency) in &self.latency_ms {
            writeln!(f, "  {ended:<16} {latency}")?;
        }
        writeln!(f, "  {:<16} {}", "(sent)", self.sent_ms)?;
        for Check { claim, holds } in &self.checks {
            writeln!(f, "  {} {claim}", if *holds { "ok    " } else { "BROKEN" })?;
        }
        for note in &self.notes {
            writeln!(f, "         {note}")?;
        }
        Ok(())
    }
}
