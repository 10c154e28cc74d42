//! `order-saga`: every input of a saga, in one topic, ordered per order.

use domain_types::{Attempt, CustomerId, LineNumber, Money, Quantity, RequestId, Sku, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Topic;
use crate::envelope::messages;

messages! {
    /// An input of an order's saga: customers' commands, participants' replies, fired timers, operators' commands.
    OrderSagaMessage on Some(Topic::OrderSaga);
    /// A customer placed an order: the saga begins.
    PlaceOrder = 1,
    /// The customer pays an order that was placed without payment.
    PayOrder = 1,
    /// The customer cancels the order.
    CancelOrder = 1,
    /// The customer gives the delivered order back.
    ReturnOrder = 1,
    /// Reply: the units of a line are held.
    StockReserved = 1,
    /// Reply: the units of a line were refused.
    StockRefused = 1,
    /// Reply: the held units of a line are sold.
    StockConfirmed = 1,
    /// Reply: the held units of a line are available again (or were never held).
    StockReleased = 1,
    /// Reply: the sold units of a line are available again.
    StockRestocked = 1,
    /// Reply: a stock command can't be carried out; an operator is needed.
    StockCommandFailed = 1,
    /// Reply: the charge was approved.
    PaymentApproved = 1,
    /// Reply: the charge was declined; nothing was taken.
    PaymentDeclined = 1,
    /// Reply: the charge is closed; nothing was taken and nothing ever will be.
    PaymentClosed = 1,
    /// Reply: what was charged has been given back.
    PaymentRefunded = 1,
    /// Reply: a payment command can't be carried out; an operator is needed.
    PaymentCommandFailed = 1,
    /// A timer of the saga is due.
    TimerFired = 1,
    /// Operator: withhold the saga's commands until it is resumed.
    PauseSaga = 1,
    /// Operator: send the withheld commands, in order.
    ResumeSaga = 1,
    /// Operator: send a failed or unanswered command again, as a new attempt.
    RetryStep = 1,
    /// Operator: take a step as done without its participant.
    SkipStep = 1,
    /// Operator: give everything back, as a cancellation would.
    CompensateSaga = 1,
}

/// How a payment is made; for the simulated provider a method token such as `tok_approve`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PaymentMethod(pub String);

/// A line with the catalogue's data as it stood when the order was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderedLine {
    /// What is bought.
    pub sku: Sku,
    /// The product's name at order time.
    pub name: String,
    /// The product's option at order time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
    /// The price of one unit at order time.
    pub unit_price: Money,
    /// How many.
    pub quantity: Quantity,
    /// The product version that name, option and price were read from.
    pub product_version: i64,
    /// The line's place among those admitted; absent for one that was admitted without asking, and left to the stock
    /// worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Ticket>,
}

/// A place among the orders that were admitted for a sku. Numbers of one sku and generation grow in the order of admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Ticket {
    /// Which count of the sku's units it belongs to: a new one begins when the door's counters were lost. Unique per sku,
    /// in no order.
    pub generation: i64,
    /// From 1.
    pub number: i64,
}

/// The newest definition of the saga that this build knows; it knows all from 1 on.
pub const SAGA_DEFINITION: u16 = 2;

const fn first_definition() -> u16 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_first_definition(definition: &u16) -> bool {
    *definition == 1
}

/// Deadlines that hold for one saga, recorded when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Policy {
    /// Length of a delivery day, milliseconds.
    pub day_ms: u64,
    /// How long after `PlaceOrder` a payment may begin, milliseconds.
    pub pay_within_ms: u64,
    /// How long a begun charge may stay unanswered, milliseconds.
    pub charge_within_ms: u64,
}

impl Default for Policy {
    /// A day of 24 hours, 15 minutes to pay, 60 seconds to charge.
    fn default() -> Self {
        Self { day_ms: 86_400_000, pay_within_ms: 900_000, charge_within_ms: 60_000 }
    }
}

/// See [`OrderSagaMessage::PlaceOrder`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlaceOrder {
    /// Who buys.
    pub customer_id: CustomerId,
    /// 1..=20 lines, one per sku, sorted by sku; their index is the [`LineNumber`].
    pub lines: Vec<OrderedLine>,
    /// Charge at once with this method; without it the order waits for [`PayOrder`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_method: Option<PaymentMethod>,
    /// Hash of the validated order; a repeat has the same.
    pub fingerprint: String,
    /// A first `PlaceOrder` logged later than this is refused (`not_placed`).
    pub publish_before: Timestamp,
    /// Deadlines of this order; the defaults of [`Policy`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// The version of the saga's definition that the order begins and ends with.
    #[serde(default = "first_definition", skip_serializing_if = "is_first_definition")]
    pub definition: u16,
}

/// See [`OrderSagaMessage::PayOrder`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PayOrder {
    /// The request; its answer names it.
    pub request_id: RequestId,
    /// Who asks.
    pub customer_id: CustomerId,
    /// How it is paid.
    pub method: PaymentMethod,
}

/// See [`OrderSagaMessage::CancelOrder`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CancelOrder {
    /// The request; its answer names it.
    pub request_id: RequestId,
    /// Who asks.
    pub customer_id: CustomerId,
}

/// See [`OrderSagaMessage::ReturnOrder`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReturnOrder {
    /// The request; its answer names it.
    pub request_id: RequestId,
    /// Who asks.
    pub customer_id: CustomerId,
}

/// Why the units of a line were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReserveRefusal {
    /// Not enough units are available.
    SoldOut,
    /// The order was placed outside the product's sale window.
    SaleClosed,
    /// The customer would hold more units than one customer may.
    LimitExceeded,
    /// No such product.
    UnknownSku,
    /// The line was released before it was reserved.
    Released,
}

/// See [`OrderSagaMessage::StockReserved`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockReserved {
    /// The order's line.
    pub line: LineNumber,
    /// The attempt this answers.
    pub attempt: Attempt,
    /// The sku's ledger entries with this one.
    pub stock_version: i64,
}

/// See [`OrderSagaMessage::StockRefused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockRefused {
    /// The order's line.
    pub line: LineNumber,
    /// The attempt this answers.
    pub attempt: Attempt,
    /// Why.
    pub reason: ReserveRefusal,
    /// The sku's ledger entries when it was refused (0: unknown sku).
    pub stock_version: i64,
}

/// See [`OrderSagaMessage::StockConfirmed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockConfirmed {
    /// The order's line.
    pub line: LineNumber,
    /// The attempt this answers.
    pub attempt: Attempt,
    /// The sku's ledger entries with this one.
    pub stock_version: i64,
}

/// See [`OrderSagaMessage::StockReleased`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockReleased {
    /// The order's line.
    pub line: LineNumber,
    /// The attempt this answers.
    pub attempt: Attempt,
    /// Units that came back; 0 if none were held.
    pub units: u32,
    /// The sku's ledger entries with this one.
    pub stock_version: i64,
}

/// See [`OrderSagaMessage::StockRestocked`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockRestocked {
    /// The order's line.
    pub line: LineNumber,
    /// The attempt this answers.
    pub attempt: Attempt,
    /// Units that came back.
    pub units: u32,
    /// The sku's ledger entries with this one.
    pub stock_version: i64,
}

/// A command of the stock worker that an order's saga sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StockCommandKind {
    /// Hold units.
    Reserve,
    /// Turn held units into sold ones.
    Confirm,
    /// Give held units back.
    Release,
    /// Give sold units back.
    Restock,
}

/// See [`OrderSagaMessage::StockCommandFailed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockCommandFailed {
    /// The order's line.
    pub line: LineNumber,
    /// What could not be done.
    pub command: StockCommandKind,
    /// The attempt this answers.
    pub attempt: Attempt,
    /// A stable `snake_case` word for why.
    pub code: String,
}

/// See [`OrderSagaMessage::PaymentApproved`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentApproved {
    /// The attempt of the charge, or of its closing, that this answers.
    pub attempt: Attempt,
    /// What was charged.
    pub amount: Money,
    /// The provider's name for the charge.
    pub reference: String,
}

/// Why nothing was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeclineReason {
    /// The provider said no.
    Declined,
    /// The amount is over the customer's limit.
    OverLimit,
    /// The customer left the payment page.
    Abandoned,
}

/// See [`OrderSagaMessage::PaymentDeclined`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentDeclined {
    /// The attempt of the charge, or of its closing, that this answers.
    pub attempt: Attempt,
    /// Why.
    pub reason: DeclineReason,
}

/// See [`OrderSagaMessage::PaymentClosed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentClosed {
    /// The attempt of the closing that this answers; of the charge if it came behind its closing.
    pub attempt: Attempt,
}

/// See [`OrderSagaMessage::PaymentRefunded`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentRefunded {
    /// The attempt of the refund that this answers.
    pub attempt: Attempt,
    /// What was given back.
    pub amount: Money,
    /// The provider's name for the refund.
    pub reference: String,
}

/// A command of the payment worker that an order's saga sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentCommandKind {
    /// Take the money.
    Charge,
    /// Make sure that it is not taken any more, or learn that it was.
    Close,
    /// Give it back.
    Refund,
}

/// See [`OrderSagaMessage::PaymentCommandFailed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentCommandFailed {
    /// What could not be done.
    pub command: PaymentCommandKind,
    /// The attempt this answers.
    pub attempt: Attempt,
    /// A stable `snake_case` word for why (`outcome_unknown`: the provider can't tell for 24 hours).
    pub code: String,
}

/// The saga's timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimerName {
    /// The order was not paid in time.
    PayBefore,
    /// The charge was not answered in time.
    ChargeDeadline,
    /// The parcel leaves.
    Ship,
    /// The parcel arrives.
    Deliver,
    /// The return window closes.
    ReturnWindow,
    /// The returned parcel arrives.
    Return,
}

/// See [`OrderSagaMessage::TimerFired`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimerFired {
    /// Which timer.
    pub timer: TimerName,
    /// When it was due; a timer that has been armed anew since is another one.
    pub due_at: Timestamp,
}

/// A step or compensation of the saga, as operators name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    /// Hold a line's units.
    Reserve,
    /// Charge the customer.
    Charge,
    /// Sell a line's held units.
    Confirm,
    /// Give a line's held units back.
    Release,
    /// Close the charge.
    Close,
    /// Give the money back.
    Refund,
    /// Give a line's sold units back.
    Restock,
}

/// See [`OrderSagaMessage::PauseSaga`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PauseSaga {
    /// The request; its answer names it.
    pub request_id: RequestId,
    /// Who.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// See [`OrderSagaMessage::ResumeSaga`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResumeSaga {
    /// The request; its answer names it.
    pub request_id: RequestId,
    /// Who.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// See [`OrderSagaMessage::RetryStep`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RetryStep {
    /// The request; its answer names it.
    pub request_id: RequestId,
    /// Who.
    pub operator: String,
    /// Why.
    pub reason: String,
    /// Which step.
    pub step: StepName,
    /// Which line, for steps that a line has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<LineNumber>,
}

/// See [`OrderSagaMessage::SkipStep`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SkipStep {
    /// The request; its answer names it.
    pub request_id: RequestId,
    /// Who.
    pub operator: String,
    /// Why.
    pub reason: String,
    /// Which step.
    pub step: StepName,
    /// Which line, for steps that a line has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<LineNumber>,
    /// What settled it by hand: needed for a refund, and for a charge whose fate is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_by: Option<String>,
}

/// See [`OrderSagaMessage::CompensateSaga`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CompensateSaga {
    /// The request; its answer names it.
    pub request_id: RequestId,
    /// Who.
    pub operator: String,
    /// Why.
    pub reason: String,
}
