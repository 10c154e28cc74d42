//! The saga's history: small facts that `evolve` folds into its state. Field names are short because they are
//! stored for ever.

use domain_types::{Attempt, CustomerId, LineNumber, Money, Quantity, RequestId, Sku};
use schemas::{
    DeclineReason, OrderState, PaymentMethod, Policy, Reason, RequestKind, ReserveRefusal, StepName,
};
use serde::{Deserialize, Serialize};

use crate::definition::known;
use crate::state::{Timer, is_default, is_first};

/// One fact. Stored inside a batch's history with the `now` of its input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The saga began.
    Placed(Placed),
    /// A command was sent, or withheld if the saga is paused.
    Sent {
        /// Of which step.
        #[serde(rename = "s")]
        step: StepName,
        /// For which line.
        #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
        line: Option<LineNumber>,
        /// Which try.
        #[serde(rename = "a", default = "first", skip_serializing_if = "is_first")]
        attempt: Attempt,
    },
    /// A line's units are held (or, while they are being released, were).
    Reserved {
        /// Which line.
        #[serde(rename = "l")]
        line: LineNumber,
        /// The sku's ledger entries.
        #[serde(rename = "v")]
        stock_version: i64,
    },
    /// A line's units were refused.
    Refused {
        /// Which line.
        #[serde(rename = "l")]
        line: LineNumber,
        /// Why.
        #[serde(rename = "r")]
        reason: ReserveRefusal,
    },
    /// A line's units are sold.
    Confirmed {
        /// Which line.
        #[serde(rename = "l")]
        line: LineNumber,
    },
    /// A line's units are no longer held.
    Released {
        /// Which line.
        #[serde(rename = "l")]
        line: LineNumber,
        /// How many came back.
        #[serde(rename = "u")]
        units: u32,
        /// The sku's ledger entries.
        #[serde(rename = "v")]
        stock_version: i64,
    },
    /// A line's units are no longer sold.
    Restocked {
        /// Which line.
        #[serde(rename = "l")]
        line: LineNumber,
        /// How many came back.
        #[serde(rename = "u")]
        units: u32,
        /// The sku's ledger entries.
        #[serde(rename = "v")]
        stock_version: i64,
    },
    /// The customer said how to pay.
    MethodChosen {
        /// How.
        #[serde(rename = "m")]
        method: PaymentMethod,
    },
    /// The money was taken.
    Approved {
        /// How much.
        #[serde(rename = "m")]
        amount: Money,
        /// The provider's name for it.
        #[serde(rename = "r")]
        reference: String,
    },
    /// The money was not taken.
    Declined {
        /// Why.
        #[serde(rename = "r")]
        reason: DeclineReason,
    },
    /// The charge is closed: nothing was taken, nothing will be.
    Closed,
    /// The money was given back.
    Refunded {
        /// How much.
        #[serde(rename = "m")]
        amount: Money,
        /// The provider's name for it.
        #[serde(rename = "r")]
        reference: String,
    },
    /// A command can't be carried out; an operator is needed.
    Failed {
        /// Of which step.
        #[serde(rename = "s")]
        step: StepName,
        /// For which line.
        #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
        line: Option<LineNumber>,
        /// Why.
        #[serde(rename = "c")]
        code: String,
    },
    /// An operator took a failed step as done.
    Settled {
        /// Which step.
        #[serde(rename = "s")]
        step: StepName,
        /// What settled it.
        #[serde(rename = "b")]
        settled_by: String,
    },
    /// Giving things back began.
    CompensationBegun {
        /// What the order will end with.
        #[serde(rename = "r")]
        outcome: Reason,
    },
    /// The order is in a new state.
    Entered {
        /// Which.
        #[serde(rename = "s")]
        state: OrderState,
    },
    /// The saga's timer is set, in place of any other.
    TimerArmed(Timer),
    /// The saga has no timer.
    TimerDisarmed,
    /// Commands are withheld from now on.
    Paused,
    /// The withheld commands were sent.
    Resumed,
    /// A request was answered.
    Answered {
        /// Which.
        #[serde(rename = "i")]
        request_id: RequestId,
        /// What it asked for.
        #[serde(rename = "k")]
        kind: RequestKind,
        /// Why it was refused; `None`: done.
        #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
        /// The operator, if one asked.
        #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
        operator: Option<String>,
        /// The operator's words.
        #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// The order's public version grew by one.
    Published,
}

/// See [`Event::Placed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The version of the definition it began with.
    #[serde(rename = "d", deserialize_with = "known")]
    pub definition: u16,
    /// Who buys.
    #[serde(rename = "c")]
    pub customer_id: CustomerId,
    /// The beginning of the order's fingerprint.
    #[serde(rename = "f")]
    pub fingerprint: String,
    /// What is bought.
    #[serde(rename = "l")]
    pub lines: Vec<PlacedLine>,
    /// What it costs.
    #[serde(rename = "a")]
    pub amount: Money,
    /// How it is paid, if known.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub method: Option<PaymentMethod>,
    /// Its deadlines.
    #[serde(rename = "p", default, skip_serializing_if = "is_default")]
    pub policy: Policy,
    /// It came too late.
    #[serde(rename = "x", default, skip_serializing_if = "is_default")]
    pub too_late: bool,
}

/// See [`Placed::lines`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedLine {
    /// What.
    #[serde(rename = "s")]
    pub sku: Sku,
    /// How many.
    #[serde(rename = "q")]
    pub quantity: Quantity,
}

fn first() -> Attempt {
    Attempt::FIRST
}
