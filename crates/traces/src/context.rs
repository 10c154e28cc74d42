//! W3C trace context, version 00.

use std::borrow::Cow;
use std::fmt;

use uuid::Uuid;

/// Bit of the flags: the trace is recorded.
const SAMPLED: u8 = 1;

/// One span's place in its trace, as it is written in `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub(crate) trace_id: u128,
    pub(crate) span_id: u64,
    flags: u8,
}

impl TraceContext {
    /// A new trace with a first span, both at random.
    pub fn root(is_sampled: bool) -> Self {
        Self {
            trace_id: nonzero(Uuid::new_v4().as_u128()),
            span_id: random_span(),
            flags: u8::from(is_sampled),
        }
    }

    /// A valid `traceparent`; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let is_valid = version == "00"
            && parts.next().is_none()
            && is_hex(trace, 32)
            && is_hex(span, 16)
            && is_hex(flags, 2);
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        is_valid.then_some(Self { trace_id, span_id, flags })
    }

    /// Whether spans of this trace are exported.
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same place, sampled or not; nothing else is said about the trace.
    #[must_use]
    pub fn sampled(self, is_sampled: bool) -> Self {
        Self { flags: u8::from(is_sampled), ..self }
    }

    /// The trace's id as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// A span below this one, with an id of its own each time.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: random_span(), ..self }
    }

    /// The span of reading that message as `reader`, with this one as its parent: the same whenever it is read again.
    #[must_use]
    pub fn child_of_message(self, reader: &str, message_id: Uuid) -> Self {
        let name = format!("{reader} {:x}", self.span_id);
        let (_, low) = Uuid::new_v5(&message_id, name.as_bytes()).as_u64_pair();
        Self { span_id: low.max(1), ..self }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// What the outputs of a message carry: the span of reading it, if it is sampled, else what it carried itself. It does not
/// depend on whether this process exports: what a record leads to is the same everywhere.
pub fn onward<'a>(traceparent: Option<&'a str>, reader: &str, message_id: Uuid) -> Option<Cow<'a, str>> {
    let traceparent = traceparent?;
    if traceparent.ends_with("-00") {
        return Some(Cow::Borrowed(traceparent));
    }
    Some(match TraceContext::parse(traceparent).filter(TraceContext::is_sampled) {
        Some(parent) => Cow::Owned(parent.child_of_message(reader, message_id).to_string()),
        None => Cow::Borrowed(traceparent),
    })
}

fn nonzero(id: u128) -> u128 {
    id.max(1)
}

fn random_span() -> u64 {
    let (_, low) = Uuid::new_v4().as_u64_pair();
    low.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_traceparent_is_read_and_written_alike_and_a_bad_one_is_refused() {
        assert_eq!(TraceContext::parse(PARENT).unwrap().to_string(), PARENT);
        for bad in [
            "x",
            "00-0-0-0",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_message_read_again_has_the_same_span_and_another_reader_another() {
        let message = Uuid::from_u128(7);
        let first = onward(Some(PARENT), "stock-worker", message).unwrap();
        assert_eq!(onward(Some(PARENT), "stock-worker", message).unwrap(), first);
        assert!(first.starts_with(&PARENT[..36]) && first.ends_with("-01") && first != PARENT, "{first}");
        assert_ne!(onward(Some(PARENT), "payment-worker", message).unwrap(), first);
        assert_ne!(onward(Some(PARENT), "stock-worker", Uuid::from_u128(8)).unwrap(), first);
    }

    #[test]
    fn what_is_not_sampled_is_passed_on_as_it_came() {
        for traceparent in [&format!("{}00", &PARENT[..53]), "nonsense"] {
            let passed = onward(Some(traceparent), "stock-worker", Uuid::from_u128(7)).unwrap();
            assert!(matches!(passed, Cow::Borrowed(passed) if passed == traceparent));
        }
        assert_eq!(onward(None, "stock-worker", Uuid::from_u128(7)), None);
    }
}
