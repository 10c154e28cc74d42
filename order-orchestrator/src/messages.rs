//! Inputs as they come from the log, and effects as they go out.

use domain_types::{MessageId, OrderId, Timestamp};
use messaging::{Output, Record};
use saga::{Definition, Effect, Timer};
use schemas::{
    DecodeError, Envelope, Message, OrderSagaMessage, PaymentCommand, TimerFired, TimerName, Topic,
};
use uuid::Uuid;

use crate::CONSUMER_GROUP;

/// An input and the order it is for.
#[derive(Debug)]
pub struct SagaInput {
    /// The order.
    pub order_id: OrderId,
    /// The input's message.
    pub message_id: MessageId,
    /// What it says.
    pub message: OrderSagaMessage,
}

/// Reads an input, and refuses one that does not belong where it is: under another key it would be in another
/// partition than the rest of its order.
///
/// # Errors
/// Why the record is no input of a saga.
pub fn decode(record: &Record) -> Result<SagaInput, DecodeError> {
    let envelope = Envelope::<OrderSagaMessage>::decode(&record.value)?;
    let malformed = |why: &str| DecodeError::Malformed {
        message_type: envelope.message.type_name().to_owned(),
        source: serde::de::Error::custom(why),
    };
    let order_id = envelope.order_id.ok_or_else(|| malformed("the envelope names no order"))?;
    let key = record.key_str().map(Uuid::parse_str);
    if key != Some(Ok(order_id.uuid())) {
        return Err(malformed("the record's key is not the order's id"));
    }
    if let OrderSagaMessage::PlaceOrder(order) = &envelope.message {
        match order.definition {
            0 => return Err(malformed("no definition of the saga has version 0")),
            definition if Definition::of(definition).is_none() => {
                return Err(DecodeError::UnknownDefinition { definition });
            }
            _ => {}
        }
    }
    Ok(SagaInput { order_id, message_id: envelope.message_id, message: envelope.message })
}

/// The record of an effect: the `index`-th that `input` led to, so that a repeat has the same id.
pub fn output(input: &SagaInput, record: &Record, index: u32, effect: Effect) -> Output {
    let order_id = input.order_id;
    let wrap = Wrap {
        message_id: MessageId::caused_by(input.message_id, index),
        order_id,
        causation_id: Some(input.message_id),
        occurred_at: record.time,
    };
    let output = match effect {
        Effect::Stock { sku, command } => {
            Output::new(Topic::StockCommands, sku.as_str(), &wrap.message(command)).parking_key(order_id)
        }
        Effect::Payment(command) => {
            let customer_id = match &command {
                PaymentCommand::ChargePayment(command) => command.customer_id,
                PaymentCommand::ClosePayment(command) => command.customer_id,
                PaymentCommand::RefundPayment(command) => command.customer_id,
            };
            Output::new(Topic::PaymentCommands, customer_id.to_string(), &wrap.message(command))
                .parking_key(order_id)
        }
        Effect::Event(event) => Output::new(Topic::OrderEvents, order_id.to_string(), &wrap.message(event)),
    };
    output.traceparent(record.onward(CONSUMER_GROUP, input.message_id).as_deref())
}

/// The record of a due timer. It depends on order, timer and due time alone: fired again it is the same message.
pub(crate) fn timer_fired(order_id: OrderId, timer: Timer) -> Output {
    let name = format!("{}:{}", timer_name(timer.name), timer.due_at.as_millis());
    let wrap = Wrap {
        message_id: MessageId(Uuid::new_v5(&order_id.uuid(), name.as_bytes())),
        order_id,
        causation_id: None,
        occurred_at: timer.due_at,
    };
    let fired: OrderSagaMessage = TimerFired { timer: timer.name, due_at: timer.due_at }.into();
    Output::new(Topic::OrderSaga, order_id.to_string(), &wrap.message(fired))
}

struct Wrap {
    message_id: MessageId,
    order_id: OrderId,
    causation_id: Option<MessageId>,
    occurred_at: Timestamp,
}

impl Wrap {
    fn message<M>(self, message: M) -> Envelope<M> {
        Envelope {
            message_id: self.message_id,
            order_id: Some(self.order_id),
            causation_id: self.causation_id,
            occurred_at: self.occurred_at,
            message,
        }
    }
}

/// The trace id of a record, if it has one: `version-traceid-spanid-flags`.
pub(crate) fn trace_id(record: &Record) -> Option<String> {
    let id = record.traceparent()?.split('-').nth(1)?;
    (id.len() == 32).then(|| id.to_owned())
}

/// A timer's name as it is stored and counted.
pub const fn timer_name(timer: TimerName) -> &'static str {
    match timer {
        TimerName::PayBefore => "pay_before",
        TimerName::ChargeDeadline => "charge_deadline",
        TimerName::Ship => "ship",
        TimerName::Deliver => "deliver",
        TimerName::ReturnWindow => "return_window",
        TimerName::Return => "return",
    }
}

/// The timer of that name.
pub(crate) fn timer_by_name(name: &str) -> Option<TimerName> {
    [
        TimerName::PayBefore,
        TimerName::ChargeDeadline,
        TimerName::Ship,
        TimerName::Deliver,
        TimerName::ReturnWindow,
        TimerName::Return,
    ]
    .into_iter()
    .find(|timer| timer_name(*timer) == name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use messaging::Offset;
    use schemas::PauseSaga;

    use super::*;

    fn record(key: Option<&str>, order_id: Option<OrderId>) -> Record {
        let pause = PauseSaga {
            request_id: Uuid::from_u128(2).into(),
            operator: "kim".into(),
            reason: "look".into(),
        };
        let envelope: Envelope<OrderSagaMessage> = Envelope {
            message_id: Uuid::from_u128(3).into(),
            order_id,
            causation_id: None,
            occurred_at: Timestamp::from_millis(0),
            message: pause.into(),
        };
        Record {
            topic: Arc::from("order-saga"),
            partition: 0,
            offset: Offset(0),
            time: Timestamp::from_millis(0),
            key: key.map(|key| key.as_bytes().to_vec()),
            headers: vec![(
                "traceparent".into(),
                b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_vec(),
            )],
            value: envelope.encode(),
        }
    }

    #[test]
    fn an_input_under_another_key_or_without_an_order_is_refused() {
        let order_id = OrderId(Uuid::from_u128(1));
        let key = order_id.to_string();
        assert_eq!(decode(&record(Some(&key), Some(order_id))).unwrap().order_id, order_id);
        let other = Uuid::from_u128(9).to_string();
        for bad in
            [record(Some(&other), Some(order_id)), record(None, Some(order_id)), record(Some(&key), None)]
        {
            assert!(matches!(decode(&bad), Err(DecodeError::Malformed { .. })));
        }
    }

    #[test]
    fn a_timer_fired_again_is_the_same_message_and_armed_anew_another() {
        let order_id = OrderId(Uuid::from_u128(1));
        let timer = Timer { name: TimerName::Ship, due_at: Timestamp::from_millis(5) };
        assert_eq!(timer_fired(order_id, timer), timer_fired(order_id, timer));
        let later = Timer { due_at: Timestamp::from_millis(6), ..timer };
        assert_ne!(timer_fired(order_id, timer).value(), timer_fired(order_id, later).value());
        assert_eq!(timer_by_name(timer_name(TimerName::ReturnWindow)), Some(TimerName::ReturnWindow));
    }

    #[test]
    fn the_trace_id_is_taken_from_the_header() {
        assert_eq!(trace_id(&record(None, None)).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
    }

    #[test]
    fn an_order_of_a_later_definition_waits_for_a_build_that_knows_it() {
        let order = Uuid::parse_str("0195a3c0-0000-7000-8000-000000000001").unwrap();
        let read = |definition: &str| {
            let value = include_str!("../../schemas/golden/PlaceOrder.v1.json").replacen(
                "\"fingerprint\"",
                &format!("\"definition\": {definition}, \"fingerprint\""),
                1,
            );
            let key = order.to_string();
            decode(&Record { value: value.into_bytes(), ..record(Some(&key), Some(order.into())) })
        };
        assert!(read("1").is_ok() && read("2").is_ok());
        assert!(matches!(read("3"), Err(DecodeError::UnknownDefinition { definition: 3 })));
        assert!(matches!(read("0"), Err(DecodeError::Malformed { .. })));
    }
}
