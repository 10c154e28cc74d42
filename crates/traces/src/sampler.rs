//! Which requests are traced: decided once, at the root; everything behind it follows the flag.

use crate::TraceContext;

/// Why `OTEL_TRACES_SAMPLER` or its argument can't be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SamplerError {
    /// No sampler of that name.
    #[error(
        "OTEL_TRACES_SAMPLER is {0}: it must be always_on, always_off, traceidratio, or one of these behind parentbased_"
    )]
    Unknown(String),
    /// No ratio.
    #[error("OTEL_TRACES_SAMPLER_ARG is {0}: it must be a ratio from 0 to 1")]
    Ratio(String),
}

/// `OTEL_TRACES_SAMPLER` with its argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Whether a caller's flag is followed.
    follows_caller: bool,
    /// The part of all other requests that is sampled.
    ratio: f64,
}

impl Sampler {
    /// By their names in the OpenTelemetry specification; `parentbased_always_on` if there is none.
    ///
    /// # Errors
    /// Which of the two can't be used.
    pub fn new(name: Option<&str>, argument: Option<&str>) -> Result<Self, SamplerError> {
        let name = name.unwrap_or("parentbased_always_on");
        let (follows_caller, base) = match name.strip_prefix("parentbased_") {
            Some(base) => (true, base),
            None => (false, name),
        };
        let ratio = match (base, argument) {
            ("always_on", _) | ("traceidratio", None) => 1.0,
            ("always_off", _) => 0.0,
            ("traceidratio", Some(text)) => text
                .parse()
                .ok()
                .filter(|ratio| (0.0..=1.0).contains(ratio))
                .ok_or_else(|| SamplerError::Ratio(text.to_owned()))?,
            _ => return Err(SamplerError::Unknown(name.to_owned())),
        };
        Ok(Self { follows_caller, ratio })
    }

    /// Whether a request is traced. The draw is our own span's random id, not the trace's: that one may be chosen by a
    /// caller, who could so have every request sampled.
    #[expect(clippy::cast_precision_loss, reason = "a draw: the last bits do not matter")]
    pub(crate) fn samples(&self, caller: Option<&TraceContext>, own: &TraceContext) -> bool {
        match caller {
            Some(caller) if self.follows_caller => caller.is_sampled(),
            _ => self.ratio > 0.0 && own.span_id.reverse_bits() as f64 <= self.ratio * u64::MAX as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn sampled_of_10_000(name: &str, argument: &str, caller: Option<&TraceContext>) -> usize {
        let sampler = Sampler::new(Some(name), Some(argument)).unwrap();
        (0..10_000).filter(|_| sampler.samples(caller, &TraceContext::root(false))).count()
    }

    #[test]
    fn the_ratio_holds_and_a_callers_flag_counts_only_where_that_is_said() {
        let caller = TraceContext::parse(CALLER).unwrap();
        let silent = caller.sampled(false);
        for caller in [None, Some(&caller), Some(&silent)] {
            assert!((700..1_300).contains(&sampled_of_10_000("traceidratio", "0.1", caller)));
            assert_eq!(sampled_of_10_000("always_off", "", caller), 0);
            assert_eq!(sampled_of_10_000("always_on", "", caller), 10_000);
        }
        assert!((700..1_300).contains(&sampled_of_10_000("parentbased_traceidratio", "0.1", None)));
        assert_eq!(sampled_of_10_000("parentbased_traceidratio", "0", Some(&caller)), 10_000);
        assert_eq!(sampled_of_10_000("parentbased_always_on", "", Some(&silent)), 0);
    }

    #[test]
    fn a_sampler_that_is_none_is_refused_by_name() {
        assert_eq!(
            Sampler::new(Some("jaeger_remote"), None),
            Err(SamplerError::Unknown("jaeger_remote".into()))
        );
        for bad in ["1.5", "-1", "many", "NaN"] {
            assert_eq!(Sampler::new(Some("traceidratio"), Some(bad)), Err(SamplerError::Ratio(bad.into())));
        }
        assert_eq!(Sampler::new(None, None), Sampler::new(Some("parentbased_always_on"), None));
    }
}
