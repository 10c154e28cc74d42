//! A decision in the making: a copy of the saga that each fact is folded into at once.

use domain_types::{Attempt, LineNumber, Timestamp};
use schemas::{
    LineStock, OrderChanged, OrderState, Reason, RequestKind, RequestOutcome, RequestView, StepName,
};

use super::{Advance, Decision};
use crate::effect::{Effect, command};
use crate::event::Event;
use crate::reason::RefusalCode;
use crate::state::{CommandRef, Payment, Saga};

/// See the module.
pub(super) struct Draft {
    pub(super) saga: Saga,
    pub(super) now: Timestamp,
    before: Public,
    events: Vec<Event>,
    effects: Vec<Effect>,
    stock: Vec<LineStock>,
    return_before: Option<Timestamp>,
    request: Option<RequestView>,
    refused: Option<RefusalCode>,
}

/// What a change of makes an event for everybody.
#[derive(PartialEq)]
struct Public {
    state: OrderState,
    reason: Option<Reason>,
    is_final: bool,
    payment: Option<Payment>,
}

impl Public {
    fn of(saga: &Saga) -> Self {
        // Attempts and failures of the payment are not public; the reason `needs_operator` is.
        let payment = saga.payment.clone().map(|payment| Payment {
            attempt: Attempt::FIRST,
            charge_attempt: Attempt::FIRST,
            failed: None,
            settled_by: None,
            ..payment
        });
        Self { state: saga.state, reason: saga.reason(), is_final: saga.is_final(), payment }
    }
}

impl Draft {
    pub(super) fn new(saga: Saga, time: Timestamp) -> Self {
        Self {
            now: saga.now.max(time),
            before: Public::of(&saga),
            saga,
            events: Vec::new(),
            effects: Vec::new(),
            stock: Vec::new(),
            return_before: None,
            request: None,
            refused: None,
        }
    }

    /// Adds a fact.
    pub(super) fn record(&mut self, event: Event) {
        self.saga.apply(self.now, &event);
        self.events.push(event);
    }

    /// Adds the fact that a command is sent, and the command, unless the saga is paused.
    pub(super) fn send(&mut self, step: StepName, line: Option<LineNumber>, attempt: Attempt) {
        self.record(Event::Sent { step, line, attempt });
        if !self.saga.paused {
            self.publish_command(CommandRef { step, line });
        }
    }

    /// Adds the command as it follows from the state.
    pub(super) fn publish_command(&mut self, reference: CommandRef) {
        self.effects.extend(command(&self.saga, reference));
    }

    /// Adds an effect that goes before all commands.
    pub(super) fn publish_first(&mut self, effect: Effect) {
        self.effects.insert(0, effect);
    }

    /// Publishes that a line's stock changed.
    pub(super) fn stock_changed(&mut self, line: LineNumber, held: bool, stock_version: i64) {
        self.stock.push(LineStock { line, held, stock_version });
    }

    /// Publishes until when the order may be given back.
    pub(super) fn return_until(&mut self, time: Timestamp) {
        self.return_before = Some(time);
    }

    /// Answers a request.
    pub(super) fn answer(&mut self, request: &Request<'_>, refused: Option<RefusalCode>) {
        let code = refused.map(|code| code.as_str().to_owned());
        self.request = Some(RequestView {
            id: request.id,
            kind: request.kind,
            outcome: if refused.is_some() { RequestOutcome::Refused } else { RequestOutcome::Done },
            code: code.clone(),
            at: self.now,
        });
        self.refused = refused;
        self.record(Event::Answered {
            request_id: request.id,
            kind: request.kind,
            refused: code,
            operator: request.operator.map(str::to_owned),
            why: request.why.map(str::to_owned),
        });
    }

    /// The facts and the messages, with what changed for everybody as one event behind the commands.
    pub(super) fn finish(mut self) -> Decision {
        let after = Public::of(&self.saga);
        let changed = after != self.before
            || self.request.is_some()
            || self.return_before.is_some()
            || !self.stock.is_empty();
        if changed {
            self.record(Event::Published);
            let payment = (after.payment != self.before.payment)
                .then(|| self.saga.payment.as_ref().and_then(|payment| payment.view(self.now)))
                .flatten();
            self.effects.push(Effect::Event(
                OrderChanged {
                    version: self.saga.version,
                    state: after.state,
                    reason: after.reason,
                    is_final: after.is_final,
                    payment,
                    return_before: self.return_before,
                    request: self.request.take(),
                    stock: std::mem::take(&mut self.stock),
                    at: self.now,
                }
                .into(),
            ));
        }
        let refused = self.refused;
        let advance = self.into_advance();
        match refused {
            Some(code) => Decision::Refuse(code, advance),
            None => Decision::Advance(advance),
        }
    }

    /// The facts and the messages, as they are.
    pub(super) fn into_advance(self) -> Advance {
        Advance { now: self.now, events: self.events, effects: self.effects }
    }
}

/// A request of a customer or an operator.
pub(super) struct Request<'a> {
    pub(super) id: domain_types::RequestId,
    pub(super) kind: RequestKind,
    pub(super) operator: Option<&'a str>,
    pub(super) why: Option<&'a str>,
}
