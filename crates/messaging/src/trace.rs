//! A span for each sampled record, made once its batch is committed: what was rolled back has left no trace.

use std::time::SystemTime;

use traces::{KeyValue, Span, SpanKind, TraceContext, Tracer};

use crate::{Handler, Received, Record, Traced};

/// Ends the spans of the sampled records of a batch whose transaction began at `began` and is committed now.
pub(crate) fn end_spans<Tx, H: Handler<Tx>>(
    tracer: &Tracer,
    group: &str,
    handler: &H,
    batch: &[Received<H::Input>],
    began: SystemTime,
) {
    for Received { record, input } in batch {
        let sampled = record.traceparent().filter(|traceparent| !traceparent.ends_with("-00"));
        let parent = sampled.and_then(TraceContext::parse).filter(TraceContext::is_sampled);
        if let Some(parent) = parent
            && let Some(traced) = handler.traced(input)
        {
            tracer.end(span(group, record, parent, &traced, began, batch.len()));
        }
    }
}

fn span(
    group: &str,
    record: &Record,
    parent: TraceContext,
    traced: &Traced,
    began: SystemTime,
    batch: usize,
) -> Span {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let mut attributes = vec![
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.destination.name", record.topic.to_string()),
        KeyValue::new("messaging.destination.partition.id", record.partition.to_string()),
        KeyValue::new("messaging.kafka.offset", record.offset.0),
        KeyValue::new("messaging.consumer.group.name", group.to_owned()),
        KeyValue::new("messaging.message.id", traced.message_id.to_string()),
        KeyValue::new("messaging.batch.message_count", number(batch)),
        KeyValue::new("firstcome.log_time_ms", record.time.as_millis()),
    ];
    attributes.extend(traced.order_id.map(|id| KeyValue::new("firstcome.order_id", id.to_string())));
    Span {
        context: parent.child_of_message(group, traced.message_id.0),
        parent: Some(parent),
        kind: SpanKind::Consumer,
        name: traced.message_type.into(),
        began,
        failed: false,
        attributes,
    }
}
