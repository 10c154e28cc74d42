//! The order as the api shows it, and as the projection keeps it.

use domain_types::{CustomerId, Money, MoneyError, OrderId, Quantity, RequestId, Sku, Timestamp};
use schemas::{
    OrderChanged, OrderPlaced, OrderState, OrderedLine, PaymentMethod, PaymentState, PaymentView, PlaceOrder,
    Reason, RequestKind, RequestOutcome, RequestView,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::openapi::wire;

/// The version of an order that the saga has not seen.
pub(crate) const ACCEPTED_VERSION: i64 = 1;
/// Most answered requests that an order shows: the newest ones.
const MAX_REQUESTS: usize = 100;

/// An order. Every field is always there; what is not known is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Order {
    /// Given out with the `202`; found from then on, at every node.
    #[schema(value_type = Uuid)]
    pub(crate) id: OrderId,
    #[schema(value_type = Uuid)]
    pub(crate) customer_id: CustomerId,
    /// Where it stands.
    #[schema(value_type = wire::OrderState)]
    pub(crate) state: OrderState,
    /// Why it is in this state, or how it will end; null while all goes well.
    #[schema(value_type = Option<wire::Reason>, required)]
    pub(crate) reason: Option<Reason>,
    /// Nothing changes any more.
    #[serde(rename = "final")]
    pub(crate) is_final: bool,
    /// What was ordered, as the catalogue stood then; one line per sku.
    pub(crate) lines: Vec<Line>,
    /// Sum of the lines.
    #[schema(value_type = wire::Money)]
    pub(crate) total: Money,
    /// Taken off the total; 0 for now.
    #[schema(value_type = wire::Money)]
    pub(crate) discount: Money,
    /// Points used instead of money; 0 for now.
    pub(crate) points_used: i64,
    /// What is to be paid.
    #[schema(value_type = wire::Money)]
    pub(crate) amount_due: Money,
    /// Null until a payment has begun.
    #[schema(required)]
    pub(crate) payment: Option<Payment>,
    /// When it was taken.
    #[schema(value_type = wire::Timestamp)]
    pub(crate) created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = wire::Timestamp)]
    pub(crate) updated_at: Timestamp,
    /// Until when a payment may begin; null before the saga has begun.
    #[schema(value_type = Option<wire::Timestamp>, required)]
    pub(crate) pay_before: Option<Timestamp>,
    /// Until when it may be given back; null before it was delivered.
    #[schema(value_type = Option<wire::Timestamp>, required)]
    pub(crate) return_before: Option<Timestamp>,
    /// Grows by one with each change and never goes back.
    pub(crate) version: i64,
    /// Each state it has been in, oldest first.
    pub(crate) history: Vec<HistoryEntry>,
    /// Payments, cancellations and returns asked for, and what became of them.
    pub(crate) requests: Vec<Request>,
}

/// A line, as the catalogue stood when the order was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Line {
    #[schema(value_type = wire::Sku)]
    pub(crate) sku: Sku,
    pub(crate) name: String,
    #[schema(required)]
    pub(crate) option: Option<String>,
    /// Of one unit.
    #[schema(value_type = wire::Money)]
    pub(crate) unit_price: Money,
    #[schema(value_type = wire::Quantity)]
    pub(crate) quantity: Quantity,
    /// Of all units of the line.
    #[schema(value_type = wire::Money)]
    pub(crate) line_total: Money,
}

/// Where the payment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Payment {
    /// Where it stands.
    #[schema(value_type = wire::PaymentState)]
    pub(crate) state: PaymentState,
    #[schema(value_type = String)]
    pub(crate) method: PaymentMethod,
    /// Null until something was charged.
    #[schema(value_type = Option<wire::Money>, required)]
    pub(crate) charged: Option<Money>,
    /// Null until something was given back.
    #[schema(value_type = Option<wire::Money>, required)]
    pub(crate) refunded: Option<Money>,
    #[schema(value_type = wire::Timestamp)]
    pub(crate) at: Timestamp,
}

/// A state the order has been in, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct HistoryEntry {
    /// Where it stands.
    #[schema(value_type = wire::OrderState)]
    pub(crate) state: OrderState,
    /// Why it is in this state, or how it will end; null while all goes well.
    #[schema(value_type = Option<wire::Reason>, required)]
    pub(crate) reason: Option<Reason>,
    #[schema(value_type = wire::Timestamp)]
    pub(crate) at: Timestamp,
}

/// A request about the order and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Request {
    #[schema(value_type = Uuid)]
    pub(crate) id: RequestId,
    #[schema(value_type = wire::RequestKind)]
    pub(crate) kind: RequestKind,
    #[schema(value_type = wire::RequestOutcome)]
    pub(crate) outcome: RequestOutcome,
    #[schema(required)]
    pub(crate) code: Option<String>,
    #[schema(value_type = wire::Timestamp)]
    pub(crate) at: Timestamp,
}

/// A kind of request as it is written, also in the names of requests: never change one.
pub(crate) const fn kind_name(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Payment => "payment",
        RequestKind::Cancellation => "cancellation",
        RequestKind::Return => "return",
        RequestKind::Pause => "pause",
        RequestKind::Resume => "resume",
        RequestKind::Retry => "retry",
        RequestKind::Skip => "skip",
        RequestKind::Compensate => "compensate",
    }
}

/// Sum of the lines.
///
/// # Errors
/// If it does not fit in 64 bits, or the currencies differ, or there is no line.
pub(crate) fn total(lines: &[OrderedLine]) -> Result<Money, MoneyError> {
    let mut sums = lines.iter().map(|line| line.unit_price.checked_mul(line.quantity));
    let first = sums.next().unwrap_or(Err(MoneyError::Overflow))?;
    sums.try_fold(first, |sum, line| sum.checked_add(line?))
}

impl Order {
    /// What the api shows until the saga has begun.
    ///
    /// # Errors
    /// See [`total`]; not for a command that was published.
    pub(crate) fn accepted(id: OrderId, command: &PlaceOrder, at: Timestamp) -> Result<Self, MoneyError> {
        let total = total(&command.lines)?;
        let facts = Facts { id, customer_id: command.customer_id, lines: &command.lines, total, at };
        facts.order(ACCEPTED_VERSION, OrderState::Accepted, None)
    }

    /// The order as the saga's first event tells it.
    ///
    /// # Errors
    /// If a line's total does not fit in 64 bits.
    pub(crate) fn placed(id: OrderId, event: &OrderPlaced) -> Result<Self, MoneyError> {
        let facts = Facts {
            id,
            customer_id: event.customer_id,
            lines: &event.lines,
            total: event.total,
            at: event.at,
        };
        let mut order = facts.order(event.version, event.state, event.reason)?;
        order.is_final = event.is_final;
        order.pay_before = event.pay_before;
        Ok(order)
    }

    /// Applies the next event. The caller has checked that its version is the next one.
    pub(crate) fn apply(&mut self, event: &OrderChanged) {
        if (event.state, event.reason) != (self.state, self.reason) {
            self.history.push(HistoryEntry { state: event.state, reason: event.reason, at: event.at });
        }
        self.version = event.version;
        self.state = event.state;
        self.reason = event.reason;
        self.is_final = event.is_final;
        self.updated_at = event.at;
        if let Some(payment) = &event.payment {
            self.payment = Some(payment.into());
        }
        if event.return_before.is_some() {
            self.return_before = event.return_before;
        }
        if let Some(request) = &event.request {
            self.requests.retain(|answered| answered.id != request.id);
            self.requests.push(request.into());
            let surplus = self.requests.len().saturating_sub(MAX_REQUESTS);
            self.requests.drain(..surplus);
        }
    }

    /// The answered request of that id.
    pub(crate) fn request(&self, id: RequestId) -> Option<&Request> {
        self.requests.iter().find(|request| request.id == id)
    }

    /// Shows requests without an answer too.
    pub(crate) fn show_pending(&mut self, pending: Vec<Request>) {
        for request in pending {
            if self.request(request.id).is_none() {
                self.requests.push(request);
            }
        }
    }
}

/// What an order never changes.
struct Facts<'a> {
    id: OrderId,
    customer_id: CustomerId,
    lines: &'a [OrderedLine],
    total: Money,
    at: Timestamp,
}

impl Facts<'_> {
    fn order(self, version: i64, state: OrderState, reason: Option<Reason>) -> Result<Order, MoneyError> {
        let nothing = Money::new(0, self.total.currency);
        let mut history = vec![HistoryEntry { state: OrderState::Accepted, reason: None, at: self.at }];
        if state != OrderState::Accepted {
            history.push(HistoryEntry { state, reason, at: self.at });
        }
        Ok(Order {
            id: self.id,
            customer_id: self.customer_id,
            state,
            reason,
            is_final: false,
            lines: self.lines.iter().map(Line::of).collect::<Result<_, _>>()?,
            total: self.total,
            discount: nothing,
            points_used: 0,
            amount_due: self.total,
            payment: None,
            created_at: self.at,
            updated_at: self.at,
            pay_before: None,
            return_before: None,
            version,
            history,
            requests: Vec::new(),
        })
    }
}

impl Line {
    fn of(line: &OrderedLine) -> Result<Self, MoneyError> {
        Ok(Self {
            sku: line.sku.clone(),
            name: line.name.clone(),
            option: line.option.clone(),
            unit_price: line.unit_price,
            quantity: line.quantity,
            line_total: line.unit_price.checked_mul(line.quantity)?,
        })
    }
}

impl From<&PaymentView> for Payment {
    fn from(view: &PaymentView) -> Self {
        Self {
            state: view.state,
            method: view.method.clone(),
            charged: view.charged,
            refunded: view.refunded,
            at: view.at,
        }
    }
}

impl From<&RequestView> for Request {
    fn from(view: &RequestView) -> Self {
        Self { id: view.id, kind: view.kind, outcome: view.outcome, code: view.code.clone(), at: view.at }
    }
}
