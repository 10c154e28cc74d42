//! What slow answers of the payment provider cost those who don't get them: nothing, if calls don't wait for each other.

use std::fmt;

use clap::Args;

use crate::audit::Audit;
use crate::endpoints::Endpoints;
use crate::http::{self, Http};
use crate::out::say;
use crate::spread::{Spread, in_turn};
use crate::table::{Table, ms};

/// `load-test slow`
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Orders a second.
    #[arg(long, default_value_t = 300)]
    pub(crate) rate: u32,
    /// Of a hundred orders, how many have a payment that takes three seconds: 3 keep as many calls under way as one of a hundred
    /// that takes nine.
    #[arg(long, default_value_t = 3)]
    pub(crate) slow: u32,
    /// Runs without and with them, in turn.
    #[arg(long, default_value_t = 7)]
    pub(crate) pairs: u32,
    /// Seconds of each run that count.
    #[arg(long, default_value_t = 15)]
    pub(crate) seconds: u32,
}

/// The other orders' p99 without and with slow ones beside them, by pair.
struct Pairs {
    options: Options,
    p99: Vec<(f64, f64)>,
}

fn ratio((without, with): &(f64, f64)) -> f64 {
    with / without.max(0.001)
}

/// `load-test slow`: whether every order ended as its payment says, and the audit is clean.
pub(crate) async fn run(endpoints: &Endpoints, options: &Options) -> anyhow::Result<bool> {
    let shop = http::shop(endpoints, 1_000).await?;
    let mut pairs = Pairs { options: options.clone(), p99: Vec::new() };
    let run = async |slow: u32, seed: u32| {
        let plan = Http {
            declined: 0,
            slow,
            seed: seed.into(),
            ..Http::at(options.rate, options.seconds, 5, 1_000)
        };
        let outcome = http::measure(endpoints, &shop, &plan).await?;
        anyhow::Ok((outcome.seen.complete.figures().p99, outcome.is_right()))
    };
    let mut is_right = true;
    for pair in 0..options.pairs.max(1) {
        let ((without, is_one_right), (with, is_other_right)) =
            in_turn(pair, run(0, pair), run(options.slow, pair)).await?;
        is_right &= is_one_right && is_other_right;
        eprintln!("  pair {}: p99 {} ms without, {} ms with", pair + 1, ms(without), ms(with));
        pairs.p99.push((without, with));
    }
    let audit = Audit::run(endpoints).await?;
    say(format_args!("{pairs}\n{audit}"))?;
    Ok(is_right && audit.is_clean())
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { rate, slow, seconds, .. } = self.options;
        writeln!(f, "{rate} orders/s for {seconds} s: p99 of orders that are paid at once, ms\n")?;
        let mut table = Table::new(["pair", "none slow", &format!("{slow} of 100 take 3 s"), "ratio"]);
        for (number, pair) in (1..).zip(&self.p99) {
            let (without, with) = *pair;
            table.row([u32::to_string(&number), ms(without), ms(with), format!("{:.2}", ratio(pair))]);
        }
        write!(f, "{table}")?;
        match Spread::of(self.p99.iter().map(ratio)) {
            Some(ratio) => writeln!(f, "\nratio: median {ratio}"),
            None => Ok(()),
        }
    }
}
