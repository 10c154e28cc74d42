//! JSON Schema and AsyncAPI documents, and the page about topics, made from the types.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::{MessageSpec, Topic, catalogue};

/// Every generated file: its path below `schemas/generated/`, and its content.
pub fn files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for topic in Topic::ALL {
        if topic != Topic::DeadLetters {
            files.insert(format!("{}.schema.json", topic.name()), pretty(&topic_schema(topic)));
        }
    }
    files.insert("asyncapi.json".to_owned(), pretty(&asyncapi()));
    files
}

/// The content of `docs/topics.md`: the topics, and every message version that this build can read.
pub fn topics_page() -> String {
    let mut page = String::from(
        "# Topics\n\nGenerated from `schemas/` by `make schemas`; a test fails when it is not current.\n\n\
         | Topic | Key | Kept | Written by | Read by |\n|---|---|---|---|---|\n",
    );
    for topic in Topic::ALL {
        // Writing to a String can't fail.
        let _ok = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            topic.name(),
            topic.key(),
            if topic.is_compacted() { "newest of each key" } else { "for ever" },
            topic.written_by().join(", "),
            topic.read_by().join(", "),
        );
    }
    page.push_str(
        "\nAll topics have the same number of partitions and `LogAppendTime`. Every consumer writes its dead letters, \
         and reads\nthem at its start. Anybody may read `order-events`, `stock-events`, `stock-levels` and \
         `dead-letters`.\n",
    );
    for topic in Topic::ALL {
        let specs: Vec<MessageSpec> =
            catalogue().into_iter().filter(|spec| spec.topic == Some(topic)).collect();
        if !specs.is_empty() {
            messages_table(&mut page, &format!("`{}`", topic.name()), &specs);
        }
    }
    let control: Vec<MessageSpec> = catalogue().into_iter().filter(|spec| spec.topic.is_none()).collect();
    messages_table(&mut page, "Control records, on any topic with an owner", &control);
    page
}

fn messages_table(page: &mut String, title: &str, specs: &[MessageSpec]) {
    let _ok = write!(page, "\n## {title}\n\n| Message | Version | Meaning |\n|---|---|---|\n");
    for MessageSpec { message_type, version, description, .. } in specs {
        let example = format!("../schemas/golden/{message_type}.v{version}.json");
        let _ok = writeln!(page, "| [`{message_type}`]({example}) | {version} | {} |", description.trim());
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The messages that a topic may hold, control records included.
fn messages_of(topic: Topic) -> Vec<MessageSpec> {
    let has_owner = !matches!(topic, Topic::StockLevels | Topic::DeadLetters);
    catalogue()
        .into_iter()
        .filter(|spec| spec.topic == Some(topic) || (spec.topic.is_none() && has_owner))
        .collect()
}

/// A schema that a whole record value of the topic meets: one of its messages in its envelope.
fn topic_schema(topic: Topic) -> Value {
    let mut definitions = Map::new();
    let variants: Vec<Value> =
        messages_of(topic).iter().map(|spec| envelope_schema(spec, "#/$defs/", &mut definitions)).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("Records of {}", topic.name()),
        "oneOf": variants,
        "$defs": definitions,
    })
}

/// The envelope with this message in it. Definitions that the message needs go to `definitions`.
fn envelope_schema(spec: &MessageSpec, references: &str, definitions: &mut Map<String, Value>) -> Value {
    let mut data = spec.data_schema.clone().to_value();
    if let Some(schema) = data.as_object_mut() {
        schema.remove("$schema");
        if let Some(Value::Object(own)) = schema.remove("$defs") {
            for (name, mut definition) in own {
                rewrite(&mut definition, references);
                definitions.insert(name, definition);
            }
        }
    }
    rewrite(&mut data, references);
    json!({
        "title": format!("{} version {}", spec.message_type, spec.version),
        "description": spec.description.trim(),
        "type": "object",
        "properties": {
            "message_id": {"type": "string", "format": "uuid"},
            "type": {"const": spec.message_type},
            "version": {"const": spec.version},
            "order_id": {"type": "string", "format": "uuid"},
            "causation_id": {"type": "string", "format": "uuid"},
            "occurred_at": {"type": "string", "format": "date-time"},
            "data": data,
        },
        "required": ["message_id", "type", "version", "occurred_at", "data"],
    })
}

fn rewrite(value: &mut Value, references: &str) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref") {
                *reference = reference.replace("#/$defs/", references);
            }
            map.values_mut().for_each(|value| rewrite(value, references));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rewrite(value, references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn asyncapi() -> Value {
    let mut definitions = Map::new();
    let mut messages = Map::new();
    let mut channels = Map::new();
    let mut operations = Map::new();
    for topic in Topic::ALL {
        let mut references = Map::new();
        for spec in messages_of(topic) {
            let name = format!("{}.v{}", spec.message_type, spec.version);
            let payload = envelope_schema(&spec, "#/components/schemas/", &mut definitions);
            references.insert(name.clone(), json!({"$ref": format!("#/components/messages/{name}")}));
            messages.insert(
                name.clone(),
                json!({
                    "name": spec.message_type,
                    "title": format!("{} version {}", spec.message_type, spec.version),
                    "summary": spec.description.trim(),
                    "contentType": "application/json",
                    "headers": {"$ref": "#/components/schemas/RecordHeaders"},
                    "payload": payload,
                }),
            );
        }
        channels.insert(
            topic.name().to_owned(),
            json!({
                "address": topic.name(),
                "description": format!(
                    "Key: {}. {}",
                    topic.key(),
                    if topic.is_compacted() { "Compacted." } else { "Kept for ever." }
                ),
                "messages": references,
            }),
        );
        if matches!(topic, Topic::OrderEvents | Topic::StockLevels | Topic::StockEvents | Topic::DeadLetters)
        {
            operations.insert(
                format!("publish-{}", topic.name()),
                json!({"action": "send", "channel": {"$ref": format!("#/channels/{}", topic.name())}}),
            );
        }
    }
    definitions.insert("RecordHeaders".to_owned(), headers());
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Firstcome topics",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every record is a JSON envelope whose `type` and `version` say what `data` is. \
                            Delivery is at least once: ignore what is not newer.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": definitions},
    })
}

fn headers() -> Value {
    json!({
        "type": "object",
        "properties": {
            crate::HEADER_PARKING_KEY: {"type": "string", "description": "What is parked together; without it the record's key."},
            crate::HEADER_CONTROL: {"type": "string", "description": "A control record, for the consumer's runtime."},
            crate::HEADER_TRACEPARENT: {"type": "string", "description": "W3C trace context."},
        },
    })
}
