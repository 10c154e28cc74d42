//! What the worker did, counted once it is durable.

use std::collections::HashMap;

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, Registry, register_int_counter_vec_with_registry,
    register_int_counter_with_registry, register_int_gauge_with_registry,
};
use schemas::{OrderSagaMessage, ReserveRefusal, StockChangeCode, StockEvent};
use stock_domain::{Answer, Decision};

/// Metrics of one process.
#[derive(Debug, Clone)]
pub struct StockMetrics {
    commands: IntCounterVec,
    republished: IntCounter,
    pub(crate) cached_items: IntGauge,
}

impl StockMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// If names are taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            commands: register_int_counter_vec_with_registry!(
                "stock_commands_total",
                "Stock commands by outcome; repeat: it had been carried out before, nothing changed.",
                &["outcome", "repeat"],
                registry
            )?,
            republished: register_int_counter_with_registry!(
                "stock_levels_republished_total",
                "Present levels that were published again because an older one was the last in the topic.",
                registry
            )?,
            cached_items: register_int_gauge_with_registry!(
                "stock_cached_items",
                "Items in memory.",
                registry
            )?,
        })
    }

    /// Counts what has been committed.
    pub(crate) fn count(&self, tally: &mut Tally) {
        for ((outcome, repeat), commands) in tally.commands.drain() {
            let repeat = if repeat { "true" } else { "false" };
            self.commands.with_label_values(&[outcome, repeat]).inc_by(commands);
        }
        self.republished.inc_by(std::mem::take(&mut tally.republished));
    }
}

/// Counts of a transaction that is not yet committed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    commands: HashMap<(&'static str, bool), u64>,
    pub(crate) republished: u64,
}

impl Tally {
    pub(crate) fn note(&mut self, decision: &Decision) {
        let repeat = decision.entry.is_none() && decision.hold.is_none() && decision.change.is_none();
        let outcome = outcome(&decision.answer);
        *self.commands.entry((outcome, repeat && !outcome.starts_with("failed"))).or_default() += 1;
    }
}

fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Answer::Saga(_, OrderSagaMessage::StockReserved(_)) => "reserved",
        Answer::Saga(_, OrderSagaMessage::StockRefused(refused)) => match refused.reason {
            ReserveRefusal::SoldOut => "refused_sold_out",
            ReserveRefusal::SaleClosed => "refused_sale_closed",
            ReserveRefusal::LimitExceeded => "refused_limit_exceeded",
            ReserveRefusal::UnknownSku => "refused_unknown_sku",
            ReserveRefusal::Released => "refused_released",
        },
        Answer::Saga(_, OrderSagaMessage::StockConfirmed(_)) => "confirmed",
        Answer::Saga(_, OrderSagaMessage::StockReleased(_)) => "released",
        Answer::Saga(_, OrderSagaMessage::StockRestocked(_)) => "restocked",
        // The worker replies with nothing else.
        Answer::Saga(_, _) => "failed",
        Answer::Admin(StockEvent::StockChangeApplied(_)) => "change_applied",
        Answer::Admin(StockEvent::StockChangeRefused(refused)) => match refused.code {
            StockChangeCode::UnknownSku => "change_refused_unknown_sku",
            StockChangeCode::NotEnoughAvailable => "change_refused_not_enough_available",
            StockChangeCode::InitialStockRequired => "change_refused_initial_stock_required",
            StockChangeCode::TooManyUnits => "change_refused_too_many_units",
            StockChangeCode::InvalidProduct => "change_refused_invalid_product",
        },
    }
}
