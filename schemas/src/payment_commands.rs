//! `payment-commands`: what the payment worker is asked to do; all commands of a customer are in one partition.

use domain_types::{Attempt, CustomerId, Money, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::messages;
use crate::{PaymentMethod, Topic};

messages! {
    /// A command to the payment worker. The envelope names the order, whose id is the charge's too.
    PaymentCommand on Some(Topic::PaymentCommands);
    /// Take the money for an order.
    ChargePayment = 1,
    /// Make sure that the money is not taken any more, or learn that it was; before the charge it leaves a tombstone.
    ClosePayment = 1,
    /// Give the money back.
    RefundPayment = 1,
}

/// See [`PaymentCommand::ChargePayment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChargePayment {
    /// Who pays; the record's key.
    pub customer_id: CustomerId,
    /// The try.
    pub attempt: Attempt,
    /// How much.
    pub amount: Money,
    /// How.
    pub method: PaymentMethod,
    /// When the saga gives up waiting, for people: the saga closes the charge itself.
    pub deadline: Timestamp,
}

/// See [`PaymentCommand::ClosePayment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClosePayment {
    /// Whose charge; the record's key.
    pub customer_id: CustomerId,
    /// The try.
    pub attempt: Attempt,
}

/// See [`PaymentCommand::RefundPayment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefundPayment {
    /// Whose money; the record's key.
    pub customer_id: CustomerId,
    /// The try.
    pub attempt: Attempt,
    /// How much: what was charged.
    pub amount: Money,
}
