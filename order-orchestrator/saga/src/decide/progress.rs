//! What follows by itself once a fact is known: the next step, the way back, the end.

use std::time::Duration;

use domain_types::{Attempt, LineNumber};
use schemas::{OrderState, Reason, StepName, TimerName};

use super::draft::Draft;
use crate::event::Event;
use crate::state::{LineStage, PaymentStage, Timer};

impl Draft {
    /// Goes on if what the state waits for is there.
    pub(super) fn proceed(&mut self) {
        match self.saga.state {
            OrderState::Reserving => {
                if self.saga.lines.iter().all(|line| line.stage == LineStage::Held) {
                    self.reserved();
                }
            }
            OrderState::Compensating => self.end_if_given_back(),
            OrderState::Accepted
            | OrderState::AwaitingPayment
            | OrderState::Charging
            | OrderState::Paid
            | OrderState::Shipped
            | OrderState::Delivered
            | OrderState::ReturnRequested
            | OrderState::Cancelled
            | OrderState::Returned
            | OrderState::Rejected
            | OrderState::PaymentFailed
            | OrderState::Expired => {}
        }
    }

    fn reserved(&mut self) {
        if self.now > self.saga.pay_before() {
            self.compensate(Reason::Expired);
        } else if self.saga.payment.is_some() {
            self.charge();
        } else {
            self.record(Event::Entered { state: OrderState::AwaitingPayment });
        }
    }

    /// Begins the charge, and bounds it.
    pub(super) fn charge(&mut self) {
        self.record(Event::Entered { state: OrderState::Charging });
        if let Some(deadline) = self.saga.definition().step(StepName::Charge).deadline {
            let due_at = self.now.plus(Duration::from_millis(self.saga.policy.charge_within_ms));
            self.record(Event::TimerArmed(Timer::new(deadline, due_at)));
        }
        self.send(StepName::Charge, None, Attempt::FIRST);
    }

    /// The pivot is behind: forward only.
    pub(super) fn paid(&mut self) {
        self.record(Event::Entered { state: OrderState::Paid });
        let due_at = self.now.plus(self.saga.day());
        self.record(Event::TimerArmed(Timer::new(TimerName::Ship, due_at)));
        for line in self.line_numbers() {
            self.send(StepName::Confirm, Some(line), Attempt::FIRST);
        }
    }

    /// Sends what was confirmed without an answer once more, with one: the order may not end before it is known.
    pub(super) fn ask_whether_confirmed(&mut self) {
        let confirm = self.saga.definition().step(StepName::Confirm);
        for number in self.line_numbers() {
            let unanswered = self.saga.line(number).filter(|line| {
                line.stage == LineStage::Confirming
                    && line.failed.is_none()
                    && confirm.is_silent(line.attempt)
            });
            if let Some(attempt) = unanswered.map(|line| line.attempt.next()) {
                self.send(StepName::Confirm, Some(number), attempt);
            }
        }
    }

    /// Begins to give everything back, all at once; the order ends with `outcome` when the last answer is there.
    pub(super) fn compensate(&mut self, outcome: Reason) {
        self.record(Event::CompensationBegun { outcome });
        let definition = self.saga.definition();
        for line in self.line_numbers() {
            let undo = match self.saga.line(line).map(|line| line.stage) {
                Some(LineStage::Reserving) => definition.step(StepName::Reserve).compensation_under_way,
                Some(LineStage::Held) => definition.step(StepName::Reserve).compensation,
                Some(LineStage::Confirming) => definition.step(StepName::Confirm).compensation_under_way,
                Some(LineStage::Sold) => definition.step(StepName::Confirm).compensation,
                Some(
                    LineStage::Refused
                    | LineStage::Releasing
                    | LineStage::Released
                    | LineStage::Restocking
                    | LineStage::Restocked,
                )
                | None => None,
            };
            if let Some(undo) = undo {
                self.send(undo, Some(line), Attempt::FIRST);
            }
        }
        let undo = match self.saga.payment.as_ref().map(|payment| payment.stage) {
            Some(PaymentStage::Charging) => definition.step(StepName::Charge).compensation_under_way,
            Some(PaymentStage::Approved) => definition.step(StepName::Charge).compensation,
            Some(
                PaymentStage::Chosen
                | PaymentStage::Declined(_)
                | PaymentStage::Closing
                | PaymentStage::Closed
                | PaymentStage::Refunding
                | PaymentStage::Refunded,
            )
            | None => None,
        };
        if let Some(undo) = undo {
            self.send(undo, None, Attempt::FIRST);
        }
        self.end_if_given_back();
    }

    fn end_if_given_back(&mut self) {
        let lines = self.saga.lines.iter().all(|line| line.stage.is_given_back());
        let payment = self.saga.payment.as_ref().is_none_or(|payment| payment.stage.is_given_back());
        let Some(outcome) = self.saga.outcome.filter(|_| lines && payment) else { return };
        let state = match outcome {
            Reason::SoldOut
            | Reason::SaleClosed
            | Reason::LimitExceeded
            | Reason::UnknownSku
            | Reason::NotPlaced => OrderState::Rejected,
            Reason::Declined | Reason::OverLimit | Reason::Abandoned => OrderState::PaymentFailed,
            // `needs_operator` is never an outcome: it is derived from what failed.
            Reason::Cancelled | Reason::NeedsOperator => OrderState::Cancelled,
            Reason::Returned => OrderState::Returned,
            Reason::Expired => OrderState::Expired,
        };
        self.record(Event::Entered { state });
    }

    fn line_numbers(&self) -> Vec<LineNumber> {
        (0u8..).zip(&self.saga.lines).map(|(number, _)| LineNumber(number)).collect()
    }
}
