//! Where spans go once they have ended.

use std::borrow::Cow;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use prometheus::{IntCounter, Registry, register_int_counter_with_registry};
use tokio::sync::oneshot;

use crate::export::{self, Told};
use crate::{Sampler, SamplerError, TraceContext};

/// Spans that may wait for the collector, about 2 MiB. More are dropped and counted.
const QUEUE_SPANS: usize = 4_096;
/// How long an ending process waits for its last spans to be taken.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Why there is no tracer although one was asked for.
#[derive(Debug, thiserror::Error)]
pub enum TracerError {
    /// The sampler's variables.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The metrics' names are taken.
    #[error("the metrics of traces can't be registered")]
    Metrics(#[from] prometheus::Error),
    /// No thread.
    #[error("the thread that exports spans can't be started")]
    Thread(#[source] std::io::Error),
}

/// A span that has ended now.
#[derive(Debug)]
pub struct Span {
    /// Its place.
    pub context: TraceContext,
    /// The span that caused it.
    pub parent: Option<TraceContext>,
    /// Which side of what it is.
    pub kind: SpanKind,
    /// One of few: no ids.
    pub name: Cow<'static, str>,
    /// When it began.
    pub began: SystemTime,
    /// Whether it did not do what it was for.
    pub failed: bool,
    /// What else there is to say.
    pub attributes: Vec<KeyValue>,
}

/// How many spans went where.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    pub(crate) exported: IntCounter,
    pub(crate) dropped: IntCounter,
}

impl Counted {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            exported: register_int_counter_with_registry!(
                "traces_spans_exported_total",
                "spans that the collector took",
                registry
            )?,
            dropped: register_int_counter_with_registry!(
                "traces_spans_dropped_total",
                "spans dropped: the queue was full, or the collector did not take them",
                registry
            )?,
        })
    }
}

/// Exports the spans of one service. Clones are the same tracer.
#[derive(Debug, Clone)]
pub struct Tracer {
    queue: SyncSender<Told>,
    sampler: Sampler,
    counted: Counted,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.trim().is_empty())
}

impl Tracer {
    /// A tracer, if the environment names a collector (`OTEL_EXPORTER_OTLP_ENDPOINT` or
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`; empty is not set). `service` is its name unless `OTEL_SERVICE_NAME` says otherwise.
    ///
    /// # Errors
    /// The environment asks for something that there is not.
    pub fn from_env(service: &'static str, registry: &Registry) -> Result<Option<Self>, TracerError> {
        let asked =
            variable("OTEL_EXPORTER_OTLP_ENDPOINT").or(variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"));
        if asked.is_none() || variable("OTEL_SDK_DISABLED").is_some_and(|text| text == "true") {
            return Ok(None);
        }
        let (name, argument) = (variable("OTEL_TRACES_SAMPLER"), variable("OTEL_TRACES_SAMPLER_ARG"));
        let sampler = Sampler::new(name.as_deref(), argument.as_deref())?;
        let counted = Counted::register(registry)?;
        let (queue, told) = sync_channel(QUEUE_SPANS);
        let counting = counted.clone();
        std::thread::Builder::new()
            .name(format!("traces-{service}"))
            .spawn(move || export::run(service, &told, &counting))
            .map_err(TracerError::Thread)?;
        Ok(Some(Self { queue, sampler, counted }))
    }

    /// Whether a request is traced, whose own span is `own`.
    pub fn samples(&self, caller: Option<&TraceContext>, own: &TraceContext) -> bool {
        self.sampler.samples(caller, own)
    }

    /// Exports a span later. Never waits: without room it is dropped and counted.
    pub fn end(&self, span: Span) {
        let span = Told::Ended(Box::new(export::data(span, SystemTime::now())));
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(span) {
            self.counted.dropped.inc();
        }
    }

    /// Waits until what has ended is exported, at most two seconds.
    pub async fn close(&self) {
        let (done, is_done) = oneshot::channel();
        if self.queue.try_send(Told::Flush(done)).is_ok() {
            let _in_time_or_not = tokio::time::timeout(CLOSE_WITHIN, is_done).await;
        }
    }
}
