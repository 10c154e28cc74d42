//! A provider for development, demos and tests: the method token says what happens to a charge. It keeps its word on
//! keys, voids and refunds, and its own durable book.

mod book;
mod outcomes;
mod store;
#[cfg(test)]
mod tests;

use std::time::Duration;

use domain_types::Money;
use payment_domain::{
    ChargeAnswer, IdempotencyKey, ProviderCall, QueryAnswer, RefundAnswer, Terms, VoidAnswer,
};
use sqlx::PgPool;

use crate::provider::Provider;
use crate::settings::SimulatedSettings;
use book::Book;
use outcomes::{Fate, plan, reference};
use store::{NewCharge, NewRefund};

/// See the module.
pub(crate) struct SimulatedProvider {
    settings: SimulatedSettings,
    book: Book,
}

impl SimulatedProvider {
    /// A provider whose book is in the database of `pool`; use a pool of its own: it is another company's system.
    pub(crate) fn new(settings: SimulatedSettings, pool: PgPool) -> Self {
        Self { settings, book: Book::open(pool) }
    }

    async fn latency(&self, more: Duration) {
        let latency = Duration::from_millis(self.settings.latency_ms).saturating_add(more);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }
}

impl Provider for SimulatedProvider {
    async fn charge(&self, call: &ProviderCall, terms: &Terms) -> ChargeAnswer {
        let key = call.charge_key.as_str();
        let plan = plan(&terms.method, key, &self.settings);
        self.latency(plan.slow_by).await;
        let charge = NewCharge {
            key: key.to_owned(),
            order_id: call.order_id,
            terms: Some(terms.amount),
            fate: plan.fate,
        };
        let Some((fate, is_first)) = self.book.charge(charge).await else { return ChargeAnswer::Unknown };
        if is_first && plan.loses_first_answer {
            return ChargeAnswer::Unknown;
        }
        match fate {
            Fate::Approved => ChargeAnswer::Approved { reference: reference("sim", key) },
            Fate::Declined(reason) => ChargeAnswer::Declined(reason),
            Fate::Voided => ChargeAnswer::Voided,
        }
    }

    async fn query(&self, call: &ProviderCall) -> QueryAnswer {
        self.latency(Duration::ZERO).await;
        let key = call.charge_key.as_str();
        match self.book.query(key).await {
            None => QueryAnswer::Unknown,
            Some(None) => QueryAnswer::NotFound,
            Some(Some(Fate::Approved)) => QueryAnswer::Approved { reference: reference("sim", key) },
            Some(Some(Fate::Declined(reason))) => QueryAnswer::Declined(reason),
            Some(Some(Fate::Voided)) => QueryAnswer::Voided,
        }
    }

    async fn void(&self, call: &ProviderCall) -> VoidAnswer {
        self.latency(Duration::ZERO).await;
        let key = call.charge_key.as_str();
        let bar = NewCharge { key: key.to_owned(), order_id: call.order_id, terms: None, fate: Fate::Voided };
        match self.book.charge(bar).await {
            None => VoidAnswer::Unknown,
            Some((Fate::Voided, _)) => VoidAnswer::Voided,
            Some((Fate::Approved, _)) => VoidAnswer::Approved { reference: reference("sim", key) },
            Some((Fate::Declined(reason), _)) => VoidAnswer::Declined(reason),
        }
    }

    async fn refund(&self, call: &ProviderCall, amount: Money) -> RefundAnswer {
        self.latency(Duration::ZERO).await;
        let refund_key = IdempotencyKey::refund(call.order_id);
        let refund = NewRefund {
            charge_key: call.charge_key.as_str().to_owned(),
            refund_key: refund_key.as_str().to_owned(),
            amount,
        };
        match self.book.refund(refund).await {
            None => RefundAnswer::Unknown,
            Some(true) => RefundAnswer::Refunded { reference: reference("simr", refund_key.as_str()) },
            Some(false) => RefundAnswer::Refused { code: "not_refundable".to_owned() },
        }
    }
}
