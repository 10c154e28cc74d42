//! What the worker knows of an order's payment.

use domain_types::{Attempt, CustomerId, Money, OrderId, Timestamp};
use schemas::{DeclineReason, PaymentMethod};
use serde::{Deserialize, Serialize};

use crate::provider::{Action, CallNumber, IdempotencyKey, ProviderCall};
use crate::{Cause, Policy};

/// What is stored under an order's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentRecord {
    /// Closed before the charge was seen: a tombstone that refuses the late charge. No provider was ever called.
    Barred {
        /// The order.
        order_id: OrderId,
        /// Whose order.
        customer_id: CustomerId,
    },
    /// A charge was asked for.
    Charge(Charge),
}

impl PaymentRecord {
    /// Whose money it is about.
    pub const fn order_id(&self) -> OrderId {
        match self {
            Self::Barred { order_id, .. } => *order_id,
            Self::Charge(charge) => charge.order_id,
        }
    }
}

/// A charge. Its id is the order's id: an order is charged at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The order.
    pub order_id: OrderId,
    /// Who pays.
    pub customer_id: CustomerId,
    /// What was asked for.
    pub terms: Terms,
    /// Where it is.
    pub state: ChargeState,
    /// The number of the newest provider call.
    pub calls: CallNumber,
    /// A refund that was asked for while the charge's fate was open here. The saga asks for one only after an approval,
    /// so this record is older than what was said about it: its database was restored from a backup.
    pub refund: Option<Box<EarlyRefund>>,
}

/// See [`Charge::refund`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyRefund {
    /// The command.
    pub asked: Asked,
    /// It was answered that the charge's fate can't be told: a repeat is answered alike.
    #[serde(default)]
    pub is_given_up: bool,
}

/// How much, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// How much.
    pub amount: Money,
    /// How.
    pub method: PaymentMethod,
}

/// A command that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its attempt.
    pub attempt: Attempt,
    /// Its message.
    pub cause: Cause,
}

/// The provider call that a state waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingCall {
    /// Its number within the charge; an answer of another call tells nothing new unless it is definite.
    pub number: CallNumber,
    /// Repeats so far; 0: it is due at once.
    pub tries: u32,
    /// Since when this question is open.
    pub since: Timestamp,
    /// Not to be made before.
    pub not_before: Timestamp,
}

/// What is asked of the provider while a charge is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosingStep {
    /// Bar the charge for ever.
    Void,
    /// The provider can't bar what it has not seen: find out whether it comes to see it.
    Query,
}

/// What could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Stuck {
    /// The charge: its fate is unknown.
    Charge,
    /// The closing: the charge's fate is unknown.
    Close,
    /// The refund; the money is still charged.
    Refund {
        /// The provider's name for the charge.
        reference: String,
    },
}

/// The states of a charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ChargeState {
    /// The provider is to charge (again and again with the same key, until it answers).
    Requested {
        /// The command.
        charge: Asked,
        /// `charge`.
        call: PendingCall,
    },
    /// The answer to a charge call was lost: the provider is asked for the charge's fate.
    Unknown {
        /// The command.
        charge: Asked,
        /// `query`.
        call: PendingCall,
    },
    /// The money was taken.
    Approved {
        /// The provider's name for the charge.
        reference: String,
    },
    /// Nothing was taken.
    Declined {
        /// Why.
        reason: DeclineReason,
        /// The newest attempt that was answered so.
        attempt: Attempt,
    },
    /// Closed while its fate was open: the provider is to bar it.
    Closing {
        /// The charge command, if it was not answered yet.
        charge: Option<Asked>,
        /// The closing command.
        close: Asked,
        /// What is asked.
        step: ClosingStep,
        /// `void` or `query`.
        call: PendingCall,
    },
    /// Nothing was taken, and nothing ever will be.
    Closed {
        /// The newest attempt that was answered so.
        attempt: Attempt,
    },
    /// The provider is to give the money back.
    RefundRequested {
        /// The provider's name for the charge.
        reference: String,
        /// The command.
        refund: Asked,
        /// `refund`.
        call: PendingCall,
    },
    /// The money was given back.
    Refunded {
        /// The provider's name for the charge.
        reference: String,
        /// The provider's name for the refund.
        refund_reference: String,
    },
    /// An operator is needed; a new attempt of the command goes on.
    Failed {
        /// What could not be carried out.
        stuck: Stuck,
        /// The command.
        asked: Asked,
        /// Why, see [`crate::code`].
        code: String,
    },
}

impl ChargeState {
    /// The state's name, as stored and shown.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Requested { .. } => "requested",
            Self::Unknown { .. } => "unknown",
            Self::Approved { .. } => "approved",
            Self::Declined { .. } => "declined",
            Self::Closing { .. } => "closing",
            Self::Closed { .. } => "closed",
            Self::RefundRequested { .. } => "refund_requested",
            Self::Refunded { .. } => "refunded",
            Self::Failed { .. } => "failed",
        }
    }

    /// The provider call that this state waits for.
    pub const fn pending(&self) -> Option<&PendingCall> {
        match self {
            Self::Requested { call, .. }
            | Self::Unknown { call, .. }
            | Self::Closing { call, .. }
            | Self::RefundRequested { call, .. } => Some(call),
            Self::Approved { .. }
            | Self::Declined { .. }
            | Self::Closed { .. }
            | Self::Refunded { .. }
            | Self::Failed { .. } => None,
        }
    }
}

impl Charge {
    /// The call that the provider is to get next. A successor derives the same one, with the same key, from the
    /// stored state.
    pub fn next_call(&self) -> Option<ProviderCall> {
        let (action, call, asked) = match &self.state {
            ChargeState::Requested { charge, call } => {
                (Action::Charge { terms: self.terms.clone() }, call, charge)
            }
            ChargeState::Unknown { charge, call } => (Action::Query, call, charge),
            ChargeState::Closing { close, step: ClosingStep::Void, call, .. } => (Action::Void, call, close),
            ChargeState::Closing { close, step: ClosingStep::Query, call, .. } => {
                (Action::Query, call, close)
            }
            ChargeState::RefundRequested { refund, call, .. } => {
                (Action::Refund { amount: self.terms.amount }, call, refund)
            }
            ChargeState::Approved { .. }
            | ChargeState::Declined { .. }
            | ChargeState::Closed { .. }
            | ChargeState::Refunded { .. }
            | ChargeState::Failed { .. } => return None,
        };
        Some(ProviderCall {
            order_id: self.order_id,
            customer_id: self.customer_id,
            number: call.number,
            charge_key: IdempotencyKey::charge(self.order_id),
            action,
            not_before: (call.tries > 0).then_some(call.not_before),
            traceparent: asked.cause.traceparent.clone(),
        })
    }

    /// Minor units that were taken, and that were given back, in the currency of the terms.
    pub const fn balance(&self) -> (i64, i64) {
        let amount = self.terms.amount.amount;
        match &self.state {
            ChargeState::Requested { .. }
            | ChargeState::Unknown { .. }
            | ChargeState::Declined { .. }
            | ChargeState::Closing { .. }
            | ChargeState::Closed { .. }
            | ChargeState::Failed { stuck: Stuck::Charge | Stuck::Close, .. } => (0, 0),
            ChargeState::Approved { .. }
            | ChargeState::RefundRequested { .. }
            | ChargeState::Failed { stuck: Stuck::Refund { .. }, .. } => (amount, 0),
            ChargeState::Refunded { .. } => (amount, amount),
        }
    }

    /// This charge in another state.
    pub(crate) fn moved(&self, state: ChargeState) -> Self {
        let calls = state.pending().map_or(self.calls, |call| call.number);
        Self { state, calls, ..self.clone() }
    }

    /// A new call, due at once.
    pub(crate) const fn call_at_once(&self, now: Timestamp) -> PendingCall {
        PendingCall { number: self.calls.next(), tries: 0, since: now, not_before: now }
    }

    /// The call after `call`, which told nothing definite; `None` if the limit is reached.
    pub(crate) fn call_again(
        &self,
        call: &PendingCall,
        now: Timestamp,
        policy: &Policy,
    ) -> Option<PendingCall> {
        (now.since(call.since) < policy.unknown_limit).then(|| PendingCall {
            number: self.calls.next(),
            tries: call.tries.saturating_add(1),
            since: call.since,
            not_before: now.plus(policy.pause(call.tries)),
        })
    }
}
