//! A saga as operators see it: words instead of the short names that are stored.

use domain_types::{Attempt, LineNumber, Money, OrderId, Timestamp};
use order_orchestrator::{PresentSaga, timer_name};
use saga::{LineStage, PaymentStage, Saga};
use schemas::{OrderState, StepName};
use serde::Serialize;

use crate::cli::STEP_NAMES;

pub(crate) fn step_word(step: StepName) -> &'static str {
    STEP_NAMES.into_iter().find(|(_, found)| *found == step).map_or("?", |(name, _)| name)
}

/// What a saga waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Waiting {
    /// The answer to a command.
    Reply {
        /// Whose: stock or payment.
        from: &'static str,
        step: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        line: Option<u8>,
        attempt: u32,
    },
    /// Somebody who repeats or settles a failed command.
    Operator {
        step: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        line: Option<u8>,
        attempt: u32,
        code: String,
    },
    /// Somebody who resumes it: so many commands are withheld.
    Resume { withheld: usize },
    /// The customer's payment.
    Customer { until: Timestamp },
    /// A timer.
    Timer { name: &'static str, due_at: Timestamp },
}

impl Waiting {
    /// One word, for filters and counts.
    pub(crate) fn what(&self) -> &str {
        match self {
            Self::Reply { from, .. } => from,
            Self::Operator { .. } => "operator",
            Self::Resume { .. } => "resume",
            Self::Customer { .. } => "customer",
            Self::Timer { name, .. } => name,
        }
    }
}

fn attempt_of(saga: &Saga, line: Option<LineNumber>) -> Attempt {
    match line {
        Some(line) => saga.line(line).map_or(Attempt::FIRST, |line| line.attempt),
        None => saga.payment.as_ref().map_or(Attempt::FIRST, |payment| payment.attempt),
    }
}

/// What a saga waits for, most pressing first.
pub(crate) fn waits(saga: &Saga) -> Vec<Waiting> {
    let mut waiting = Vec::new();
    for command in saga.awaited() {
        let failed = match command.line {
            Some(line) => saga.line(line).and_then(|line| line.failed.clone()),
            None => saga.payment.as_ref().and_then(|payment| payment.failed.clone()),
        };
        let attempt = attempt_of(saga, command.line).0;
        let (step, line) = (step_word(command.step), command.line.map(|line| line.0));
        let from = if command.line.is_some() { "stock" } else { "payment" };
        waiting.push(match failed {
            Some(code) => Waiting::Operator { step, line, attempt, code },
            None => Waiting::Reply { from, step, line, attempt },
        });
    }
    waiting.sort_by_key(|waiting| !matches!(waiting, Waiting::Operator { .. }));
    if saga.paused {
        waiting.insert(0, Waiting::Resume { withheld: saga.withheld.len() });
    }
    if saga.state == OrderState::AwaitingPayment && saga.payment.is_none() {
        waiting.push(Waiting::Customer { until: saga.pay_before() });
    }
    if let Some(timer) = saga.timer {
        waiting.push(Waiting::Timer { name: timer_name(timer.name), due_at: timer.due_at });
    }
    waiting
}

/// A line of an order.
#[derive(Debug, Serialize)]
pub(crate) struct LineView {
    pub(crate) line: u8,
    pub(crate) sku: String,
    pub(crate) quantity: u32,
    pub(crate) stage: LineStage,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
}

/// The payment of an order.
#[derive(Debug, Serialize)]
pub(crate) struct PaymentView {
    pub(crate) method: String,
    pub(crate) stage: PaymentStage,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) charged: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refunded: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) settled_by: Option<String>,
}

/// A saga.
#[derive(Debug, Serialize)]
pub(crate) struct SagaView {
    pub(crate) order_id: OrderId,
    pub(crate) partition: i32,
    pub(crate) customer_id: String,
    pub(crate) state: OrderState,
    pub(crate) reason: Option<&'static str>,
    #[serde(rename = "final")]
    pub(crate) is_final: bool,
    pub(crate) version: i64,
    pub(crate) definition: u16,
    pub(crate) amount: Money,
    pub(crate) ordered_at: Timestamp,
    pub(crate) changed_at: Timestamp,
    pub(crate) paused: bool,
    pub(crate) waiting_for: Vec<Waiting>,
    pub(crate) lines: Vec<LineView>,
    pub(crate) payment: Option<PaymentView>,
}

impl SagaView {
    pub(crate) fn new(present: &PresentSaga) -> Self {
        let PresentSaga { order_id, partition, saga } = present;
        let lines = (0u8..).zip(&saga.lines).map(|(number, line)| LineView {
            line: number,
            sku: line.sku.to_string(),
            quantity: line.quantity.get(),
            stage: line.stage,
            failed: line.failed.clone(),
        });
        let payment = saga.payment.as_ref().map(|payment| PaymentView {
            method: payment.method.0.clone(),
            stage: payment.stage,
            charged: payment.charged,
            refunded: payment.refunded,
            failed: payment.failed.clone(),
            settled_by: payment.settled_by.clone(),
        });
        Self {
            order_id: *order_id,
            partition: *partition,
            customer_id: saga.customer_id.to_string(),
            state: saga.state,
            reason: saga.reason().map(schemas::Reason::as_str),
            is_final: saga.is_final(),
            version: saga.version,
            definition: saga.definition,
            amount: saga.amount,
            ordered_at: saga.ordered_at,
            changed_at: saga.now,
            paused: saga.paused,
            waiting_for: waits(saga),
            lines: lines.collect(),
            payment,
        }
    }
}
