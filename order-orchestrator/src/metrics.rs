//! What happened to sagas, counted once it is durable.

use std::collections::HashMap;

use prometheus::{
    IntCounterVec, IntGauge, Registry, register_int_counter_vec_with_registry,
    register_int_gauge_with_registry,
};
use saga::{Decision, Saga};
use schemas::TimerName;

use crate::messages::timer_name;

/// Metrics of one process.
#[derive(Debug, Clone)]
pub struct SagaMetrics {
    transitions: IntCounterVec,
    operator: IntCounterVec,
    refused: IntCounterVec,
    ignored: IntCounterVec,
    timers: IntCounterVec,
    pub(crate) cached: IntGauge,
}

impl SagaMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// If names are taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register_int_counter_vec_with_registry!(name, help, labels, registry)
        };
        Ok(Self {
            transitions: counter(
                "saga_transitions_total",
                "Sagas that went from one state to another; those in a state are its entries less its exits.",
                &["from", "to"],
            )?,
            operator: counter(
                "saga_needs_operator_total",
                "Sagas that began to wait for an operator, or went on.",
                &["change"],
            )?,
            refused: counter("saga_requests_refused_total", "Requests refused, by code.", &["code"])?,
            ignored: counter(
                "saga_inputs_ignored_total",
                "Inputs that changed nothing, by reason.",
                &["reason"],
            )?,
            timers: counter("saga_timers_fired_total", "Timers fired, by name.", &["timer"])?,
            cached: register_int_gauge_with_registry!("saga_cached_sagas", "Sagas in memory.", registry)?,
        })
    }

    /// Counts what has been committed.
    pub(crate) fn count(&self, tally: &mut Tally) {
        for ((from, to), sagas) in tally.transitions.drain() {
            self.transitions.with_label_values(&[from, to]).inc_by(sagas);
        }
        for (counter, counts) in [
            (&self.operator, &mut tally.operator),
            (&self.refused, &mut tally.refused),
            (&self.ignored, &mut tally.ignored),
            (&self.timers, &mut tally.timers),
        ] {
            for (label, count) in counts.drain() {
                counter.with_label_values(&[label]).inc_by(count);
            }
        }
    }
}

/// Counts of a transaction that is not yet committed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    transitions: HashMap<(&'static str, &'static str), u64>,
    operator: HashMap<&'static str, u64>,
    refused: HashMap<&'static str, u64>,
    ignored: HashMap<&'static str, u64>,
    timers: HashMap<&'static str, u64>,
}

impl Tally {
    pub(crate) fn note(
        &mut self,
        before: Option<(&'static str, bool)>,
        decision: &Decision,
        after: Option<&Saga>,
    ) {
        match decision {
            Decision::Advance(_) => {}
            Decision::Refuse(code, _) => *self.refused.entry(code.as_str()).or_default() += 1,
            Decision::Ignore(reason) => *self.ignored.entry(reason.as_str()).or_default() += 1,
        }
        let Some(after) = after else { return };
        let (from, needed) = before.unwrap_or(("", false));
        let (to, needs) = (after.state.as_str(), after.needs_operator());
        if from != to {
            *self.transitions.entry((from, to)).or_default() += 1;
        }
        if needed != needs {
            *self.operator.entry(if needs { "waits" } else { "goes_on" }).or_default() += 1;
        }
    }

    pub(crate) fn fired(&mut self, timer: TimerName) {
        *self.timers.entry(timer_name(timer)).or_default() += 1;
    }
}
