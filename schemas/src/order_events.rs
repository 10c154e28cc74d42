//! `order-events`: what happened to orders. Each event has the order's version; readers ignore what is not newer.

use domain_types::{CustomerId, LineNumber, Money, RequestId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::messages;
use crate::{OrderedLine, PaymentMethod, Topic};

messages! {
    /// Something that happened to an order.
    OrderEvent on Some(Topic::OrderEvents);
    /// The saga has begun, or was refused at once: the whole order.
    OrderPlaced = 1,
    /// The order changed: what is new. A field that is absent is as it was.
    OrderChanged = 1,
}

/// The public state of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderState {
    /// Taken by the api; the saga has not begun.
    Accepted,
    /// Units are being held.
    Reserving,
    /// Units are held; waiting for the customer to pay.
    AwaitingPayment,
    /// The charge is under way.
    Charging,
    /// Paid.
    Paid,
    /// On its way.
    Shipped,
    /// Arrived; final once the return window has closed.
    Delivered,
    /// The customer sends it back.
    ReturnRequested,
    /// Things are being given back; the reason tells how it will end.
    Compensating,
    /// Final: cancelled by the customer or an operator.
    Cancelled,
    /// Final: came back.
    Returned,
    /// Final: refused before anything was charged.
    Rejected,
    /// Final: the payment failed.
    PaymentFailed,
    /// Final: not paid in time.
    Expired,
}

impl OrderState {
    /// All states.
    pub const ALL: [Self; 14] = [
        Self::Accepted,
        Self::Reserving,
        Self::AwaitingPayment,
        Self::Charging,
        Self::Paid,
        Self::Shipped,
        Self::Delivered,
        Self::ReturnRequested,
        Self::Compensating,
        Self::Cancelled,
        Self::Returned,
        Self::Rejected,
        Self::PaymentFailed,
        Self::Expired,
    ];

    /// The state as it is written on the wire and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::Reserving => "RESERVING",
            Self::AwaitingPayment => "AWAITING_PAYMENT",
            Self::Charging => "CHARGING",
            Self::Paid => "PAID",
            Self::Shipped => "SHIPPED",
            Self::Delivered => "DELIVERED",
            Self::ReturnRequested => "RETURN_REQUESTED",
            Self::Compensating => "COMPENSATING",
            Self::Cancelled => "CANCELLED",
            Self::Returned => "RETURNED",
            Self::Rejected => "REJECTED",
            Self::PaymentFailed => "PAYMENT_FAILED",
            Self::Expired => "EXPIRED",
        }
    }
}

/// Why an order is in its state, or with what it will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Not enough units.
    SoldOut,
    /// Placed outside the sale window.
    SaleClosed,
    /// More than one customer may have.
    LimitExceeded,
    /// No such product.
    UnknownSku,
    /// The order reached the log too late.
    NotPlaced,
    /// The provider said no.
    Declined,
    /// Over the customer's limit.
    OverLimit,
    /// The customer left the payment page.
    Abandoned,
    /// Compensating: will end cancelled.
    Cancelled,
    /// Compensating: will end returned.
    Returned,
    /// Compensating: will end expired.
    Expired,
    /// Something waits for an operator.
    NeedsOperator,
}

impl Reason {
    /// The reason as it is written on the wire and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SoldOut => "sold_out",
            Self::SaleClosed => "sale_closed",
            Self::LimitExceeded => "limit_exceeded",
            Self::UnknownSku => "unknown_sku",
            Self::NotPlaced => "not_placed",
            Self::Declined => "declined",
            Self::OverLimit => "over_limit",
            Self::Abandoned => "abandoned",
            Self::Cancelled => "cancelled",
            Self::Returned => "returned",
            Self::Expired => "expired",
            Self::NeedsOperator => "needs_operator",
        }
    }
}

/// Where the payment of an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// The charge is under way.
    Pending,
    /// Charged.
    Approved,
    /// The provider said no.
    Declined,
    /// Over the customer's limit.
    OverLimit,
    /// The customer left the payment page.
    Abandoned,
    /// The charge is being closed; its fate is not known yet.
    Closing,
    /// Closed; nothing was charged.
    Closed,
    /// The refund is under way.
    Refunding,
    /// Given back.
    Refunded,
}

/// The payment part of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentView {
    /// Where it stands.
    pub state: PaymentState,
    /// How it is paid.
    pub method: PaymentMethod,
    /// What was charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged: Option<Money>,
    /// What was given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refunded: Option<Money>,
    /// Log time of the last change.
    pub at: Timestamp,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// Customer: pay.
    Payment,
    /// Customer: cancel.
    Cancellation,
    /// Customer: give back.
    Return,
    /// Operator.
    Pause,
    /// Operator.
    Resume,
    /// Operator.
    Retry,
    /// Operator.
    Skip,
    /// Operator.
    Compensate,
}

/// What became of a request. `Pending` is the API's word for one without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestOutcome {
    /// Not answered yet.
    Pending,
    /// Taken: what it asks for is done or under way.
    Done,
    /// Refused; `code` says why.
    Refused,
}

/// The saga's answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestView {
    /// The request.
    pub id: RequestId,
    /// What it asks for.
    pub kind: RequestKind,
    /// What became of it.
    pub outcome: RequestOutcome,
    /// Why it was refused, a stable `snake_case` word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Log time of the request.
    pub at: Timestamp,
}

/// Whether a line holds stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LineStock {
    /// The order's line.
    pub line: LineNumber,
    /// Units of it are held or sold for this order.
    pub held: bool,
    /// The sku's ledger entries when that became so.
    pub stock_version: i64,
}

/// See [`OrderEvent::OrderPlaced`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderPlaced {
    /// The order's version: 2 (the api's own `ACCEPTED` is 1).
    pub version: i64,
    /// Who buys.
    pub customer_id: CustomerId,
    /// `RESERVING`, or `REJECTED` if it came too late.
    pub state: OrderState,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Whether nothing more can happen to it.
    #[serde(default, rename = "final")]
    pub is_final: bool,
    /// The lines; their index is their [`LineNumber`].
    pub lines: Vec<OrderedLine>,
    /// Sum of the lines.
    pub total: Money,
    /// When an order placed without payment expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pay_before: Option<Timestamp>,
    /// Log time of `PlaceOrder`.
    pub at: Timestamp,
}

/// See [`OrderEvent::OrderChanged`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderChanged {
    /// The order's version, one more than before.
    pub version: i64,
    /// The state from now on.
    pub state: OrderState,
    /// Why; `None`: no reason from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Whether nothing more can happen to it.
    #[serde(default, rename = "final")]
    pub is_final: bool,
    /// The payment from now on, if it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<PaymentView>,
    /// Until when it may be given back, if that became known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_before: Option<Timestamp>,
    /// The answer to a request, if that is what changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestView>,
    /// Lines whose stock changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stock: Vec<LineStock>,
    /// Log time of the input behind the change.
    pub at: Timestamp,
}
