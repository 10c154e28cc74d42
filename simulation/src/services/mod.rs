//! The three services: their real handlers on tables in memory.

mod payment;
mod sagas;
mod stock;

use std::sync::OnceLock;

use messaging::HandlerError;
use order_orchestrator::SagaMetrics;
use payment_worker::PaymentMetrics;
use prometheus::Registry;
use stock_worker::StockMetrics;

pub(crate) use payment::PaymentWorker;
pub(crate) use sagas::Orchestrator;
pub(crate) use stock::StockWorker;

/// Metrics of all schedules; nobody reads them.
#[expect(clippy::expect_used, reason = "a registry of their own has no other names")]
fn metrics() -> &'static (SagaMetrics, StockMetrics, PaymentMetrics) {
    static METRICS: OnceLock<(SagaMetrics, StockMetrics, PaymentMetrics)> = OnceLock::new();
    METRICS.get_or_init(|| {
        let registry = Registry::new();
        let saga = SagaMetrics::register(&registry).expect("its names are its own");
        let stock = StockMetrics::register(&registry).expect("its names are its own");
        (saga, stock, PaymentMetrics::register(&registry).expect("its names are its own"))
    })
}

fn exists(what: impl std::fmt::Display) -> HandlerError {
    HandlerError::permanent(format!("unique violation: {what}"))
}
