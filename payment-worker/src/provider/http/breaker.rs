//! A circuit breaker as a pure state machine: the time comes in.

use std::time::Duration;

/// When it opens, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Failures in a row.
    pub(super) failures: u32,
    /// How long no call is let through.
    pub(super) open_for: Duration,
}

/// Times are since a fixed start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Duration,
    },
    /// One call tries; should it never end, another one may after `until`.
    HalfOpen {
        until: Duration,
    },
}

/// Keeps calls away from a provider that does not answer.
#[derive(Debug)]
pub(super) struct Breaker {
    limits: Limits,
    state: State,
}

impl Breaker {
    pub(super) const fn new(limits: Limits) -> Self {
        Self { limits, state: State::Closed { failures: 0 } }
    }

    /// Whether a call may be made now. `true` must be followed by [`Breaker::ended`], unless the call is dropped.
    pub(super) fn lets_through(&mut self, now: Duration) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } | State::HalfOpen { until } => {
                let tries = now >= until;
                if tries {
                    self.state = State::HalfOpen { until: now.saturating_add(self.limits.open_for) };
                }
                tries
            }
        }
    }

    /// A call ended.
    pub(super) fn ended(&mut self, answered: bool, now: Duration) {
        let open = State::Open { until: now.saturating_add(self.limits.open_for) };
        self.state = match (self.state, answered) {
            (State::Closed { .. } | State::HalfOpen { .. }, true) => State::Closed { failures: 0 },
            (State::Closed { failures }, false) => {
                let failures = failures.saturating_add(1);
                if failures >= self.limits.failures { open } else { State::Closed { failures } }
            }
            (State::HalfOpen { .. }, false) => open,
            // A call from before it opened.
            (State::Open { until }, true | false) => State::Open { until },
        };
    }

    /// 0 closed, 1 half-open, 2 open.
    pub(super) const fn level(&self) -> i64 {
        match self.state {
            State::Closed { .. } => 0,
            State::HalfOpen { .. } => 1,
            State::Open { .. } => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(5);

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(Limits { failures: 3, open_for: OPEN_FOR });
        for _ in 0..3 {
            assert!(breaker.lets_through(Duration::ZERO));
            breaker.ended(false, Duration::ZERO);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let mut breaker = Breaker::new(Limits { failures: 3, open_for: OPEN_FOR });
        for answered in [false, false, true, false, false] {
            breaker.ended(answered, Duration::ZERO);
        }
        assert_eq!(breaker.level(), 0);
        assert_eq!(opened().level(), 2);
    }

    #[test]
    fn open_it_lets_nothing_through_and_then_one_call_which_closes_or_reopens_it() {
        let mut breaker = opened();
        assert!(!breaker.lets_through(OPEN_FOR - Duration::from_millis(1)));
        assert!(breaker.lets_through(OPEN_FOR));
        assert!(!breaker.lets_through(OPEN_FOR), "one at a time");
        breaker.ended(false, OPEN_FOR);
        assert!(!breaker.lets_through(OPEN_FOR + Duration::from_secs(4)));
        assert!(breaker.lets_through(OPEN_FOR * 2));
        breaker.ended(true, OPEN_FOR * 2);
        assert_eq!(breaker.level(), 0);
        assert!(breaker.lets_through(OPEN_FOR * 2) && breaker.lets_through(OPEN_FOR * 2));
    }

    #[test]
    fn a_trial_that_never_ends_is_followed_by_another() {
        let mut breaker = opened();
        assert!(breaker.lets_through(OPEN_FOR));
        assert!(breaker.lets_through(OPEN_FOR * 2));
    }

    #[test]
    fn an_answer_to_a_call_from_before_it_opened_does_not_close_it() {
        let mut breaker = opened();
        breaker.ended(true, Duration::ZERO);
        assert_eq!(breaker.level(), 2);
    }
}
