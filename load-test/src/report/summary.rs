//! The figures that were asked for, each beside its goal.

use std::fmt;

use serde::Serialize;

use crate::bare::Bare;
use crate::http::Outcome;
use crate::latency::Figures;
use crate::rivals::{Beside, Rivals};
use crate::sagas::paced::Rates;
use crate::steps::Steps;
use crate::stored::Stored;
use crate::table::{Table, ms};
use crate::{sagas, sale};

/// Goals of two cores with everything on them, and what was seen.
#[derive(Default, Serialize)]
pub(super) struct Summary {
    rows: Vec<Row>,
    /// Of orders over HTTP at 1,000/s, once they are seen.
    #[serde(skip)]
    steady: Option<Figures>,
}

#[derive(Serialize)]
struct Row {
    what: String,
    seen: String,
    goal: &'static str,
    /// None where there is no goal.
    is_met: Option<bool>,
}

impl Summary {
    fn row(&mut self, what: &str, seen: String, goal: &'static str, is_met: Option<bool>) {
        self.rows.push(Row { what: what.to_owned(), seen, goal, is_met });
    }

    pub(super) fn sagas(
        &mut self,
        uniform: Option<&sagas::Outcome>,
        hot: Option<&sagas::Outcome>,
        idle: Option<&sagas::Outcome>,
    ) {
        if let Some(uniform) = uniform {
            let (seen, is_met) = (format!("{:.0}/s", uniform.per_second), uniform.per_second >= 10_000.0);
            self.row("complete sagas, uniform over 1,000 skus", seen, ">= 10,000/s", Some(is_met));
        }
        if let (Some(uniform), Some(hot)) = (uniform, hot) {
            let ratio = hot.per_second / uniform.per_second;
            let seen = format!("{:.0}/s, {ratio:.2} of uniform", hot.per_second);
            self.row("complete sagas, one hot sku", seen, "not slower than uniform", Some(ratio >= 1.0));
        }
        if let Some(idle) = idle {
            let figures = idle.latency.figures();
            let seen = format!("p50 {} ms, p99 {} ms", ms(figures.p50), ms(figures.p99));
            let is_met = figures.p50 <= 5.5 && figures.p99 <= 10.0;
            self.row("one order at a time", seen, "p50 <= 5.5 ms, p99 <= 10 ms", Some(is_met));
        }
    }

    pub(super) fn bare(&mut self, bare: Option<&Bare>) {
        let Some(bare) = bare else { return };
        let ratio = bare.saga_ratio();
        let seen = format!("{ratio:.2} ({:.0} of {:.0}/s)", bare.sagas.per_second, bare.hops.per_second);
        self.row("sagas, of the bare loop", seen, ">= 0.8", Some(ratio >= 0.8));
        let (bare_ms, complete_ms) = bare.alone_ms();
        let seen = format!("{} ms, {} ms bare", ms(complete_ms), ms(bare_ms));
        self.row("one order right after the other, mean", seen, "", None);
        if let Some(ratio) = bare.door_ratio() {
            let is_met = Some(ratio.median >= 0.6);
            self.row("sold-out answers, of bare axum and Redis", ratio.to_string(), ">= 0.6", is_met);
        }
    }

    pub(super) fn http(&mut self, title: &str, outcome: &Outcome) {
        let (taken, complete) = (outcome.seen.taken.figures(), outcome.seen.complete.figures());
        let Outcome { usage, plan, .. } = outcome;
        if plan.mix.unpaid == 100 {
            let seen = format!("p50 {} ms, p95 {} ms", ms(taken.p50), ms(taken.p95));
            return self.row(&format!("{title}: 202"), seen, "p95 <= 5 ms", Some(taken.p95 <= 5.0));
        }
        let seen = format!(
            "p50 {} ms, p99 {} ms, {:.0} % idle",
            ms(complete.p50),
            ms(complete.p99),
            usage.idle * 100.0
        );
        if plan.mix.reads > 0 {
            let latest = outcome.seen.reads.get("latest five orders");
            let latest = latest.map_or(0.0, |latency| latency.figures().p95);
            let seen = format!("{seen}; latest five orders p95 {} ms", ms(latest));
            return self.row(
                &format!("{title}: complete"),
                seen,
                "latest five p95 <= 10 ms",
                Some(latest <= 10.0),
            );
        }
        self.steady = Some(complete);
        let is_met = complete.p50 <= 15.0 && complete.p99 <= 40.0 && usage.idle >= 0.3;
        let goal = "p50 <= 15 ms, p99 <= 40 ms, >= 30 % idle";
        self.row(&format!("{title}: complete"), seen, goal, Some(is_met));
    }

    pub(super) fn rivals(&mut self, rivals: Option<&Rivals>) {
        for (name, uniform, hot) in rivals.into_iter().flat_map(Rivals::ratios) {
            let (goal, is_met) = match name {
                name if name.starts_with("Restate") => {
                    (">= 10 times, >= 30 times of one sku", Some(uniform >= 10.0 && hot >= 30.0))
                }
                name if name.starts_with("DBOS") => (">= 25 times", Some(uniform >= 25.0)),
                name if name.starts_with("Temporal") => (">= 200 times", Some(uniform >= 200.0)),
                _ => ("", None),
            };
            let seen = format!("{uniform:.1} times, {hot:.1} times of one sku");
            self.row(&format!("sagas, as many as {name}"), seen, goal, is_met);
        }
        for Beside { name, idle: [own, theirs], at_best } in rivals.into_iter().flat_map(Rivals::beside) {
            self.beside(&format!("one order at a time, of {name}"), own, theirs);
            let Some(steady) = self.steady else { continue };
            let (p50, p99, rate) = at_best;
            let what = format!("1,000 orders/s over HTTP, of {name} at its {rate:.0}/s");
            self.beside(&what, (steady.p50, steady.p99), (p50, p99));
        }
    }

    /// p50 and p99 of this product beside another one's, in milliseconds.
    fn beside(&mut self, what: &str, own: (f64, f64), theirs: (f64, f64)) {
        let seen =
            format!("p50 {} of {} ms, p99 {} of {} ms", ms(own.0), ms(theirs.0), ms(own.1), ms(theirs.1));
        let is_met = own.0 < theirs.0 && own.1 < theirs.1;
        self.row(what, seen, "both lower", Some(is_met));
    }

    pub(super) fn sale(&mut self, sale: &sale::Report) {
        let goal = "all units, none more, nobody out of turn";
        self.row("a sale that is stormed", sale.sold(), goal, Some(sale.holds()));
    }

    pub(super) fn paced(&mut self, rates: &Rates) {
        let all = rates.0.iter().map(|run| format!("{:.0}", run.outcome.cpu_us()));
        let at = rates.0.iter().map(|run| run.rate.to_string());
        let what = format!("CPU per saga at {}/s, us", Vec::from_iter(at).join(", "));
        self.row(&what, Vec::from_iter(all).join(", "), "", None);
    }

    pub(super) fn stored(&mut self, orders: usize, stored: &Stored) {
        let Some((figure, ratio, latest)) = stored.worst() else { return };
        let seen = format!("{ratio} times as bad ({figure}); latest five orders p95 {} ms", ms(latest));
        // Where some pairs are within the bound and the middle is not, this run does not tell.
        let is_met = match latest <= 10.0 {
            true if ratio.median <= 1.1 => Some(true),
            true if ratio.least <= 1.1 => None,
            _ => Some(false),
        };
        let goal = "no figure worse by more than 10 %; latest five p95 <= 10 ms";
        self.row(&format!("with {orders} orders more, the worst figure"), seen, goal, is_met);
    }

    pub(super) fn steps(&mut self, climbed: &[Steps]) {
        for steps in climbed {
            let sustained = steps.sustained().map_or(0.0, Outcome::offered);
            let most = steps.most_per_second();
            let seen = format!("kept up with {sustained:.0}/s, at most {most:.0}/s");
            let what = format!("ordered over HTTP, {} skus", steps.skus);
            let (goal, is_met) =
                if steps.skus > 1 { (">= 5,000/s", Some(sustained >= 5_000.0)) } else { ("", None) };
            self.row(&what, seen, goal, is_met);
            let at_3_000 = steps.steps.iter().find(|step| (step.offered() - 3_000.0).abs() < 1.0);
            if steps.skus > 1 {
                let (seen, is_met) = at_3_000.map_or(("not reached".to_owned(), false), |step| {
                    let figures = step.seen.complete.figures();
                    let seen = format!("p50 {} ms, p99 {} ms", ms(figures.p50), ms(figures.p99));
                    (seen, figures.p50 <= 30.0 && figures.p99 <= 80.0)
                });
                self.row("3,000 orders/s over HTTP", seen, "p50 <= 30 ms, p99 <= 80 ms", Some(is_met));
            }
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["what", "seen", "goal", "met"]);
        for Row { what, seen, goal, is_met } in &self.rows {
            let met = match is_met {
                Some(true) => "yes",
                Some(false) => "no",
                None => "",
            };
            table.row([what.clone(), seen.clone(), (*goal).to_owned(), met.to_owned()]);
        }
        write!(f, "{table}")
    }
}
