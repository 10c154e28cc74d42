#![doc = include_str!("../README.md")]

mod control;
mod envelope;
pub mod generate;
mod order_events;
mod order_saga;
mod payment_commands;
mod product;
mod stock_commands;
mod stock_events;
mod topic;

pub use control::{ControlMessage, DiscardParked, RedriveParked, ReplaceParked};
pub use envelope::{DecodeError, Envelope, Message, MessageSpec};
pub use order_events::{
    LineStock, OrderChanged, OrderEvent, OrderPlaced, OrderState, PaymentState, PaymentView, Reason,
    RequestKind, RequestOutcome, RequestView,
};
pub use order_saga::{
    CancelOrder, CompensateSaga, DeclineReason, OrderSagaMessage, OrderedLine, PauseSaga, PayOrder,
    PaymentApproved, PaymentClosed, PaymentCommandFailed, PaymentCommandKind, PaymentDeclined, PaymentMethod,
    PaymentRefunded, PlaceOrder, Policy, ReserveRefusal, ResumeSaga, RetryStep, ReturnOrder, SAGA_DEFINITION,
    SkipStep, StepName, StockCommandFailed, StockCommandKind, StockConfirmed, StockRefused, StockReleased,
    StockReserved, StockRestocked, Ticket, TimerFired, TimerName,
};
pub use payment_commands::{ChargePayment, ClosePayment, PaymentCommand, RefundPayment};
pub use product::{DailySale, ProductData, ProductKind, Sale};
pub use stock_commands::{
    ChangeStock, ConfirmStock, DefineProduct, ReleaseStock, ReserveStock, RestockStock, StockCommand,
};
pub use stock_events::{
    StockChangeApplied, StockChangeCode, StockChangeRefused, StockEvent, StockLevel, StockLevelMessage,
};
pub use topic::Topic;

/// Header: what is parked together. Without it, the record's key.
pub const HEADER_PARKING_KEY: &str = "parking-key";
/// Header: the record is a control record for the consumer's runtime, not for its handler.
pub const HEADER_CONTROL: &str = "control";
/// Header: W3C trace context.
pub const HEADER_TRACEPARENT: &str = "traceparent";

/// Every message version this build can read, with its JSON Schema: the source of the generated files.
pub fn catalogue() -> Vec<MessageSpec> {
    let mut specs = Vec::new();
    specs.extend(OrderSagaMessage::specs());
    specs.extend(StockCommand::specs());
    specs.extend(PaymentCommand::specs());
    specs.extend(OrderEvent::specs());
    specs.extend(StockEvent::specs());
    specs.extend(StockLevelMessage::specs());
    specs.extend(ControlMessage::specs());
    specs
}
