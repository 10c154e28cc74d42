//! What a provider's answer leads to.

use domain_types::{MessageId, Timestamp};
use schemas::{DeclineReason, PaymentCommandKind};

use crate::Policy;
use crate::charge::{
    Asked, Charge, ChargeState, ClosingStep, EarlyRefund, PaymentRecord, PendingCall, Stuck,
};
use crate::provider::{CallNumber, ChargeAnswer, ProviderAnswer, QueryAnswer, RefundAnswer, VoidAnswer};
use crate::reply::{Answer, Cause, Decision, Movement, MovementKind, Reply, code};

/// Decides the answer to call `number` of the charge. `now` is when the provider was asked: what it did not know then it may
/// know now, however late its answer is applied.
///
/// A definite answer counts whenever it comes, also that of a call that has been superseded. One that says nothing
/// counts only for the call the state waits for. Nothing is guessed: an unknown outcome is asked for again, with growing
/// pauses, until the policy's limit hands it to an operator.
pub fn answered(
    charge: &Charge,
    number: CallNumber,
    answer: &ProviderAnswer,
    now: Timestamp,
    policy: &Policy,
) -> Decision {
    let news = match answer {
        ProviderAnswer::Charge(answer) => match answer {
            ChargeAnswer::Approved { reference } => News::Approved(reference),
            ChargeAnswer::Declined(reason) => News::Declined(*reason),
            ChargeAnswer::Voided => News::Voided,
            ChargeAnswer::Unknown => News::Nothing(Doubt::Unknown),
            ChargeAnswer::NotSent => News::Nothing(Doubt::NotSent),
        },
        ProviderAnswer::Query(answer) => match answer {
            QueryAnswer::Approved { reference } => News::Approved(reference),
            QueryAnswer::Declined(reason) => News::Declined(*reason),
            QueryAnswer::Voided => News::Voided,
            QueryAnswer::NotFound => News::Nothing(Doubt::NotFound),
            QueryAnswer::Unknown => News::Nothing(Doubt::Unknown),
        },
        ProviderAnswer::Void(answer) => match answer {
            VoidAnswer::Approved { reference } => News::Approved(reference),
            VoidAnswer::Declined(reason) => News::Declined(*reason),
            VoidAnswer::Voided => News::Voided,
            VoidAnswer::NotFound => News::Nothing(Doubt::NotFound),
            VoidAnswer::Unknown => News::Nothing(Doubt::Unknown),
        },
        ProviderAnswer::Refund(answer) => return refund_answered(charge, number, answer, now, policy),
    };
    match news {
        News::Approved(reference) => approved(charge, reference, now),
        News::Declined(reason) => not_taken(charge, &Refusal::Declined(reason)),
        News::Voided => not_taken(charge, &Refusal::Voided),
        News::Nothing(doubt) => still_unknown(charge, number, doubt, now, policy),
    }
}

enum News<'a> {
    Approved(&'a str),
    Declined(DeclineReason),
    Voided,
    Nothing(Doubt),
}

#[derive(Clone, Copy)]
enum Doubt {
    Unknown,
    NotSent,
    NotFound,
}

enum Refusal {
    Declined(DeclineReason),
    Voided,
}

fn reply(asked: &Asked, answer: Answer) -> Reply {
    Reply { cause: asked.cause.clone(), attempt: asked.attempt, answer }
}

/// The money was taken.
fn approved(charge: &Charge, reference: &str, now: Timestamp) -> Decision {
    let answer = Answer::Approved { amount: charge.terms.amount, reference: reference.to_owned() };
    let mut contradiction = false;
    let replies = match &charge.state {
        ChargeState::Requested { charge: asked, .. }
        | ChargeState::Unknown { charge: asked, .. }
        | ChargeState::Failed { stuck: Stuck::Charge | Stuck::Close, asked, .. } => {
            vec![reply(asked, answer)]
        }
        ChargeState::Closing { charge: asked, close, .. } => {
            asked.iter().chain([close]).map(|asked| reply(asked, answer.clone())).collect()
        }
        // Already answered otherwise: the saga must learn of the money all the same.
        ChargeState::Declined { attempt, .. } | ChargeState::Closed { attempt } => {
            contradiction = true;
            let message_id = MessageId(charge.order_id.uuid());
            let cause = Cause { message_id, time: now, traceparent: None };
            vec![Reply { cause, attempt: *attempt, answer }]
        }
        ChargeState::Approved { .. }
        | ChargeState::RefundRequested { .. }
        | ChargeState::Refunded { .. }
        | ChargeState::Failed { stuck: Stuck::Refund { .. }, .. } => return Decision::nothing(),
    };
    let named = reference.to_owned();
    let state = match charge.refund.clone() {
        Some(refund) => {
            let (call, refund) = (charge.call_at_once(now), refund.asked);
            ChargeState::RefundRequested { reference: named, refund, call }
        }
        None => ChargeState::Approved { reference: named },
    };
    Decision {
        record: Some(PaymentRecord::Charge(Charge { refund: None, ..charge.moved(state) })),
        replies,
        movement: Some(movement(charge, MovementKind::Charged, reference)),
        contradiction,
    }
}

/// Nothing was taken and nothing will be.
fn not_taken(charge: &Charge, refusal: &Refusal) -> Decision {
    let answer = match refusal {
        Refusal::Declined(reason) => Answer::Declined(*reason),
        Refusal::Voided => Answer::Closed,
    };
    let (mut replies, newest) = match &charge.state {
        ChargeState::Requested { charge: asked, .. }
        | ChargeState::Unknown { charge: asked, .. }
        | ChargeState::Failed { stuck: Stuck::Charge | Stuck::Close, asked, .. } => {
            (vec![reply(asked, answer)], asked)
        }
        ChargeState::Closing { charge: asked, close, .. } => {
            (asked.iter().chain([close]).map(|asked| reply(asked, answer.clone())).collect(), close)
        }
        // A second one of two calls under way; it was answered then.
        ChargeState::Declined { .. } | ChargeState::Closed { .. } => return Decision::nothing(),
        ChargeState::Approved { .. }
        | ChargeState::RefundRequested { .. }
        | ChargeState::Refunded { .. }
        | ChargeState::Failed { stuck: Stuck::Refund { .. }, .. } => {
            return Decision { contradiction: true, ..Decision::default() };
        }
    };
    let attempt = newest.attempt;
    let state = match refusal {
        Refusal::Declined(reason) => ChargeState::Declined { reason: *reason, attempt },
        Refusal::Voided => ChargeState::Closed { attempt },
    };
    replies.extend(refund_failed(charge, code::NOT_CHARGED));
    let refund = charge.refund.clone().filter(|refund| refund.is_given_up);
    let charge = Charge { refund, ..charge.moved(state) };
    Decision { replies, ..Decision::change(PaymentRecord::Charge(charge)) }
}

/// The answer to a refund that waits for the charge's fate, if there is one.
fn refund_failed(charge: &Charge, code: &str) -> Option<Reply> {
    let failed = Answer::Failed { command: PaymentCommandKind::Refund, code: code.to_owned() };
    let open = charge.refund.as_ref().filter(|refund| !refund.is_given_up);
    open.map(|refund| reply(&refund.asked, failed))
}

/// The call said nothing definite.
fn still_unknown(
    charge: &Charge,
    number: CallNumber,
    doubt: Doubt,
    now: Timestamp,
    policy: &Policy,
) -> Decision {
    let Some(call) = charge.state.pending().filter(|call| call.number == number) else {
        return Decision::nothing();
    };
    let again = charge.call_again(call, now, policy);
    let state = match (&charge.state, again) {
        (ChargeState::Requested { charge: asked, .. }, Some(call)) => match doubt {
            Doubt::Unknown => ChargeState::Unknown { charge: asked.clone(), call },
            Doubt::NotSent | Doubt::NotFound => ChargeState::Requested { charge: asked.clone(), call },
        },
        (ChargeState::Unknown { charge: asked, .. }, Some(call)) => match doubt {
            Doubt::Unknown | Doubt::NotSent => ChargeState::Unknown { charge: asked.clone(), call },
            // Never declined: a request may be under way. The same key again makes one charge of both.
            Doubt::NotFound => ChargeState::Requested { charge: asked.clone(), call },
        },
        (ChargeState::Closing { charge: asked, close, step, call }, _) => {
            // The last charge request may have been sent just before this answer, however old the command is.
            let since = if call.tries == 0 { call.since.max(now) } else { call.since };
            let call = &PendingCall { since, ..*call };
            let again = charge.call_again(call, now, policy);
            return closing(charge, asked.as_ref(), close, *step, call, again, doubt, now, policy);
        }
        (ChargeState::Requested { charge: asked, .. } | ChargeState::Unknown { charge: asked, .. }, None) => {
            return outcome_unknown(charge, Stuck::Charge, &[asked]);
        }
        (
            ChargeState::Approved { .. }
            | ChargeState::Declined { .. }
            | ChargeState::Closed { .. }
            | ChargeState::RefundRequested { .. }
            | ChargeState::Refunded { .. }
            | ChargeState::Failed { .. },
            _,
        ) => return Decision::nothing(),
    };
    Decision::change(PaymentRecord::Charge(charge.moved(state)))
}

#[expect(clippy::too_many_arguments, reason = "the fields of one state and of one answer")]
fn closing(
    charge: &Charge,
    asked: Option<&Asked>,
    close: &Asked,
    step: ClosingStep,
    call: &PendingCall,
    again: Option<PendingCall>,
    doubt: Doubt,
    now: Timestamp,
    policy: &Policy,
) -> Decision {
    let next_step = match (step, doubt) {
        (ClosingStep::Void | ClosingStep::Query, Doubt::Unknown | Doubt::NotSent) => ClosingStep::Void,
        (ClosingStep::Void, Doubt::NotFound) => ClosingStep::Query,
        (ClosingStep::Query, Doubt::NotFound) => {
            if now.since(call.since) >= policy.late_request_limit {
                return not_taken(charge, &Refusal::Voided);
            }
            ClosingStep::Query
        }
    };
    let Some(call) = again else {
        let asked: Vec<&Asked> = asked.into_iter().chain([close]).collect();
        return outcome_unknown(charge, Stuck::Close, &asked);
    };
    let state = ChargeState::Closing { charge: asked.cloned(), close: close.clone(), step: next_step, call };
    Decision::change(PaymentRecord::Charge(charge.moved(state)))
}

/// The limit is reached: `asked` (the stuck command last) are told so.
fn outcome_unknown(charge: &Charge, stuck: Stuck, asked: &[&Asked]) -> Decision {
    let command = match &stuck {
        Stuck::Charge => PaymentCommandKind::Charge,
        Stuck::Close => PaymentCommandKind::Close,
        Stuck::Refund { .. } => PaymentCommandKind::Refund,
    };
    let Some((last, before)) = asked.split_last() else {
        return Decision::nothing();
    };
    let failed = |command| Answer::Failed { command, code: code::OUTCOME_UNKNOWN.to_owned() };
    let mut replies: Vec<Reply> =
        before.iter().map(|asked| reply(asked, failed(PaymentCommandKind::Charge))).collect();
    replies.push(reply(last, failed(command)));
    replies.extend(refund_failed(charge, code::OUTCOME_UNKNOWN));
    let state =
        ChargeState::Failed { stuck, asked: Asked::clone(last), code: code::OUTCOME_UNKNOWN.to_owned() };
    let refund = charge.refund.clone().map(|refund| Box::new(EarlyRefund { is_given_up: true, ..*refund }));
    let charge = Charge { refund, ..charge.moved(state) };
    Decision { replies, ..Decision::change(PaymentRecord::Charge(charge)) }
}

fn refund_answered(
    charge: &Charge,
    number: CallNumber,
    answer: &RefundAnswer,
    now: Timestamp,
    policy: &Policy,
) -> Decision {
    let (reference, asked) = match &charge.state {
        ChargeState::RefundRequested { reference, refund, .. } => (reference, refund),
        ChargeState::Failed { stuck: Stuck::Refund { reference }, asked, .. } => (reference, asked),
        ChargeState::Requested { .. }
        | ChargeState::Unknown { .. }
        | ChargeState::Approved { .. }
        | ChargeState::Declined { .. }
        | ChargeState::Closing { .. }
        | ChargeState::Closed { .. }
        | ChargeState::Refunded { .. }
        | ChargeState::Failed { stuck: Stuck::Charge | Stuck::Close, .. } => return Decision::nothing(),
    };
    let waited_for = charge.state.pending().filter(|call| call.number == number);
    let (state, answer, moved) = match (answer, waited_for) {
        (RefundAnswer::Refunded { reference: refund_reference }, _) => {
            let amount = charge.terms.amount;
            let state = ChargeState::Refunded {
                reference: reference.clone(),
                refund_reference: refund_reference.clone(),
            };
            let moved = movement(charge, MovementKind::Refunded, refund_reference);
            (state, Answer::Refunded { amount, reference: refund_reference.clone() }, Some(moved))
        }
        (RefundAnswer::Refused { .. } | RefundAnswer::Unknown, None) => return Decision::nothing(),
        (RefundAnswer::Refused { code }, Some(_)) => {
            let stuck = Stuck::Refund { reference: reference.clone() };
            let state = ChargeState::Failed { stuck, asked: asked.clone(), code: code.clone() };
            (state, Answer::Failed { command: PaymentCommandKind::Refund, code: code.clone() }, None)
        }
        (RefundAnswer::Unknown, Some(call)) => {
            let Some(call) = charge.call_again(call, now, policy) else {
                return outcome_unknown(charge, Stuck::Refund { reference: reference.clone() }, &[asked]);
            };
            let state =
                ChargeState::RefundRequested { reference: reference.clone(), refund: asked.clone(), call };
            return Decision::change(PaymentRecord::Charge(charge.moved(state)));
        }
    };
    Decision {
        replies: vec![reply(asked, answer)],
        movement: moved,
        ..Decision::change(PaymentRecord::Charge(charge.moved(state)))
    }
}

fn movement(charge: &Charge, kind: MovementKind, reference: &str) -> Movement {
    Movement { order_id: charge.order_id, kind, amount: charge.terms.amount, reference: reference.to_owned() }
}
