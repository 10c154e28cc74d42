#![doc = include_str!("../README.md")]

mod context;
mod export;
mod sampler;
mod tracer;

pub use context::{TraceContext, onward};
pub use opentelemetry::KeyValue;
pub use opentelemetry::trace::SpanKind;
pub use sampler::{Sampler, SamplerError};
pub use tracer::{Span, Tracer, TracerError};
