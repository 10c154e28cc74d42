//! What comparable systems publish about themselves, beside what was seen here, with the conditions of both. Their figures are
//! from their own machines and loads: a comparison of sizes, not a race.

use std::fmt;

use serde::Serialize;

use crate::http::Outcome;
use crate::table::{Table, ms};
use crate::users;

/// The comparisons for which there is a figure of ours.
#[derive(Default, Serialize)]
pub(super) struct Published(Vec<Row>);

#[derive(Serialize)]
struct Row {
    what: &'static str,
    system: &'static str,
    theirs: &'static str,
    their_conditions: &'static str,
    here: String,
    here_conditions: String,
    is_better: bool,
}

fn conditions(outcome: &Outcome) -> String {
    let (plan, declined, abandoned) = (&outcome.plan, outcome.plan.mix.declined, outcome.plan.mix.abandoned);
    format!(
        "{:.0} requests/s for {} s, {} customers, {abandoned} % abandoned, {declined} % declined",
        plan.per_second,
        plan.steady.as_secs(),
        plan.customers
    )
}

fn journeys(outcome: &users::Outcome) -> String {
    format!(
        "{} users without pauses: product, order ({} % declined), its end, latest five orders",
        outcome.users, outcome.declined
    )
}

impl Published {
    /// Five minutes of a thousand orders a second, of which a fifth is abandoned and a fifth declined.
    pub(super) fn steady(&mut self, outcome: &Outcome) {
        let taken = outcome.seen.taken.figures();
        self.0.push(Row {
            what: "order, mean / p95",
            system: "FcomeFserve",
            theirs: "20 / 56 ms",
            their_conditions: "1,000 requests/s for 5 minutes, 5,000 virtual users, 20 % abandoned, 20 % failed",
            here: format!("{} / {} ms", ms(taken.mean), ms(taken.p95)),
            here_conditions: conditions(outcome),
            is_better: taken.mean < 20.0 && taken.p95 < 56.0,
        });
    }

    /// Ten thousand orders, each with its payment, within ten seconds.
    pub(super) fn burst(&mut self, outcome: &Outcome) {
        let (taken, complete) = (outcome.seen.taken.figures(), outcome.seen.complete.figures());
        let rate = outcome.completed_per_second;
        for (what, theirs, figures, bound) in [
            ("create order, mean and rate", "about 3.0 s, 425/s", taken, 425.0),
            ("ordered and paid, mean and rate", "about 3.0 s for the payment alone, 432/s", complete, 432.0),
        ] {
            self.0.push(Row {
                what,
                system: "buyme",
                theirs,
                their_conditions: "10,000 users in 10 s",
                here: format!("{} ms, {rate:.0}/s", ms(figures.mean)),
                here_conditions: conditions(outcome),
                is_better: figures.mean < 3_000.0 && rate > bound,
            });
        }
    }

    /// Two hundred users.
    pub(super) fn many_users(&mut self, outcome: &users::Outcome) {
        let (rate, complete) = (outcome.per_second(&outcome.seen.complete), outcome.seen.complete.figures());
        self.0.push(Row {
            what: "whole saga, mean and rate",
            system: "limited-edition",
            theirs: "6.59 s, 15.6/s",
            their_conditions: "200 users",
            here: format!("{} ms, {rate:.0}/s", ms(complete.mean)),
            here_conditions: journeys(outcome),
            is_better: complete.mean < 6_590.0 && rate > 15.6,
        });
        let read = |name: &str| outcome.seen.requests.get(name).map(|seen| (seen, seen.figures()));
        let (Some((all, latest)), Some((_, product))) = (read("latest five orders"), read("product")) else {
            return;
        };
        let rate = outcome.per_second(all);
        self.0.push(Row {
            what: "latest five orders, mean / max",
            system: "limited-edition",
            theirs: "42.9 / 95 ms, 369/s",
            their_conditions: "200 users, 10,000 orders",
            here: format!("{} / {} ms, {rate:.0}/s beside as many orders", ms(latest.mean), ms(latest.max)),
            here_conditions: journeys(outcome),
            is_better: latest.mean < 42.9 && latest.max < 95.0,
        });
        self.0.push(Row {
            what: "stock, mean / max",
            system: "limited-edition",
            theirs: "12.96 / 85.6 ms",
            their_conditions: "200 users",
            here: format!("{} / {} ms", ms(product.mean), ms(product.max)),
            here_conditions: journeys(outcome),
            is_better: product.mean < 12.96 && product.max < 85.6,
        });
    }

    /// Forty users.
    pub(super) fn some_users(&mut self, outcome: &users::Outcome) {
        let requests = outcome.requests();
        let (all, rate) = (requests.figures(), outcome.per_second(&requests));
        self.0.push(Row {
            what: "mixed journey, p95",
            system: "hhplus-e-commerce",
            theirs: "45.6 ms, no errors",
            their_conditions: "40 virtual users",
            here: format!("{} ms at {rate:.0} requests/s", ms(all.p95)),
            here_conditions: journeys(outcome),
            is_better: all.p95 < 45.6,
        });
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        writeln!(f, "Beside what comparable systems publish of themselves, on their machines:\n")?;
        let mut table = Table::new([
            "what",
            "system",
            "published",
            "its conditions",
            "here",
            "conditions here",
            "better",
        ]);
        for row in &self.0 {
            let better = if row.is_better { "yes" } else { "no" };
            let Row { what, system, theirs, their_conditions, here, here_conditions, .. } = row;
            let cells = [what, system, theirs, their_conditions, here.as_str(), here_conditions, better];
            table.row(cells.map(str::to_owned));
        }
        write!(f, "{table}")
    }
}
