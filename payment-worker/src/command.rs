//! Commands as they come from the log.

use std::borrow::Cow;

use domain_types::{CustomerId, OrderId};
use messaging::Record;
use payment_domain::Cause;
use schemas::{DecodeError, Envelope, Message, PaymentCommand};

use crate::CONSUMER_GROUP;

/// Longest trace context that is passed on (W3C version 00 has 55 characters).
const TRACEPARENT_BYTES: usize = 128;

/// A command and whose it is.
#[derive(Debug, Clone)]
pub struct Command {
    /// The order.
    pub order_id: OrderId,
    /// The command's message.
    pub cause: Cause,
    /// What it asks for.
    pub message: PaymentCommand,
}

fn customer_of(command: &PaymentCommand) -> CustomerId {
    match command {
        PaymentCommand::ChargePayment(command) => command.customer_id,
        PaymentCommand::ClosePayment(command) => command.customer_id,
        PaymentCommand::RefundPayment(command) => command.customer_id,
    }
}

/// Reads a command, and refuses one that does not belong where it is: under another key it would be in another
/// partition than its customer's money, and without an order there is nobody to answer to.
///
/// # Errors
/// Why the record is no command.
pub fn decode(record: &Record) -> Result<Command, DecodeError> {
    let envelope = Envelope::<PaymentCommand>::decode(&record.value)?;
    let malformed = |why: &str| DecodeError::Malformed {
        message_type: envelope.message.type_name().to_owned(),
        source: serde::de::Error::custom(why),
    };
    let order_id = envelope.order_id.ok_or_else(|| malformed("the envelope names no order"))?;
    if record.key_str() != Some(customer_of(&envelope.message).to_string().as_str()) {
        return Err(malformed("the record's key is not the command's customer"));
    }
    let traceparent = record
        .onward(CONSUMER_GROUP, envelope.message_id)
        .filter(|traceparent| traceparent.len() <= TRACEPARENT_BYTES);
    let cause = Cause {
        message_id: envelope.message_id,
        time: record.time,
        traceparent: traceparent.map(Cow::into_owned),
    };
    Ok(Command { order_id, cause, message: envelope.message })
}
