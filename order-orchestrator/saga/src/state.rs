//! The state of one order's saga. Stored as JSON with short names: written bytes decide the speed.

use std::time::Duration;

use domain_types::{Attempt, CustomerId, LineNumber, Money, Quantity, RequestId, Sku, Timestamp};
use schemas::{
    DeclineReason, OrderState, PaymentMethod, PaymentState, PaymentView, Policy, Reason, StepName, TimerName,
};
use serde::{Deserialize, Serialize};

use crate::definition::{DEFINITIONS, Definition, known};

/// An order's saga. Everything `decide` needs, nothing else: names and prices are in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saga {
    /// The step table it started with; a running saga keeps it.
    #[serde(
        rename = "d",
        default = "definition_1",
        skip_serializing_if = "is_definition_1",
        deserialize_with = "known"
    )]
    pub definition: u16,
    /// Who buys.
    #[serde(rename = "c")]
    pub customer_id: CustomerId,
    /// The beginning of the order's fingerprint: enough to tell a repeat from another order.
    #[serde(rename = "f")]
    pub fingerprint: String,
    /// The lines; their index is their [`LineNumber`].
    #[serde(rename = "l")]
    pub lines: Vec<Line>,
    /// What is charged.
    #[serde(rename = "a")]
    pub amount: Money,
    /// Its deadlines.
    #[serde(rename = "o", default, skip_serializing_if = "is_default")]
    pub policy: Policy,
    /// Log time of `PlaceOrder`.
    #[serde(rename = "b", with = "millis")]
    pub ordered_at: Timestamp,
    /// The latest instant it has seen; its time never goes back.
    #[serde(rename = "n", with = "millis")]
    pub now: Timestamp,
    /// The order's public version.
    #[serde(rename = "v")]
    pub version: i64,
    /// The order's public state.
    #[serde(rename = "s")]
    pub state: OrderState,
    /// What it ends with, once it gives things back or has ended.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Reason>,
    /// Its payment, once the method is known.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<Payment>,
    /// Its one armed timer.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub timer: Option<Timer>,
    /// Whether its commands are withheld.
    #[serde(rename = "z", default, skip_serializing_if = "is_default")]
    pub paused: bool,
    /// The withheld commands, in order.
    #[serde(rename = "w", default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<CommandRef>,
    /// The latest answered requests, oldest first.
    #[serde(rename = "q", default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestId>,
}

/// One line of the order, and where its units are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What.
    #[serde(rename = "s")]
    pub sku: Sku,
    /// How many.
    #[serde(rename = "q")]
    pub quantity: Quantity,
    /// Where its units are.
    #[serde(rename = "g")]
    pub stage: LineStage,
    /// The attempt of the command that led to this stage.
    #[serde(rename = "a", default = "first", skip_serializing_if = "is_first")]
    pub attempt: Attempt,
    /// Why that command can't be carried out.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// The sku's ledger entries when the units were held; `None`: never held, as far as is known.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub held_version: Option<i64>,
}

/// Where a line's units are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineStage {
    /// Asked for.
    Reserving,
    /// Held.
    Held,
    /// Refused.
    Refused,
    /// Paid; becoming sold.
    Confirming,
    /// Sold.
    Sold,
    /// Held or asked for; being given back.
    Releasing,
    /// Given back, or never held.
    Released,
    /// Sold or becoming so; being given back.
    Restocking,
    /// Given back.
    Restocked,
}

impl LineStage {
    /// The step whose answer this stage waits for.
    pub const fn awaits(self) -> Option<StepName> {
        match self {
            Self::Reserving => Some(StepName::Reserve),
            Self::Confirming => Some(StepName::Confirm),
            Self::Releasing => Some(StepName::Release),
            Self::Restocking => Some(StepName::Restock),
            Self::Held | Self::Refused | Self::Sold | Self::Released | Self::Restocked => None,
        }
    }

    /// Whether the line owes nothing and is owed nothing: the order took nothing, or gave all back.
    pub const fn is_given_back(self) -> bool {
        match self {
            Self::Refused | Self::Released | Self::Restocked => true,
            Self::Reserving
            | Self::Held
            | Self::Confirming
            | Self::Sold
            | Self::Releasing
            | Self::Restocking => false,
        }
    }
}

/// The payment of an order: one charge at most, with the order's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// How it is paid.
    #[serde(rename = "m")]
    pub method: PaymentMethod,
    /// Where the money is.
    #[serde(rename = "g")]
    pub stage: PaymentStage,
    /// The attempt of the command that led to this stage.
    #[serde(rename = "a", default = "first", skip_serializing_if = "is_first")]
    pub attempt: Attempt,
    /// The latest attempt of the charge: while it is being closed, both may be answered.
    #[serde(rename = "b", default = "first", skip_serializing_if = "is_first")]
    pub charge_attempt: Attempt,
    /// Why that command can't be carried out.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// What was charged.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub charged: Option<Money>,
    /// What was given back.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub refunded: Option<Money>,
    /// What an operator named as having settled it by hand.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub settled_by: Option<String>,
}

/// Where the money of an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStage {
    /// The method is known; nothing was asked of the payment worker.
    Chosen,
    /// The charge is under way.
    Charging,
    /// Charged.
    Approved,
    /// Not charged, and it will not be.
    Declined(DeclineReason),
    /// Being closed; whether it was charged is not known.
    Closing,
    /// Closed; not charged.
    Closed,
    /// Charged; being given back.
    Refunding,
    /// Given back.
    Refunded,
}

impl PaymentStage {
    /// The step whose answer this stage waits for.
    pub const fn awaits(self) -> Option<StepName> {
        match self {
            Self::Charging => Some(StepName::Charge),
            Self::Closing => Some(StepName::Close),
            Self::Refunding => Some(StepName::Refund),
            Self::Chosen | Self::Approved | Self::Declined(_) | Self::Closed | Self::Refunded => None,
        }
    }

    /// Whether nothing was taken, or all was given back.
    pub const fn is_given_back(self) -> bool {
        match self {
            Self::Chosen | Self::Declined(_) | Self::Closed | Self::Refunded => true,
            Self::Charging | Self::Approved | Self::Closing | Self::Refunding => false,
        }
    }
}

impl Payment {
    /// The public view; `None` as long as nothing was asked of the payment worker.
    pub(crate) fn view(&self, at: Timestamp) -> Option<PaymentView> {
        let state = match self.stage {
            PaymentStage::Chosen => return None,
            PaymentStage::Charging => PaymentState::Pending,
            PaymentStage::Approved => PaymentState::Approved,
            PaymentStage::Declined(DeclineReason::Declined) => PaymentState::Declined,
            PaymentStage::Declined(DeclineReason::OverLimit) => PaymentState::OverLimit,
            PaymentStage::Declined(DeclineReason::Abandoned) => PaymentState::Abandoned,
            PaymentStage::Closing => PaymentState::Closing,
            PaymentStage::Closed => PaymentState::Closed,
            PaymentStage::Refunding => PaymentState::Refunding,
            PaymentStage::Refunded => PaymentState::Refunded,
        };
        let (method, charged, refunded) = (self.method.clone(), self.charged, self.refunded);
        Some(PaymentView { state, method, charged, refunded, at })
    }
}

/// A timer and when it is due. Armed anew it is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Which.
    #[serde(rename = "n")]
    pub name: TimerName,
    /// When.
    #[serde(rename = "d", with = "millis")]
    pub due_at: Timestamp,
}

/// A command of the saga, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRef {
    /// Of which step.
    #[serde(rename = "s")]
    pub step: StepName,
    /// For which line.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub line: Option<LineNumber>,
}

impl Saga {
    /// The steps it began with, and ends with.
    pub fn definition(&self) -> &'static Definition {
        // No other version is read, and none is begun with.
        Definition::of(self.definition).unwrap_or(&DEFINITIONS[0])
    }

    /// The line of that number.
    pub fn line(&self, number: LineNumber) -> Option<&Line> {
        self.lines.get(usize::from(number.0))
    }

    /// When the order expires if no payment has begun.
    pub fn pay_before(&self) -> Timestamp {
        self.ordered_at.plus(Duration::from_millis(self.policy.pay_within_ms))
    }

    /// Length of a delivery day.
    pub fn day(&self) -> Duration {
        Duration::from_millis(self.policy.day_ms)
    }

    /// Whether a command failed and waits for an operator.
    pub fn needs_operator(&self) -> bool {
        self.lines.iter().any(|line| line.failed.is_some())
            || self.payment.as_ref().is_some_and(|payment| payment.failed.is_some())
    }

    /// Whether the line's latest command was or will be answered, whatever became of it: its answer can be waited for.
    fn is_answered(&self, CommandRef { step, line }: CommandRef) -> bool {
        let Some(line) = line.and_then(|number| self.line(number)) else { return true };
        // A build from before the definitions closes the return window and asks nothing; a retry then ends the order.
        let is_over = self.state == OrderState::Delivered && self.timer.is_none();
        line.failed.is_some() || is_over || !self.definition().step(step).is_silent(line.attempt)
    }

    /// The commands whose answer it waits for: sent, withheld or failed.
    pub fn awaited(&self) -> Vec<CommandRef> {
        let lines = (0u8..).zip(&self.lines).filter_map(|(number, line)| {
            Some(CommandRef { step: line.stage.awaits()?, line: Some(LineNumber(number)) })
        });
        let lines = lines.filter(|command| self.is_answered(*command));
        let payment = self.payment.as_ref().and_then(|payment| payment.stage.awaits());
        lines.chain(payment.map(|step| CommandRef { step, line: None })).collect()
    }

    /// Whether nothing more can happen to the order.
    pub fn is_final(&self) -> bool {
        match self.state {
            OrderState::Cancelled
            | OrderState::Returned
            | OrderState::Rejected
            | OrderState::PaymentFailed
            | OrderState::Expired => true,
            OrderState::Delivered => {
                self.timer.is_none() && self.lines.iter().all(|line| line.stage == LineStage::Sold)
            }
            OrderState::Accepted
            | OrderState::Reserving
            | OrderState::AwaitingPayment
            | OrderState::Charging
            | OrderState::Paid
            | OrderState::Shipped
            | OrderState::ReturnRequested
            | OrderState::Compensating => false,
        }
    }

    /// The public reason that goes with the state.
    pub fn reason(&self) -> Option<Reason> {
        if self.needs_operator() {
            return Some(Reason::NeedsOperator);
        }
        match self.state {
            OrderState::Compensating | OrderState::Rejected | OrderState::PaymentFailed => self.outcome,
            OrderState::Accepted
            | OrderState::Reserving
            | OrderState::AwaitingPayment
            | OrderState::Charging
            | OrderState::Paid
            | OrderState::Shipped
            | OrderState::Delivered
            | OrderState::ReturnRequested
            | OrderState::Cancelled
            | OrderState::Returned
            | OrderState::Expired => None,
        }
    }
}

fn definition_1() -> u16 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_definition_1(version: &u16) -> bool {
    *version == 1
}

fn first() -> Attempt {
    Attempt::FIRST
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
pub(crate) fn is_first(attempt: &Attempt) -> bool {
    *attempt == Attempt::FIRST
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

mod millis {
    use domain_types::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(time.as_millis())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::from_millis)
    }
}
