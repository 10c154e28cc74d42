//! `audit --watch`: one audit after the other.

use std::sync::Arc;

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Registry};
use tokio_util::sync::CancellationToken;

use super::{Audited, Eyes, audit};
use crate::cli::Audit;
use crate::failure::{Failure, Verdict};
use crate::terminal::{Terminal, Tone, plain};

struct Metrics {
    violations: IntGaugeVec,
    unconfirmed: IntGauge,
    rounds: IntCounter,
    failed: IntCounter,
    last_clean: IntGauge,
}

impl Metrics {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let violations =
            prometheus::Opts::new("audit_violations", "What the last round found wrong, by rule.");
        let metrics = Self {
            violations: IntGaugeVec::new(violations, &["rule"])?,
            unconfirmed: IntGauge::new(
                "audit_unconfirmed",
                "What may only be late, a service being behind.",
            )?,
            rounds: IntCounter::new("audit_rounds_total", "Rounds that came to a result.")?,
            failed: IntCounter::new("audit_failed_rounds_total", "Rounds in which a server did not answer.")?,
            last_clean: IntGauge::new("audit_last_clean_timestamp_seconds", "When a round was last clean.")?,
        };
        registry.register(Box::new(metrics.violations.clone()))?;
        registry.register(Box::new(metrics.unconfirmed.clone()))?;
        registry.register(Box::new(metrics.rounds.clone()))?;
        registry.register(Box::new(metrics.failed.clone()))?;
        registry.register(Box::new(metrics.last_clean.clone()))?;
        Ok(metrics)
    }

    fn note(&self, audited: &Audited) {
        self.rounds.inc();
        self.violations.reset();
        for violation in &audited.violations {
            self.violations.with_label_values(&[violation.rule]).inc();
        }
        self.unconfirmed.set(i64::try_from(audited.unconfirmed.len()).unwrap_or(i64::MAX));
        if audited.clean {
            self.last_clean.set(audited.at.as_millis() / 1_000);
        }
    }
}

pub(super) async fn run(eyes: &Eyes, options: &Audit, terminal: &Terminal) -> Result<Verdict, Failure> {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).map_err(|error| Failure::usage(error.to_string()))?;
    let shutdown = CancellationToken::new();
    if let Some(listen) = options.metrics {
        let ready = Arc::new(|| Ok(()));
        let served = service_kit::admin::serve(listen, registry, ready, shutdown.clone()).await;
        served.map_err(|error| Failure::usage(format!("{listen} can't be opened for metrics: {error}")))?;
    }
    let mut found = false;
    let mut round = 0;
    loop {
        round += 1;
        match audit(eyes, false).await {
            Ok(audited) => {
                found = found || !audited.violations.is_empty();
                metrics.note(&audited);
                say(&audited, terminal)?;
            }
            // A watch outlives an outage.
            Err(failure) => {
                metrics.failed.inc();
                eprintln!("sagactl: {}", plain(&failure.to_string()));
            }
        }
        if options.rounds.is_some_and(|rounds| round >= rounds) {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(options.every) => {}
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    shutdown.cancel();
    Ok(Verdict::found_if(found))
}

fn say(audited: &Audited, terminal: &Terminal) -> Result<(), Failure> {
    if terminal.json {
        return terminal.json_line(audited);
    }
    let orders: u64 = audited.orders.values().sum();
    let verdict = if audited.clean {
        terminal.toned(Tone::Good, "clean")
    } else {
        terminal.toned(Tone::Bad, &format!("{} violations", audited.violations.len()))
    };
    let (on_their_way, looks) = (audited.on_their_way, audited.looks);
    terminal.line(format!(
        "{}  {verdict}: {orders} orders, {on_their_way} on their way, {looks} looks",
        terminal.time(audited.at)
    ));
    for violation in audited.violations.iter().chain(&audited.unconfirmed).take(20) {
        terminal.line(format!("  {}", plain(&violation.to_string())));
    }
    Ok(())
}
