//! What a decision leads to.

use domain_types::{Attempt, MessageId, Money, OrderId, Timestamp};
use schemas::{
    DeclineReason, OrderSagaMessage, PaymentApproved, PaymentClosed, PaymentCommandFailed,
    PaymentCommandKind, PaymentDeclined, PaymentRefunded,
};
use serde::{Deserialize, Serialize};

use crate::PaymentRecord;

/// Why a command could not be carried out: the `code` of `PaymentCommandFailed`. Stable.
pub mod code {
    /// The provider can't tell the outcome for longer than the limit.
    pub const OUTCOME_UNKNOWN: &str = "outcome_unknown";
    /// There is nothing to give back.
    pub const NOT_CHARGED: &str = "not_charged";
    /// The refund is not for what was charged.
    pub const AMOUNT_MISMATCH: &str = "amount_mismatch";
    /// The order was to be charged otherwise before: other amount, method or customer.
    pub const CONFLICTING_CHARGE: &str = "conflicting_charge";
    /// A negative amount.
    pub const INVALID_AMOUNT: &str = "invalid_amount";
}

/// The message that something answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Its id.
    pub message_id: MessageId,
    /// When it was logged.
    pub time: Timestamp,
    /// W3C trace context of the work on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// A reply to the order's saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What it answers.
    pub cause: Cause,
    /// The attempt it answers.
    pub attempt: Attempt,
    /// What it says.
    pub answer: Answer,
}

/// What a reply says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The money was taken.
    Approved {
        /// How much.
        amount: Money,
        /// The provider's name for the charge.
        reference: String,
    },
    /// Nothing was taken.
    Declined(DeclineReason),
    /// Nothing was taken, and nothing ever will be.
    Closed,
    /// The money was given back.
    Refunded {
        /// How much.
        amount: Money,
        /// The provider's name for the refund.
        reference: String,
    },
    /// An operator is needed.
    Failed {
        /// What could not be carried out.
        command: PaymentCommandKind,
        /// Why, see [`code`].
        code: String,
    },
}

impl Reply {
    /// The reply's id: the same command with the same answer has the same one, and another answer another one.
    pub fn message_id(&self) -> MessageId {
        let index = match self.answer {
            Answer::Approved { .. } => 0,
            Answer::Declined(_) => 1,
            Answer::Closed => 2,
            Answer::Refunded { .. } => 3,
            Answer::Failed { .. } => 4,
        };
        MessageId::caused_by(self.cause.message_id, index)
    }

    /// The reply as the saga reads it.
    pub fn message(&self) -> OrderSagaMessage {
        let attempt = self.attempt;
        match self.answer.clone() {
            Answer::Approved { amount, reference } => PaymentApproved { attempt, amount, reference }.into(),
            Answer::Declined(reason) => PaymentDeclined { attempt, reason }.into(),
            Answer::Closed => PaymentClosed { attempt }.into(),
            Answer::Refunded { amount, reference } => PaymentRefunded { attempt, amount, reference }.into(),
            Answer::Failed { command, code } => PaymentCommandFailed { command, attempt, code }.into(),
        }
    }
}

/// Which way money moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MovementKind {
    /// From the customer.
    Charged,
    /// Back to the customer.
    Refunded,
}

/// Money moved: an entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    /// For which order.
    pub order_id: OrderId,
    /// Which way.
    pub kind: MovementKind,
    /// How much.
    pub amount: Money,
    /// The provider's name for it.
    pub reference: String,
}

/// What follows from a command or an answer. The next provider call is in the record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// The record, if it changed.
    pub record: Option<PaymentRecord>,
    /// What the saga is told.
    pub replies: Vec<Reply>,
    /// The money that moved.
    pub movement: Option<Movement>,
    /// The provider contradicted itself (said `voided` or `declined` before or after it took the money). An approval
    /// wins and is reported to the saga; somebody should look at the provider.
    pub contradiction: bool,
}

impl Decision {
    /// Nothing changes, nothing is said.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    /// Nothing changes, this is said.
    pub(crate) fn reply(cause: &Cause, attempt: Attempt, answer: Answer) -> Self {
        let reply = Reply { cause: cause.clone(), attempt, answer };
        Self { replies: vec![reply], ..Self::default() }
    }

    /// The record changes, nothing is said.
    pub(crate) fn change(record: PaymentRecord) -> Self {
        Self { record: Some(record), ..Self::default() }
    }
}
