//! Why an input changes nothing, or is refused.

use std::fmt;

/// Why an input changes nothing. Counted by [`IgnoreReason::as_str`], never published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IgnoreReason {
    /// No `PlaceOrder` of this order came before.
    UnknownOrder,
    /// A `PlaceOrder` that breaks the contract (lines, currencies, sum). Nothing can be answered: park it.
    InvalidOrder,
    /// The same `PlaceOrder` again.
    RepeatedOrder,
    /// Another `PlaceOrder` under the same order id: the first one counts.
    OtherFingerprint,
    /// A request whose id was answered before.
    RepeatedRequest,
    /// A customer's request about somebody else's order.
    OtherCustomer,
    /// A reply about a line the order does not have.
    UnknownLine,
    /// A reply to an attempt that a later one has replaced.
    StaleAttempt,
    /// A reply nobody waits for: a repeat, or its step is over.
    NotAwaited,
    /// A timer that is not armed, or armed with another due time.
    StaleTimer,
}

impl IgnoreReason {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::UnknownOrder,
        Self::InvalidOrder,
        Self::RepeatedOrder,
        Self::OtherFingerprint,
        Self::RepeatedRequest,
        Self::OtherCustomer,
        Self::UnknownLine,
        Self::StaleAttempt,
        Self::NotAwaited,
        Self::StaleTimer,
    ];

    /// A stable `snake_case` word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownOrder => "unknown_order",
            Self::InvalidOrder => "invalid_order",
            Self::RepeatedOrder => "repeated_order",
            Self::OtherFingerprint => "other_fingerprint",
            Self::RepeatedRequest => "repeated_request",
            Self::OtherCustomer => "other_customer",
            Self::UnknownLine => "unknown_line",
            Self::StaleAttempt => "stale_attempt",
            Self::NotAwaited => "not_awaited",
            Self::StaleTimer => "stale_timer",
        }
    }
}

impl fmt::Display for IgnoreReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request is refused: the `code` of its answer. Words of the public contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// Pay: it is paid.
    AlreadyPaid,
    /// Pay: a payment is under way.
    PaymentInProgress,
    /// Pay: too late, or the order ended.
    NotPayable,
    /// Cancel, compensate: the parcel is on its way, or further.
    AlreadyShipped,
    /// Cancel, compensate: it is given back already, or the order ended.
    NotCancellable,
    /// Return: not delivered, or on its way back already.
    NotDelivered,
    /// Return: too late.
    ReturnWindowClosed,
    /// Pause: it is paused.
    AlreadyPaused,
    /// Resume: it is not paused.
    NotPaused,
    /// Pause: nothing can happen any more.
    AlreadyFinal,
    /// Retry: that step has no command that failed or waits for its answer.
    NothingToRetry,
    /// Retry: that step's command is withheld and was not sent yet.
    CommandWithheld,
    /// Skip: that step has no failed command.
    NotFailed,
    /// Skip: only a retry ends that step.
    NotSkippable,
    /// Skip: it needs `settled_by`.
    SettlementRequired,
}

impl RefusalCode {
    /// A stable `snake_case` word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyPaid => "already_paid",
            Self::PaymentInProgress => "payment_in_progress",
            Self::NotPayable => "not_payable",
            Self::AlreadyShipped => "already_shipped",
            Self::NotCancellable => "not_cancellable",
            Self::NotDelivered => "not_delivered",
            Self::ReturnWindowClosed => "return_window_closed",
            Self::AlreadyPaused => "already_paused",
            Self::NotPaused => "not_paused",
            Self::AlreadyFinal => "already_final",
            Self::NothingToRetry => "nothing_to_retry",
            Self::CommandWithheld => "command_withheld",
            Self::NotFailed => "not_failed",
            Self::NotSkippable => "not_skippable",
            Self::SettlementRequired => "settlement_required",
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
