//! What an input means for an order: the facts that follow from it and the messages they lead to.

mod draft;
mod place;
mod progress;
mod replies;
mod requests;
mod timers;

use domain_types::Timestamp;
use schemas::OrderSagaMessage;

use crate::effect::Effect;
use crate::event::Event;
use crate::evolve::evolve;
use crate::reason::{IgnoreReason, RefusalCode};
use crate::state::Saga;
use draft::Draft;

/// What follows from an input.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The saga goes on.
    Advance(Advance),
    /// A request is refused. That is an answer: recorded and published like any other.
    Refuse(RefusalCode, Advance),
    /// Nothing changes and nothing is published.
    Ignore(IgnoreReason),
}

impl Decision {
    /// What is to be recorded and published, if anything.
    pub fn advance(&self) -> Option<&Advance> {
        match self {
            Self::Advance(advance) | Self::Refuse(_, advance) => Some(advance),
            Self::Ignore(_) => None,
        }
    }

    /// The same, handed out.
    pub fn into_advance(self) -> Option<Advance> {
        match self {
            Self::Advance(advance) | Self::Refuse(_, advance) => Some(advance),
            Self::Ignore(_) => None,
        }
    }
}

/// What is to be recorded and published, together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Advance {
    /// The saga's time, to fold the events with: never before the latest instant it has seen.
    pub now: Timestamp,
    /// The facts, in order.
    pub events: Vec<Event>,
    /// The messages, in order; the index of each is part of its message id.
    pub effects: Vec<Effect>,
}

/// Decides on one input of an order's saga. `time` is the log time of its record; the saga's `now` is the later of it and the
/// latest instant the saga has seen. Depends on nothing else: the same log gives the same decisions on any machine.
pub fn decide(saga: Option<&Saga>, input: &OrderSagaMessage, time: Timestamp) -> Decision {
    let Some(saga) = saga else {
        return match input {
            OrderSagaMessage::PlaceOrder(order) => place::place(order, time),
            OrderSagaMessage::PayOrder(_)
            | OrderSagaMessage::CancelOrder(_)
            | OrderSagaMessage::ReturnOrder(_)
            | OrderSagaMessage::StockReserved(_)
            | OrderSagaMessage::StockRefused(_)
            | OrderSagaMessage::StockConfirmed(_)
            | OrderSagaMessage::StockReleased(_)
            | OrderSagaMessage::StockRestocked(_)
            | OrderSagaMessage::StockCommandFailed(_)
            | OrderSagaMessage::PaymentApproved(_)
            | OrderSagaMessage::PaymentDeclined(_)
            | OrderSagaMessage::PaymentClosed(_)
            | OrderSagaMessage::PaymentRefunded(_)
            | OrderSagaMessage::PaymentCommandFailed(_)
            | OrderSagaMessage::TimerFired(_)
            | OrderSagaMessage::PauseSaga(_)
            | OrderSagaMessage::ResumeSaga(_)
            | OrderSagaMessage::RetryStep(_)
            | OrderSagaMessage::SkipStep(_)
            | OrderSagaMessage::CompensateSaga(_) => Decision::Ignore(IgnoreReason::UnknownOrder),
        };
    };
    let draft = || Draft::new(saga.clone(), time);
    let outcome = match input {
        OrderSagaMessage::PlaceOrder(order) => Err(place::repeated(saga, order)),
        OrderSagaMessage::PayOrder(request) => requests::pay(saga, request, draft),
        OrderSagaMessage::CancelOrder(request) => requests::cancel(saga, request, draft),
        OrderSagaMessage::ReturnOrder(request) => requests::give_back(saga, request, draft),
        OrderSagaMessage::StockReserved(reply) => replies::reserved(saga, reply, draft),
        OrderSagaMessage::StockRefused(reply) => replies::refused(saga, reply, draft),
        OrderSagaMessage::StockConfirmed(reply) => replies::confirmed(saga, reply, draft),
        OrderSagaMessage::StockReleased(reply) => replies::released(saga, reply, draft),
        OrderSagaMessage::StockRestocked(reply) => replies::restocked(saga, reply, draft),
        OrderSagaMessage::StockCommandFailed(reply) => replies::stock_failed(saga, reply, draft),
        OrderSagaMessage::PaymentApproved(reply) => replies::approved(saga, reply, draft),
        OrderSagaMessage::PaymentDeclined(reply) => replies::declined(saga, reply, draft),
        OrderSagaMessage::PaymentClosed(reply) => replies::closed(saga, reply, draft),
        OrderSagaMessage::PaymentRefunded(reply) => replies::refunded(saga, reply, draft),
        OrderSagaMessage::PaymentCommandFailed(reply) => replies::payment_failed(saga, reply, draft),
        OrderSagaMessage::TimerFired(timer) => timers::fired(saga, timer, draft),
        OrderSagaMessage::PauseSaga(command) => requests::pause(saga, command, draft),
        OrderSagaMessage::ResumeSaga(command) => requests::resume(saga, command, draft),
        OrderSagaMessage::RetryStep(command) => requests::retry(saga, command, draft),
        OrderSagaMessage::SkipStep(command) => requests::skip(saga, command, draft),
        OrderSagaMessage::CompensateSaga(command) => requests::compensate(saga, command, draft),
    };
    match outcome {
        Ok(draft) => draft.finish(),
        Err(reason) => Decision::Ignore(reason),
    }
}

/// Decides and folds: the state afterwards, and the decision.
pub fn fold(saga: Option<Saga>, input: &OrderSagaMessage, time: Timestamp) -> (Option<Saga>, Decision) {
    let decision = decide(saga.as_ref(), input, time);
    let saga = match decision.advance() {
        Some(advance) => advance.events.iter().fold(saga, |saga, event| evolve(saga, advance.now, event)),
        None => saga,
    };
    (saga, decision)
}
