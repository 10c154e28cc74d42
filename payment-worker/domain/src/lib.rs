#![doc = include_str!("../README.md")]
#![warn(clippy::wildcard_enum_match_arm, reason = "a new variant is decided on, not swallowed")]

mod answers;
mod charge;
mod commands;
mod provider;
mod reply;

pub use answers::answered;
pub use charge::{
    Asked, Charge, ChargeState, ClosingStep, EarlyRefund, PaymentRecord, PendingCall, Stuck, Terms,
};
pub use commands::decide;
pub use provider::{
    Action, CallNumber, ChargeAnswer, IdempotencyKey, ProviderAnswer, ProviderCall, QueryAnswer,
    RefundAnswer, VoidAnswer,
};
pub use reply::{Answer, Cause, Decision, Movement, MovementKind, Reply, code};

use std::time::Duration;

/// How long and how often an unknown outcome is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Pause before the first repeat of a call; it doubles with each further one.
    pub first_retry: Duration,
    /// The longest pause between two repeats.
    pub longest_retry: Duration,
    /// An outcome that stays unknown for so long is an operator's business.
    pub unknown_limit: Duration,
    /// For providers that can't void a key they have never seen: a charge request can't arrive later than this after
    /// it was sent.
    pub late_request_limit: Duration,
}

impl Default for Policy {
    /// 250 ms, doubling up to a minute; 24 hours; 1 hour.
    fn default() -> Self {
        Self {
            first_retry: Duration::from_millis(250),
            longest_retry: Duration::from_secs(60),
            unknown_limit: Duration::from_secs(24 * 3600),
            late_request_limit: Duration::from_secs(3600),
        }
    }
}

impl Policy {
    /// The pause before the repeat after `tries` repeats.
    pub fn pause(&self, tries: u32) -> Duration {
        let factor = 1_u32.checked_shl(tries.min(31)).unwrap_or(u32::MAX);
        self.first_retry.saturating_mul(factor).min(self.longest_retry)
    }
}
