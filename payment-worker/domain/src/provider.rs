//! What is asked of a payment provider, and what it may answer. All of it is data.

use std::fmt;

use domain_types::{CustomerId, Money, OrderId, Timestamp};
use schemas::DeclineReason;
use serde::{Deserialize, Serialize};

use crate::Terms;

/// A key under which the provider does a thing at most once, however often it is asked. Stable per charge and kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key of an order's charge; queries and voids name the charge by it.
    pub fn charge(order_id: OrderId) -> Self {
        Self(format!("charge-{order_id}"))
    }

    /// The key of an order's refund.
    pub fn refund(order_id: OrderId) -> Self {
        Self(format!("refund-{order_id}"))
    }

    /// The key as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a provider call within its charge, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallNumber(pub u32);

impl CallNumber {
    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// One call to make. Repeating it is safe: the keys are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderCall {
    /// Whose charge.
    pub order_id: OrderId,
    /// Who pays.
    pub customer_id: CustomerId,
    /// The call's number; the answer is to name it.
    pub number: CallNumber,
    /// The key of the charge.
    pub charge_key: IdempotencyKey,
    /// What to do.
    pub action: Action,
    /// Not to be made before; `None`: at once.
    pub not_before: Option<Timestamp>,
    /// W3C trace context of the work on the command.
    pub traceparent: Option<String>,
}

/// What a provider can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Take the money, at most once per key.
    Charge {
        /// How much, and how.
        terms: Terms,
    },
    /// Tell the charge's fate.
    Query,
    /// Bar the charge: unless it was approved, no request with its key may ever take money, also one that arrives later.
    Void,
    /// Give the money back, at most once per key.
    Refund {
        /// How much.
        amount: Money,
    },
}

/// The answer to a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargeAnswer {
    /// The money is taken.
    Approved {
        /// The provider's name for the charge.
        reference: String,
    },
    /// Nothing is taken, for good.
    Declined(DeclineReason),
    /// The key was voided: nothing is taken, for good.
    Voided,
    /// Nobody knows whether it is taken: the answer was lost, or says nothing.
    Unknown,
    /// The request certainly did not reach the provider.
    NotSent,
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryAnswer {
    /// The money was taken.
    Approved {
        /// The provider's name for the charge.
        reference: String,
    },
    /// Nothing was taken, for good.
    Declined(DeclineReason),
    /// The key was voided.
    Voided,
    /// The provider has not seen the key: a request under way may still arrive.
    NotFound,
    /// No answer, or the provider does not know yet.
    Unknown,
}

/// The answer to a void.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VoidAnswer {
    /// Nothing was taken and nothing will be.
    Voided,
    /// Too late: the money was taken (and stays so).
    Approved {
        /// The provider's name for the charge.
        reference: String,
    },
    /// It had been declined already.
    Declined(DeclineReason),
    /// The provider has not seen the key and can't bar it.
    NotFound,
    /// No answer, or one that says nothing.
    Unknown,
}

/// The answer to a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundAnswer {
    /// The money is given back.
    Refunded {
        /// The provider's name for the refund.
        reference: String,
    },
    /// The provider refuses; nothing is given back.
    Refused {
        /// A stable `snake_case` word for why.
        code: String,
    },
    /// No answer, or one that says nothing.
    Unknown,
}

/// An answer, by the call it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderAnswer {
    /// To [`Action::Charge`].
    Charge(ChargeAnswer),
    /// To [`Action::Query`].
    Query(QueryAnswer),
    /// To [`Action::Void`].
    Void(VoidAnswer),
    /// To [`Action::Refund`].
    Refund(RefundAnswer),
}
