//! What the worker did. Replies are counted once they are durable, provider calls when they end.

use std::collections::HashMap;
use std::time::Duration;

use payment_domain::{
    Action, Answer, ChargeAnswer, ProviderAnswer, QueryAnswer, RefundAnswer, Reply, VoidAnswer,
};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry,
    register_histogram_vec_with_registry, register_int_counter_vec_with_registry,
    register_int_counter_with_registry, register_int_gauge_with_registry,
};
use schemas::{DeclineReason, PaymentCommandKind};

/// Metrics of one process.
#[derive(Debug, Clone)]
pub struct PaymentMetrics {
    replies: IntCounterVec,
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    contradictions: IntCounter,
    /// Calls that the provider has not answered yet.
    pub(crate) in_flight: IntGauge,
    /// Charges whose next call is in memory: waiting for its time or its turn, or in flight.
    pub(crate) in_hand: IntGauge,
    /// 0 closed, 1 half-open, 2 open.
    pub(crate) breaker: IntGauge,
}

impl PaymentMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// If names are taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds = HistogramOpts::new("payment_provider_call_seconds", "Duration of provider calls.")
            .buckets(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ]);
        Ok(Self {
            replies: register_int_counter_vec_with_registry!(
                "payment_replies_total",
                "Replies to sagas by what they say.",
                &["answer"],
                registry
            )?,
            calls: register_int_counter_vec_with_registry!(
                "payment_provider_calls_total",
                "Provider calls by action and outcome.",
                &["action", "outcome"],
                registry
            )?,
            call_seconds: register_histogram_vec_with_registry!(seconds, &["action"], registry)?,
            contradictions: register_int_counter_with_registry!(
                "payment_provider_contradictions_total",
                "The provider said voided or declined about money that it took: look at the provider.",
                registry
            )?,
            in_flight: register_int_gauge_with_registry!(
                "payment_provider_calls_in_flight",
                "Provider calls that are not answered yet.",
                registry
            )?,
            in_hand: register_int_gauge_with_registry!(
                "payment_charges_in_hand",
                "Charges whose next provider call is in memory.",
                registry
            )?,
            breaker: register_int_gauge_with_registry!(
                "payment_provider_breaker_state",
                "Circuit breaker to the provider: 0 closed, 1 half-open, 2 open.",
                registry
            )?,
        })
    }

    /// Counts what has been committed.
    pub(crate) fn count(&self, tally: &mut Tally) {
        for (answer, replies) in tally.replies.drain() {
            self.replies.with_label_values(&[answer]).inc_by(replies);
        }
        self.contradictions.inc_by(std::mem::take(&mut tally.contradictions));
    }

    pub(crate) fn called(&self, answer: &ProviderAnswer, took: Duration) {
        let action = match answer {
            ProviderAnswer::Charge(_) => "charge",
            ProviderAnswer::Query(_) => "query",
            ProviderAnswer::Void(_) => "void",
            ProviderAnswer::Refund(_) => "refund",
        };
        self.calls.with_label_values(&[action, outcome(answer)]).inc();
        self.call_seconds.with_label_values(&[action]).observe(took.as_secs_f64());
    }
}

/// Counts of a transaction that is not yet committed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    replies: HashMap<&'static str, u64>,
    pub(crate) contradictions: u64,
}

impl Tally {
    pub(crate) fn note(&mut self, reply: &Reply) {
        let answer = match &reply.answer {
            Answer::Approved { .. } => "approved",
            Answer::Declined(reason) => declined(*reason),
            Answer::Closed => "closed",
            Answer::Refunded { .. } => "refunded",
            Answer::Failed { command: PaymentCommandKind::Charge, .. } => "charge_failed",
            Answer::Failed { command: PaymentCommandKind::Close, .. } => "close_failed",
            Answer::Failed { command: PaymentCommandKind::Refund, .. } => "refund_failed",
        };
        *self.replies.entry(answer).or_default() += 1;
    }
}

const fn declined(reason: DeclineReason) -> &'static str {
    match reason {
        DeclineReason::Declined => "declined",
        DeclineReason::OverLimit => "over_limit",
        DeclineReason::Abandoned => "abandoned",
    }
}

pub(crate) const fn outcome(answer: &ProviderAnswer) -> &'static str {
    match answer {
        ProviderAnswer::Charge(ChargeAnswer::Approved { .. })
        | ProviderAnswer::Query(QueryAnswer::Approved { .. })
        | ProviderAnswer::Void(VoidAnswer::Approved { .. }) => "approved",
        ProviderAnswer::Charge(ChargeAnswer::Declined(reason))
        | ProviderAnswer::Query(QueryAnswer::Declined(reason))
        | ProviderAnswer::Void(VoidAnswer::Declined(reason)) => declined(*reason),
        ProviderAnswer::Charge(ChargeAnswer::Voided)
        | ProviderAnswer::Query(QueryAnswer::Voided)
        | ProviderAnswer::Void(VoidAnswer::Voided) => "voided",
        ProviderAnswer::Query(QueryAnswer::NotFound) | ProviderAnswer::Void(VoidAnswer::NotFound) => {
            "not_found"
        }
        ProviderAnswer::Charge(ChargeAnswer::Unknown)
        | ProviderAnswer::Query(QueryAnswer::Unknown)
        | ProviderAnswer::Void(VoidAnswer::Unknown)
        | ProviderAnswer::Refund(RefundAnswer::Unknown) => "unknown",
        ProviderAnswer::Charge(ChargeAnswer::NotSent) => "not_sent",
        ProviderAnswer::Refund(RefundAnswer::Refunded { .. }) => "refunded",
        ProviderAnswer::Refund(RefundAnswer::Refused { .. }) => "refused",
    }
}

/// The answer of a call that ended without one.
pub(crate) const fn unknown(action: &Action) -> ProviderAnswer {
    match action {
        Action::Charge { .. } => ProviderAnswer::Charge(ChargeAnswer::Unknown),
        Action::Query => ProviderAnswer::Query(QueryAnswer::Unknown),
        Action::Void => ProviderAnswer::Void(VoidAnswer::Unknown),
        Action::Refund { .. } => ProviderAnswer::Refund(RefundAnswer::Unknown),
    }
}
