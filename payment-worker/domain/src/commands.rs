//! What a command leads to.

use domain_types::{Attempt, CustomerId, Money, OrderId};
use schemas::{PaymentCommand, PaymentCommandKind};

use crate::charge::{Asked, Charge, ChargeState, ClosingStep, EarlyRefund, PaymentRecord, Stuck, Terms};
use crate::provider::CallNumber;
use crate::reply::{Answer, Cause, Decision, code};

/// Decides a command. A repeat of an answered command gets the same answer again, with the attempt of the repeat; a
/// command whose answer is still open waits, and only its newest attempt is answered.
///
/// `known` is what is stored under `order_id`; `cause` is the command's message.
pub fn decide(
    known: Option<&PaymentRecord>,
    order_id: OrderId,
    command: &PaymentCommand,
    cause: &Cause,
) -> Decision {
    let ask = Ask { order_id, cause, kind: kind(command), attempt: attempt(command) };
    match (known, command) {
        (None, PaymentCommand::ChargePayment(charge)) => {
            let terms = Terms { amount: charge.amount, method: charge.method.clone() };
            ask.first_charge(charge.customer_id, terms)
        }
        (None, PaymentCommand::ClosePayment(close)) => {
            let record = PaymentRecord::Barred { order_id, customer_id: close.customer_id };
            Decision { record: Some(record), ..ask.answer(Answer::Closed) }
        }
        (None | Some(PaymentRecord::Barred { .. }), PaymentCommand::RefundPayment(_)) => {
            ask.fail(code::NOT_CHARGED)
        }
        (
            Some(PaymentRecord::Barred { .. }),
            PaymentCommand::ChargePayment(_) | PaymentCommand::ClosePayment(_),
        ) => ask.answer(Answer::Closed),
        (Some(PaymentRecord::Charge(charge)), PaymentCommand::ChargePayment(command)) => {
            let same_terms = charge.terms.amount == command.amount && charge.terms.method == command.method;
            if same_terms && charge.customer_id == command.customer_id {
                ask.charge(charge)
            } else {
                ask.fail(code::CONFLICTING_CHARGE)
            }
        }
        (Some(PaymentRecord::Charge(charge)), PaymentCommand::ClosePayment(command)) => {
            if charge.customer_id == command.customer_id {
                ask.close(charge)
            } else {
                ask.fail(code::CONFLICTING_CHARGE)
            }
        }
        (Some(PaymentRecord::Charge(charge)), PaymentCommand::RefundPayment(command)) => {
            if charge.customer_id == command.customer_id {
                ask.refund(charge, command.amount)
            } else {
                ask.fail(code::CONFLICTING_CHARGE)
            }
        }
    }
}

const fn kind(command: &PaymentCommand) -> PaymentCommandKind {
    match command {
        PaymentCommand::ChargePayment(_) => PaymentCommandKind::Charge,
        PaymentCommand::ClosePayment(_) => PaymentCommandKind::Close,
        PaymentCommand::RefundPayment(_) => PaymentCommandKind::Refund,
    }
}

const fn attempt(command: &PaymentCommand) -> Attempt {
    match command {
        PaymentCommand::ChargePayment(command) => command.attempt,
        PaymentCommand::ClosePayment(command) => command.attempt,
        PaymentCommand::RefundPayment(command) => command.attempt,
    }
}

struct Ask<'a> {
    order_id: OrderId,
    cause: &'a Cause,
    kind: PaymentCommandKind,
    attempt: Attempt,
}

impl Ask<'_> {
    fn asked(&self) -> Asked {
        Asked { attempt: self.attempt, cause: self.cause.clone() }
    }

    fn is_newer_than(&self, asked: &Asked) -> bool {
        self.attempt > asked.attempt
    }

    fn answer(&self, answer: Answer) -> Decision {
        Decision::reply(self.cause, self.attempt, answer)
    }

    fn fail(&self, code: &str) -> Decision {
        self.answer(Answer::Failed { command: self.kind, code: code.to_owned() })
    }

    fn approved(&self, charge: &Charge, reference: &str) -> Decision {
        self.answer(Answer::Approved { amount: charge.terms.amount, reference: reference.to_owned() })
    }

    fn moved(&self, charge: &Charge, state: ChargeState) -> Decision {
        Decision::change(PaymentRecord::Charge(charge.moved(state)))
    }

    fn first_charge(&self, customer_id: CustomerId, terms: Terms) -> Decision {
        if terms.amount.amount < 0 {
            return self.fail(code::INVALID_AMOUNT);
        }
        let now = self.cause.time;
        let mut charge = Charge {
            order_id: self.order_id,
            customer_id,
            terms,
            state: ChargeState::Closed { attempt: self.attempt },
            calls: CallNumber::default(),
            refund: None,
        };
        let call = charge.call_at_once(now);
        charge = charge.moved(ChargeState::Requested { charge: self.asked(), call });
        Decision::change(PaymentRecord::Charge(charge))
    }

    fn charge(&self, known: &Charge) -> Decision {
        match &known.state {
            // A new attempt is answered in place of the old one, and asks again at once.
            ChargeState::Requested { charge, .. } if self.is_newer_than(charge) => {
                let call = known.call_at_once(self.cause.time);
                self.moved(known, ChargeState::Requested { charge: self.asked(), call })
            }
            ChargeState::Unknown { charge, .. } if self.is_newer_than(charge) => self.query(known),
            ChargeState::Requested { .. } | ChargeState::Unknown { .. } => Decision::nothing(),
            ChargeState::Closing { charge, close, step, call } => {
                if charge.as_ref().is_some_and(|charge| !self.is_newer_than(charge)) {
                    return Decision::nothing();
                }
                let state = ChargeState::Closing {
                    charge: Some(self.asked()),
                    close: close.clone(),
                    step: *step,
                    call: *call,
                };
                self.moved(known, state)
            }
            ChargeState::Approved { reference }
            | ChargeState::RefundRequested { reference, .. }
            | ChargeState::Refunded { reference, .. }
            | ChargeState::Failed { stuck: Stuck::Refund { reference }, .. } => {
                self.approved(known, reference)
            }
            ChargeState::Declined { reason, .. } => self.answer(Answer::Declined(*reason)),
            ChargeState::Closed { .. } => self.answer(Answer::Closed),
            ChargeState::Failed { stuck: Stuck::Charge, asked, code } => {
                if self.is_newer_than(asked) {
                    self.query(known)
                } else {
                    self.fail(code)
                }
            }
            ChargeState::Failed { stuck: Stuck::Close, code, .. } => self.fail(code),
        }
    }

    fn query(&self, known: &Charge) -> Decision {
        let call = known.call_at_once(self.cause.time);
        self.moved(known, ChargeState::Unknown { charge: self.asked(), call })
    }

    fn close(&self, known: &Charge) -> Decision {
        match &known.state {
            ChargeState::Requested { charge, .. } | ChargeState::Unknown { charge, .. } => {
                self.void(known, Some(charge.clone()))
            }
            ChargeState::Closing { charge, close, .. } => {
                if self.is_newer_than(close) {
                    self.void(known, charge.clone())
                } else {
                    Decision::nothing()
                }
            }
            ChargeState::Approved { reference }
            | ChargeState::RefundRequested { reference, .. }
            | ChargeState::Refunded { reference, .. }
            | ChargeState::Failed { stuck: Stuck::Refund { reference }, .. } => {
                self.approved(known, reference)
            }
            ChargeState::Declined { reason, .. } => self.answer(Answer::Declined(*reason)),
            ChargeState::Closed { .. } => self.answer(Answer::Closed),
            ChargeState::Failed { stuck: Stuck::Charge, .. } => self.void(known, None),
            ChargeState::Failed { stuck: Stuck::Close, asked, code } => {
                if self.is_newer_than(asked) {
                    self.void(known, None)
                } else {
                    self.fail(code)
                }
            }
        }
    }

    fn void(&self, known: &Charge, charge: Option<Asked>) -> Decision {
        let call = known.call_at_once(self.cause.time);
        let step = ClosingStep::Void;
        self.moved(known, ChargeState::Closing { charge, close: self.asked(), step, call })
    }

    fn refund(&self, known: &Charge, amount: Money) -> Decision {
        if amount != known.terms.amount {
            return self.fail(code::AMOUNT_MISMATCH);
        }
        match &known.state {
            ChargeState::Approved { reference } => self.give_back(known, reference),
            ChargeState::RefundRequested { reference, refund, .. } => {
                if self.is_newer_than(refund) {
                    self.give_back(known, reference)
                } else {
                    Decision::nothing()
                }
            }
            ChargeState::Refunded { refund_reference, .. } => {
                self.answer(Answer::Refunded { amount, reference: refund_reference.clone() })
            }
            ChargeState::Failed { stuck: Stuck::Refund { reference }, asked, code } => {
                if self.is_newer_than(asked) { self.give_back(known, reference) } else { self.fail(code) }
            }
            ChargeState::Requested { .. }
            | ChargeState::Unknown { .. }
            | ChargeState::Closing { .. }
            | ChargeState::Declined { .. }
            | ChargeState::Closed { .. }
            | ChargeState::Failed { stuck: Stuck::Charge | Stuck::Close, .. } => self.early_refund(known),
        }
    }

    /// Nothing was taken as far as is known here. While that may change, the refund waits for it.
    fn early_refund(&self, known: &Charge) -> Decision {
        if let Some(refund) = known.refund.as_ref().filter(|refund| !self.is_newer_than(&refund.asked)) {
            return if refund.is_given_up { self.fail(code::OUTCOME_UNKNOWN) } else { Decision::nothing() };
        }
        let refund = Some(Box::new(EarlyRefund { asked: self.asked(), is_given_up: false }));
        let charge = match &known.state {
            ChargeState::Requested { .. } | ChargeState::Unknown { .. } | ChargeState::Closing { .. } => {
                known.clone()
            }
            ChargeState::Failed { stuck: Stuck::Charge, asked, .. } => {
                let call = known.call_at_once(self.cause.time);
                known.moved(ChargeState::Unknown { charge: asked.clone(), call })
            }
            // Goes on closing: attempts of a charge and of its closing are not to be compared.
            ChargeState::Failed { stuck: Stuck::Close, asked, .. } => {
                let (close, step) = (asked.clone(), ClosingStep::Void);
                let call = known.call_at_once(self.cause.time);
                known.moved(ChargeState::Closing { charge: None, close, step, call })
            }
            ChargeState::Declined { .. }
            | ChargeState::Closed { .. }
            | ChargeState::Approved { .. }
            | ChargeState::RefundRequested { .. }
            | ChargeState::Refunded { .. }
            | ChargeState::Failed { stuck: Stuck::Refund { .. }, .. } => return self.fail(code::NOT_CHARGED),
        };
        Decision::change(PaymentRecord::Charge(Charge { refund, ..charge }))
    }

    fn give_back(&self, known: &Charge, reference: &str) -> Decision {
        let call = known.call_at_once(self.cause.time);
        let reference = reference.to_owned();
        self.moved(known, ChargeState::RefundRequested { reference, refund: self.asked(), call })
    }
}
