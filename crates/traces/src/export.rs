//! The thread that hands spans to the collector.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use futures::executor::block_on;
use opentelemetry::trace::{SpanContext, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId, TraceId};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::oneshot;

use crate::Span;
use crate::tracer::Counted;

/// Spans of one request to the collector.
const BATCH_SPANS: usize = 512;
/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// A span has ended.
    Ended(Box<SpanData>),
    /// Say so once everything before this is exported.
    Flush(oneshot::Sender<()>),
}

/// A span as the SDK has it.
pub(crate) fn data(span: Span, ended: SystemTime) -> SpanData {
    let Span { context, parent, kind, name, began, failed, attributes } = span;
    let flags = TraceFlags::default().with_sampled(context.is_sampled());
    SpanData {
        span_context: SpanContext::new(
            TraceId::from(context.trace_id),
            SpanId::from(context.span_id),
            flags,
            false,
            TraceState::default(),
        ),
        parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.span_id)),
        parent_span_is_remote: parent.is_some(),
        span_kind: kind,
        name,
        start_time: began,
        end_time: ended.max(began),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if failed { Status::error("") } else { Status::Unset },
        instrumentation_scope: InstrumentationScope::builder("firstcome")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

/// The standard variables win over what is said here.
fn resource(service: &'static str) -> Resource {
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty());
    let ours = Resource::builder_empty()
        .with_attributes([KeyValue::new("service.namespace", "firstcome")])
        .with_service_name(service)
        .build();
    let said = Resource::builder().build();
    // The SDK has a name for those who gave none.
    let from_environment = said.iter().filter(|(key, value)| {
        key.as_str() != "service.name" || named || !value.as_str().starts_with("unknown_service")
    });
    let all: Vec<KeyValue> = ours
        .iter()
        .chain(from_environment)
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()))
        .collect();
    Resource::builder_empty().with_attributes(all).build()
}

/// Exports until every [`crate::Tracer`] is gone.
pub(crate) fn run(service: &'static str, told: &Receiver<Told>, counted: &Counted) {
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build();
    let mut exporter = match exporter {
        Ok(mut exporter) => {
            exporter.set_resource(&resource(service));
            Some(exporter)
        }
        Err(error) => {
            tracing::error!(%error, "spans can't be exported; every one is dropped");
            None
        }
    };
    let mut is_away = false;
    loop {
        let (batch, flushed, ended) = gather(told);
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        if count > 0 {
            let taken = match exporter.as_mut() {
                Some(exporter) => block_on(exporter.export(batch)).map_err(|error| error.to_string()),
                None => Err(String::new()),
            };
            match taken {
                Ok(()) => {
                    counted.exported.inc_by(count);
                    if is_away {
                        tracing::info!("the collector takes spans again");
                    }
                    is_away = false;
                }
                Err(error) => {
                    counted.dropped.inc_by(count);
                    if !is_away && exporter.is_some() {
                        tracing::warn!(
                            error,
                            "the collector does not take spans; they are dropped until it does"
                        );
                    }
                    is_away = true;
                }
            }
        }
        if let Some(flushed) = flushed {
            let _nobody_waits = flushed.send(());
        }
        if ended {
            return;
        }
    }
}

/// What there is within [`GATHER`] of the first; who waits for it; whether nothing comes any more.
fn gather(told: &Receiver<Told>) -> (Vec<SpanData>, Option<oneshot::Sender<()>>, bool) {
    let mut batch = Vec::new();
    match told.recv() {
        Ok(Told::Ended(span)) => batch.push(*span),
        Ok(Told::Flush(flushed)) => return (batch, Some(flushed), false),
        Err(_every_tracer_is_gone) => return (batch, None, true),
    }
    let deadline = Instant::now() + GATHER;
    while batch.len() < BATCH_SPANS {
        match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Told::Ended(span)) => batch.push(*span),
            Ok(Told::Flush(flushed)) => return (batch, Some(flushed), false),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return (batch, None, true),
        }
    }
    (batch, None, false)
}
