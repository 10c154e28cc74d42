//! Every message version has a golden example in `golden/TYPE.vN.json`; old examples still decode, to what they said.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schemas::{
    ControlMessage, Envelope, Message, OrderEvent, OrderSagaMessage, PaymentCommand, StockCommand,
    StockEvent, StockLevelMessage, Topic, catalogue,
};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Decodes and encodes again.
fn round_trip<M: Message>(text: &str) -> Value {
    let envelope = Envelope::<M>::decode(text.as_bytes()).unwrap();
    serde_json::from_slice(&envelope.encode()).unwrap()
}

fn round_trip_in(topic: Option<Topic>, text: &str) -> Value {
    match topic {
        Some(Topic::OrderSaga) => round_trip::<OrderSagaMessage>(text),
        Some(Topic::StockCommands) => round_trip::<StockCommand>(text),
        Some(Topic::PaymentCommands) => round_trip::<PaymentCommand>(text),
        Some(Topic::OrderEvents) => round_trip::<OrderEvent>(text),
        Some(Topic::StockEvents) => round_trip::<StockEvent>(text),
        Some(Topic::StockLevels) => round_trip::<StockLevelMessage>(text),
        None => round_trip::<ControlMessage>(text),
        Some(Topic::DeadLetters) => panic!("dead letters are other topics' records"),
    }
}

#[test]
fn every_message_version_has_a_golden_example_that_decodes_to_what_it_says() {
    let mut known = BTreeSet::new();
    for spec in catalogue() {
        let name = format!("{}.v{}.json", spec.message_type, spec.version);
        let text = std::fs::read_to_string(folder().join(&name))
            .unwrap_or_else(|_| panic!("schemas/golden/{name} is missing: write one by hand"));
        let golden: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(round_trip_in(spec.topic, &text), golden, "{name}");
        known.insert(name);
    }
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name), "{name} is no message any more, but records of it are kept for ever");
    }
}

#[test]
fn an_unknown_version_is_told_apart_from_a_broken_message() {
    let text = std::fs::read_to_string(folder().join("CancelOrder.v1.json")).unwrap();
    let newer = text.replace("\"version\": 1", "\"version\": 7");
    let error = Envelope::<OrderSagaMessage>::decode(newer.as_bytes()).unwrap_err();
    assert!(matches!(error, schemas::DecodeError::Unknown { version: 7, .. }), "{error}");
    let broken = text.replace("request_id", "request");
    let error = Envelope::<OrderSagaMessage>::decode(broken.as_bytes()).unwrap_err();
    assert!(matches!(error, schemas::DecodeError::Malformed { .. }), "{error}");
}

#[test]
fn what_the_second_definition_writes_decodes_to_what_it_says() {
    for (name, field, value, topic) in [
        ("PlaceOrder.v1.json", "definition", Value::from(2), Topic::OrderSaga),
        ("ConfirmStock.v1.json", "silent", Value::from(true), Topic::StockCommands),
    ] {
        let mut golden: Value =
            serde_json::from_str(&std::fs::read_to_string(folder().join(name)).unwrap()).unwrap();
        let data = golden.pointer_mut("/data").and_then(Value::as_object_mut).unwrap();
        assert!(data.insert(field.to_owned(), value).is_none(), "{name}");
        assert_eq!(round_trip_in(Some(topic), &golden.to_string()), golden, "{name}");
    }
}

#[test]
fn lines_from_before_there_were_tickets_still_decode() {
    for name in ["PlaceOrder.v1.json", "OrderPlaced.v1.json"] {
        let mut golden: Value =
            serde_json::from_str(&std::fs::read_to_string(folder().join(name)).unwrap()).unwrap();
        let line = golden.pointer_mut("/data/lines/0").and_then(Value::as_object_mut).unwrap();
        assert!(line.remove("ticket").is_some(), "{name}");
        let topic = if name.starts_with("Place") { Topic::OrderSaga } else { Topic::OrderEvents };
        assert_eq!(round_trip_in(Some(topic), &golden.to_string()), golden, "{name}");
    }
}

#[test]
fn a_field_that_this_build_does_not_know_is_ignored() {
    let text = std::fs::read_to_string(folder().join("CancelOrder.v1.json")).unwrap();
    let with_more =
        text.replacen("\"data\": {", "\"data\": {\"later\": 1,", 1).replacen('{', "{\"also\": 2,", 1);
    Envelope::<OrderSagaMessage>::decode(with_more.as_bytes()).unwrap();
}

#[test]
fn fields_may_come_in_any_order_but_only_once() {
    let text = std::fs::read_to_string(folder().join("CancelOrder.v1.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let written = Envelope::<OrderSagaMessage>::decode(text.as_bytes()).unwrap();
    let mut fields: Vec<String> = golden
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
        .collect();
    for _ in 0..fields.len() {
        fields.rotate_left(1);
        for fields in [fields.clone(), fields.iter().rev().cloned().collect()] {
            let turned = format!("{{{}}}", fields.join(","));
            assert_eq!(Envelope::<OrderSagaMessage>::decode(turned.as_bytes()).unwrap(), written, "{turned}");
        }
        let twice = format!("{{{},{}}}", fields.join(","), fields[0]);
        assert!(Envelope::<OrderSagaMessage>::decode(twice.as_bytes()).is_err(), "{twice}");
        let missing = format!("{{{}}}", fields[1..].join(","));
        let read = Envelope::<OrderSagaMessage>::decode(missing.as_bytes());
        let is_optional = fields[0].starts_with("\"order_id") || fields[0].starts_with("\"causation_id");
        assert_eq!(read.is_ok(), is_optional, "{missing}");
    }
}
