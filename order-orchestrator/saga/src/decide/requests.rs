//! What customers and operators ask for. Each request is answered once, by its id: done or refused.

use domain_types::RequestId;
use schemas::{
    CancelOrder, CompensateSaga, OrderState, PauseSaga, PayOrder, Reason, RequestKind, ResumeSaga, RetryStep,
    ReturnOrder, SkipStep, StepName, TimerName,
};

use super::draft::{Draft, Request};
use crate::definition::SkipRule;
use crate::event::Event;
use crate::reason::{IgnoreReason, RefusalCode};
use crate::state::{CommandRef, Saga, Timer};

type Outcome = Result<Draft, IgnoreReason>;

fn customers<'a>(
    saga: &Saga,
    id: RequestId,
    customer_id: domain_types::CustomerId,
    kind: RequestKind,
) -> Result<Request<'a>, IgnoreReason> {
    if customer_id != saga.customer_id {
        return Err(IgnoreReason::OtherCustomer);
    }
    fresh(saga, Request { id, kind, operator: None, why: None })
}

fn operators<'a>(
    saga: &Saga,
    id: RequestId,
    kind: RequestKind,
    operator: &'a str,
    why: &'a str,
) -> Result<Request<'a>, IgnoreReason> {
    fresh(saga, Request { id, kind, operator: Some(operator), why: Some(why) })
}

fn fresh<'a>(saga: &Saga, request: Request<'a>) -> Result<Request<'a>, IgnoreReason> {
    if saga.requests.contains(&request.id) { Err(IgnoreReason::RepeatedRequest) } else { Ok(request) }
}

/// Answers, and acts if it is not refused.
fn answered(
    mut draft: Draft,
    request: &Request<'_>,
    allowed: Result<(), RefusalCode>,
    act: impl FnOnce(&mut Draft),
) -> Outcome {
    draft.answer(request, allowed.err());
    if allowed.is_ok() {
        act(&mut draft);
    }
    Ok(draft)
}

pub(super) fn pay(saga: &Saga, input: &PayOrder, draft: impl FnOnce() -> Draft) -> Outcome {
    let request = customers(saga, input.request_id, input.customer_id, RequestKind::Payment)?;
    let draft = draft();
    let allowed = match saga.state {
        OrderState::Reserving | OrderState::AwaitingPayment if saga.payment.is_some() => {
            Err(RefusalCode::PaymentInProgress)
        }
        OrderState::Reserving | OrderState::AwaitingPayment if draft.now > saga.pay_before() => {
            Err(RefusalCode::NotPayable)
        }
        OrderState::Reserving | OrderState::AwaitingPayment => Ok(()),
        OrderState::Charging => Err(RefusalCode::PaymentInProgress),
        OrderState::Paid | OrderState::Shipped | OrderState::Delivered | OrderState::ReturnRequested => {
            Err(RefusalCode::AlreadyPaid)
        }
        OrderState::Accepted
        | OrderState::Compensating
        | OrderState::Cancelled
        | OrderState::Returned
        | OrderState::Rejected
        | OrderState::PaymentFailed
        | OrderState::Expired => Err(RefusalCode::NotPayable),
    };
    answered(draft, &request, allowed, |draft| {
        draft.record(Event::MethodChosen { method: input.method.clone() });
        // While units are still being held, the charge follows the last of them.
        if draft.saga.state == OrderState::AwaitingPayment {
            draft.charge();
        }
    })
}

pub(super) fn cancel(saga: &Saga, input: &CancelOrder, draft: impl FnOnce() -> Draft) -> Outcome {
    let request = customers(saga, input.request_id, input.customer_id, RequestKind::Cancellation)?;
    answered(draft(), &request, cancellable(saga), |draft| draft.compensate(Reason::Cancelled))
}

pub(super) fn compensate(saga: &Saga, input: &CompensateSaga, draft: impl FnOnce() -> Draft) -> Outcome {
    let request = operators(saga, input.request_id, RequestKind::Compensate, &input.operator, &input.reason)?;
    answered(draft(), &request, cancellable(saga), |draft| draft.compensate(Reason::Cancelled))
}

fn cancellable(saga: &Saga) -> Result<(), RefusalCode> {
    match saga.state {
        OrderState::Reserving | OrderState::AwaitingPayment | OrderState::Charging | OrderState::Paid => {
            Ok(())
        }
        OrderState::Shipped | OrderState::Delivered | OrderState::ReturnRequested => {
            Err(RefusalCode::AlreadyShipped)
        }
        OrderState::Accepted
        | OrderState::Compensating
        | OrderState::Cancelled
        | OrderState::Returned
        | OrderState::Rejected
        | OrderState::PaymentFailed
        | OrderState::Expired => Err(RefusalCode::NotCancellable),
    }
}

pub(super) fn give_back(saga: &Saga, input: &ReturnOrder, draft: impl FnOnce() -> Draft) -> Outcome {
    let request = customers(saga, input.request_id, input.customer_id, RequestKind::Return)?;
    let draft = draft();
    let allowed = match saga.state {
        OrderState::Delivered => {
            let open = saga
                .timer
                .is_some_and(|timer| timer.name == TimerName::ReturnWindow && draft.now <= timer.due_at);
            if open { Ok(()) } else { Err(RefusalCode::ReturnWindowClosed) }
        }
        OrderState::Accepted
        | OrderState::Reserving
        | OrderState::AwaitingPayment
        | OrderState::Charging
        | OrderState::Paid
        | OrderState::Shipped
        | OrderState::ReturnRequested
        | OrderState::Compensating
        | OrderState::Cancelled
        | OrderState::Returned
        | OrderState::Rejected
        | OrderState::PaymentFailed
        | OrderState::Expired => Err(RefusalCode::NotDelivered),
    };
    answered(draft, &request, allowed, |draft| {
        let due_at = draft.now.plus(draft.saga.day());
        draft.record(Event::Entered { state: OrderState::ReturnRequested });
        draft.record(Event::TimerArmed(Timer::new(TimerName::Return, due_at)));
    })
}

pub(super) fn pause(saga: &Saga, input: &PauseSaga, draft: impl FnOnce() -> Draft) -> Outcome {
    let request = operators(saga, input.request_id, RequestKind::Pause, &input.operator, &input.reason)?;
    let allowed = if saga.paused {
        Err(RefusalCode::AlreadyPaused)
    } else if saga.is_final() {
        Err(RefusalCode::AlreadyFinal)
    } else {
        Ok(())
    };
    answered(draft(), &request, allowed, |draft| draft.record(Event::Paused))
}

pub(super) fn resume(saga: &Saga, input: &ResumeSaga, draft: impl FnOnce() -> Draft) -> Outcome {
    let request = operators(saga, input.request_id, RequestKind::Resume, &input.operator, &input.reason)?;
    let allowed = if saga.paused { Ok(()) } else { Err(RefusalCode::NotPaused) };
    answered(draft(), &request, allowed, |draft| {
        for command in draft.saga.withheld.clone() {
            draft.publish_command(command);
        }
        draft.record(Event::Resumed);
    })
}

pub(super) fn retry(saga: &Saga, input: &RetryStep, draft: impl FnOnce() -> Draft) -> Outcome {
    let request = operators(saga, input.request_id, RequestKind::Retry, &input.operator, &input.reason)?;
    let command = CommandRef { step: input.step, line: input.line };
    let allowed = if !saga.awaited().contains(&command) {
        Err(RefusalCode::NothingToRetry)
    } else if saga.withholds(input.step, input.line) {
        Err(RefusalCode::CommandWithheld)
    } else {
        Ok(())
    };
    answered(draft(), &request, allowed, |draft| {
        let attempt = match command.line {
            Some(line) => draft.saga.line(line).map(|line| line.attempt),
            None => draft.saga.payment.as_ref().map(|payment| payment.attempt),
        };
        if let Some(attempt) = attempt {
            draft.send(command.step, command.line, attempt.next());
        }
    })
}

pub(super) fn skip(saga: &Saga, input: &SkipStep, draft: impl FnOnce() -> Draft) -> Outcome {
    let request = operators(saga, input.request_id, RequestKind::Skip, &input.operator, &input.reason)?;
    let failed = input.line.is_none()
        && saga
            .payment
            .as_ref()
            .is_some_and(|payment| payment.failed.is_some() && payment.stage.awaits() == Some(input.step));
    let settled_by = input.settled_by.as_deref().filter(|reference| !reference.trim().is_empty());
    let allowed = match saga.definition().step(input.step).skip {
        SkipRule::Never => Err(RefusalCode::NotSkippable),
        SkipRule::SettledByHand if !failed => Err(RefusalCode::NotFailed),
        SkipRule::SettledByHand if settled_by.is_none() => Err(RefusalCode::SettlementRequired),
        SkipRule::SettledByHand => Ok(()),
    };
    answered(draft(), &request, allowed, |draft| {
        let settled_by = settled_by.unwrap_or_default().to_owned();
        draft.record(Event::Settled { step: input.step, settled_by });
        match input.step {
            StepName::Charge => draft.paid(),
            StepName::Close | StepName::Refund => draft.proceed(),
            StepName::Reserve | StepName::Confirm | StepName::Release | StepName::Restock => {}
        }
    })
}
