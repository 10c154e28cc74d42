//! The span of a call to the provider.

use std::time::SystemTime;

use payment_domain::{
    Action, ChargeAnswer, ProviderAnswer, ProviderCall, QueryAnswer, RefundAnswer, VoidAnswer,
};
use traces::{KeyValue, Span, SpanKind, TraceContext, Tracer};

/// A call of a sampled command. What the provider gets names this span; every call has one of its own, also one that a
/// successor makes again.
pub(crate) struct CallSpan<'a> {
    tracer: &'a Tracer,
    parent: TraceContext,
    context: TraceContext,
    call: ProviderCall,
    began: SystemTime,
}

impl<'a> CallSpan<'a> {
    /// `None`: the command is not sampled.
    pub(crate) fn begin(tracer: &'a Tracer, call: &ProviderCall) -> Option<Self> {
        let parent = call.traceparent.as_deref().and_then(TraceContext::parse);
        let parent = parent.filter(TraceContext::is_sampled)?;
        let context = parent.child();
        let call = ProviderCall { traceparent: Some(context.to_string()), ..call.clone() };
        Some(Self { tracer, parent, context, call, began: SystemTime::now() })
    }

    /// The call as it is to be made.
    pub(crate) const fn call(&self) -> &ProviderCall {
        &self.call
    }

    /// The provider has answered, or nobody knows.
    pub(crate) fn end(self, answer: &ProviderAnswer) {
        let name = match &self.call.action {
            Action::Charge { .. } => "provider charge",
            Action::Query => "provider query",
            Action::Void => "provider void",
            Action::Refund { .. } => "provider refund",
        };
        self.tracer.end(Span {
            context: self.context,
            parent: Some(self.parent),
            kind: SpanKind::Client,
            name: name.into(),
            began: self.began,
            failed: is_open(answer),
            attributes: vec![
                KeyValue::new("firstcome.order_id", self.call.order_id.to_string()),
                KeyValue::new("firstcome.provider.outcome", crate::metrics::outcome(answer)),
            ],
        });
    }
}

/// Whether the call has to be followed by another: a refusal is an answer.
const fn is_open(answer: &ProviderAnswer) -> bool {
    matches!(
        answer,
        ProviderAnswer::Charge(ChargeAnswer::Unknown | ChargeAnswer::NotSent)
            | ProviderAnswer::Query(QueryAnswer::Unknown)
            | ProviderAnswer::Void(VoidAnswer::Unknown)
            | ProviderAnswer::Refund(RefundAnswer::Unknown)
    )
}
