//! Answers of the stock worker and the payment worker. An answer nobody waits for, or to an attempt that was replaced, is ignored.

use domain_types::{Attempt, LineNumber};
use schemas::{
    DeclineReason, PaymentApproved, PaymentClosed, PaymentCommandFailed, PaymentCommandKind, PaymentDeclined,
    PaymentRefunded, Reason, ReserveRefusal, StepName, StockCommandFailed, StockCommandKind, StockConfirmed,
    StockRefused, StockReleased, StockReserved, StockRestocked,
};

use super::draft::Draft;
use crate::event::Event;
use crate::reason::IgnoreReason;
use crate::state::{LineStage, Payment, PaymentStage, Saga};

type Outcome = Result<Draft, IgnoreReason>;

pub(super) fn reserved(saga: &Saga, reply: &StockReserved, draft: impl FnOnce() -> Draft) -> Outcome {
    let line = saga.line(reply.line).ok_or(IgnoreReason::UnknownLine)?;
    // While the units are being released it is still worth knowing that they were held: admission counts them.
    let held_meanwhile = line.stage == LineStage::Releasing && line.held_version.is_none();
    if !held_meanwhile {
        awaits(saga, reply.line, LineStage::Reserving, reply.attempt)?;
    }
    let mut draft = draft();
    draft.record(Event::Reserved { line: reply.line, stock_version: reply.stock_version });
    draft.stock_changed(reply.line, true, reply.stock_version);
    draft.proceed();
    Ok(draft)
}

pub(super) fn refused(saga: &Saga, reply: &StockRefused, draft: impl FnOnce() -> Draft) -> Outcome {
    awaits(saga, reply.line, LineStage::Reserving, reply.attempt)?;
    let outcome = match reply.reason {
        ReserveRefusal::SoldOut => Reason::SoldOut,
        ReserveRefusal::SaleClosed => Reason::SaleClosed,
        ReserveRefusal::LimitExceeded => Reason::LimitExceeded,
        ReserveRefusal::UnknownSku => Reason::UnknownSku,
        // We did not release it: somebody has to look.
        ReserveRefusal::Released => {
            return fail_line(saga, reply.line, LineStage::Reserving, reply.attempt, "released", draft);
        }
    };
    let mut draft = draft();
    draft.record(Event::Refused { line: reply.line, reason: reply.reason });
    draft.compensate(outcome);
    Ok(draft)
}

pub(super) fn confirmed(saga: &Saga, reply: &StockConfirmed, draft: impl FnOnce() -> Draft) -> Outcome {
    awaits(saga, reply.line, LineStage::Confirming, reply.attempt)?;
    let mut draft = draft();
    draft.record(Event::Confirmed { line: reply.line });
    draft.proceed();
    Ok(draft)
}

pub(super) fn released(saga: &Saga, reply: &StockReleased, draft: impl FnOnce() -> Draft) -> Outcome {
    awaits(saga, reply.line, LineStage::Releasing, reply.attempt)?;
    let was_held = saga.line(reply.line).is_some_and(|line| line.held_version.is_some());
    let StockReleased { line, units, stock_version, .. } = *reply;
    let mut draft = draft();
    draft.record(Event::Released { line, units, stock_version });
    if units > 0 && !was_held {
        // Held and released in between: both are published, so that nobody takes it for a line that never held.
        draft.stock_changed(line, true, stock_version);
    }
    if units > 0 || was_held {
        draft.stock_changed(line, false, stock_version);
    }
    draft.proceed();
    Ok(draft)
}

pub(super) fn restocked(saga: &Saga, reply: &StockRestocked, draft: impl FnOnce() -> Draft) -> Outcome {
    awaits(saga, reply.line, LineStage::Restocking, reply.attempt)?;
    let StockRestocked { line, units, stock_version, .. } = *reply;
    let mut draft = draft();
    draft.record(Event::Restocked { line, units, stock_version });
    draft.stock_changed(line, false, stock_version);
    draft.proceed();
    Ok(draft)
}

pub(super) fn stock_failed(
    saga: &Saga,
    reply: &StockCommandFailed,
    draft: impl FnOnce() -> Draft,
) -> Outcome {
    let stage = match reply.command {
        StockCommandKind::Reserve => LineStage::Reserving,
        StockCommandKind::Confirm => LineStage::Confirming,
        StockCommandKind::Release => LineStage::Releasing,
        StockCommandKind::Restock => LineStage::Restocking,
    };
    fail_line(saga, reply.line, stage, reply.attempt, &reply.code, draft)
}

fn fail_line(
    saga: &Saga,
    number: LineNumber,
    stage: LineStage,
    attempt: Attempt,
    code: &str,
    draft: impl FnOnce() -> Draft,
) -> Outcome {
    awaits(saga, number, stage, attempt)?;
    let fresh = saga.line(number).is_some_and(|line| line.failed.is_none());
    let step = stage.awaits().filter(|_| fresh).ok_or(IgnoreReason::NotAwaited)?;
    let mut draft = draft();
    draft.record(Event::Failed { step, line: Some(number), code: code.to_owned() });
    Ok(draft)
}

/// Whether the line waits for the answer to this attempt in this stage.
fn awaits(saga: &Saga, line: LineNumber, stage: LineStage, attempt: Attempt) -> Result<(), IgnoreReason> {
    let line = saga.line(line).ok_or(IgnoreReason::UnknownLine)?;
    if line.stage != stage {
        Err(IgnoreReason::NotAwaited)
    } else if line.attempt != attempt {
        Err(IgnoreReason::StaleAttempt)
    } else {
        Ok(())
    }
}

pub(super) fn approved(saga: &Saga, reply: &PaymentApproved, draft: impl FnOnce() -> Draft) -> Outcome {
    let charging =
        !was_said_not_to_be_taken(saga) && awaits_fate(saga, reply.attempt)?.stage == PaymentStage::Charging;
    let mut draft = draft();
    draft.record(Event::Approved { amount: reply.amount, reference: reply.reference.clone() });
    if charging {
        draft.paid();
    } else {
        draft.send(StepName::Refund, None, Attempt::FIRST);
    }
    Ok(draft)
}

pub(super) fn declined(saga: &Saga, reply: &PaymentDeclined, draft: impl FnOnce() -> Draft) -> Outcome {
    let payment = awaits_fate(saga, reply.attempt)?;
    let charging = payment.stage == PaymentStage::Charging;
    let mut draft = draft();
    draft.record(Event::Declined { reason: reply.reason });
    if charging {
        draft.compensate(match reply.reason {
            DeclineReason::Declined => Reason::Declined,
            DeclineReason::OverLimit => Reason::OverLimit,
            DeclineReason::Abandoned => Reason::Abandoned,
        });
    } else {
        draft.proceed();
    }
    Ok(draft)
}

pub(super) fn closed(saga: &Saga, reply: &PaymentClosed, draft: impl FnOnce() -> Draft) -> Outcome {
    let payment = awaits_fate(saga, reply.attempt)?;
    if payment.stage != PaymentStage::Closing {
        return Err(IgnoreReason::NotAwaited);
    }
    let mut draft = draft();
    draft.record(Event::Closed);
    draft.proceed();
    Ok(draft)
}

pub(super) fn refunded(saga: &Saga, reply: &PaymentRefunded, draft: impl FnOnce() -> Draft) -> Outcome {
    let payment = saga.payment.as_ref().ok_or(IgnoreReason::NotAwaited)?;
    if payment.stage != PaymentStage::Refunding {
        return Err(IgnoreReason::NotAwaited);
    }
    if payment.attempt != reply.attempt {
        return Err(IgnoreReason::StaleAttempt);
    }
    let mut draft = draft();
    draft.record(Event::Refunded { amount: reply.amount, reference: reply.reference.clone() });
    draft.proceed();
    Ok(draft)
}

pub(super) fn payment_failed(
    saga: &Saga,
    reply: &PaymentCommandFailed,
    draft: impl FnOnce() -> Draft,
) -> Outcome {
    let payment = saga.payment.as_ref().ok_or(IgnoreReason::NotAwaited)?;
    let answered = match (reply.command, payment.stage) {
        (PaymentCommandKind::Charge, PaymentStage::Charging) => payment.attempt,
        // The charge that is being closed has no known fate: closing waits for an operator too.
        (PaymentCommandKind::Charge, PaymentStage::Closing) => payment.charge_attempt,
        (PaymentCommandKind::Close, PaymentStage::Closing) => payment.attempt,
        (PaymentCommandKind::Refund, PaymentStage::Refunding) => payment.attempt,
        (PaymentCommandKind::Charge | PaymentCommandKind::Close | PaymentCommandKind::Refund, _) => {
            return Err(IgnoreReason::NotAwaited);
        }
    };
    if answered != reply.attempt {
        return Err(IgnoreReason::StaleAttempt);
    }
    let fresh = payment.failed.is_none();
    let step = payment.stage.awaits().filter(|_| fresh).ok_or(IgnoreReason::NotAwaited)?;
    let mut draft = draft();
    draft.record(Event::Failed { step, line: None, code: reply.code.clone() });
    Ok(draft)
}

/// Whether the payment worker has said that nothing was taken and nothing will be. An approval behind that (its database
/// was restored from a backup, or the provider contradicts itself) is money to be given back, whatever its attempt; what an
/// operator has settled by hand is the operator's.
fn was_said_not_to_be_taken(saga: &Saga) -> bool {
    saga.payment.as_ref().is_some_and(|payment| {
        payment.settled_by.is_none()
            && match payment.stage {
                PaymentStage::Declined(_) | PaymentStage::Closed => true,
                PaymentStage::Chosen
                | PaymentStage::Charging
                | PaymentStage::Approved
                | PaymentStage::Closing
                | PaymentStage::Refunding
                | PaymentStage::Refunded => false,
            }
    })
}

/// The payment, if its fate is not known and this is the answer to its charge or to the closing of it.
fn awaits_fate(saga: &Saga, attempt: Attempt) -> Result<&Payment, IgnoreReason> {
    let payment = saga.payment.as_ref().ok_or(IgnoreReason::NotAwaited)?;
    let current = match payment.stage {
        PaymentStage::Charging => attempt == payment.attempt,
        PaymentStage::Closing => attempt == payment.attempt || attempt == payment.charge_attempt,
        PaymentStage::Chosen
        | PaymentStage::Approved
        | PaymentStage::Declined(_)
        | PaymentStage::Closed
        | PaymentStage::Refunding
        | PaymentStage::Refunded => return Err(IgnoreReason::NotAwaited),
    };
    if current { Ok(payment) } else { Err(IgnoreReason::StaleAttempt) }
}
