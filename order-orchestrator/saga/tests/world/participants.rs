//! A stock worker and a payment worker that do each thing once, however often they are asked.

use domain_types::{Attempt, LineNumber, Money};
use saga::Effect;
use schemas::{
    DeclineReason, OrderSagaMessage, PaymentApproved, PaymentClosed, PaymentCommand, PaymentCommandFailed,
    PaymentCommandKind, PaymentDeclined, PaymentRefunded, ReserveRefusal, StepName, StockCommand,
    StockCommandFailed, StockCommandKind, StockConfirmed, StockRefused, StockReleased, StockReserved,
    StockRestocked,
};

/// What happens in this world.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// For each line: why its reserve is refused.
    pub(crate) refusals: Vec<Option<ReserveRefusal>>,
    pub(crate) pay_at_once: bool,
    pub(crate) charge: ChargeScript,
    /// How many payment commands are answered with a failure before the first real answer.
    pub(crate) unknown_answers: u8,
    /// Whether the n-th stock command fails and does nothing.
    pub(crate) stock_failures: Vec<bool>,
    /// The definition the order begins with.
    pub(crate) definition: u16,
    /// Whether the customer gives the order back, if nothing else happens to it.
    pub(crate) returns: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum ChargeScript {
    Approve,
    Decline(DeclineReason),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Hold {
    Unseen,
    Tombstone,
    Refused(ReserveRefusal),
    Held(u32),
    Sold(u32),
    Released(u32),
    Restocked(u32),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Charge {
    Unseen,
    Approved(Money),
    Declined(DeclineReason),
    Closed,
    Refunded(Money),
}

pub(crate) struct Participants {
    script: Script,
    holds: Vec<Hold>,
    ever_held: Vec<bool>,
    confirmed: Vec<bool>,
    charge: Charge,
    stock_commands: usize,
    unknown_answers: u8,
    version: i64,
}

impl Participants {
    pub(crate) fn new(script: &Script) -> Self {
        let lines = script.refusals.len();
        Self {
            holds: vec![Hold::Unseen; lines],
            ever_held: vec![false; lines],
            confirmed: vec![false; lines],
            charge: Charge::Unseen,
            stock_commands: 0,
            unknown_answers: script.unknown_answers,
            version: 0,
            script: script.clone(),
        }
    }

    pub(crate) fn carry_out(&mut self, command: &Effect) -> Option<OrderSagaMessage> {
        match command {
            Effect::Stock { command, .. } => self.stock(command),
            Effect::Payment(command) => Some(self.payment(command)),
            Effect::Event(_) => None,
        }
    }

    /// Units held and sold for a line.
    pub(crate) fn units(&self, line: usize) -> (u32, u32) {
        match self.holds[line] {
            Hold::Held(units) => (units, 0),
            Hold::Sold(units) => (0, units),
            Hold::Unseen | Hold::Tombstone | Hold::Refused(_) | Hold::Released(_) | Hold::Restocked(_) => {
                (0, 0)
            }
        }
    }

    pub(crate) fn ever_held(&self, line: usize) -> bool {
        self.ever_held[line]
    }

    /// What the customer is out of pocket, minor units.
    pub(crate) fn taken(&self) -> i64 {
        match self.charge {
            Charge::Approved(amount) => amount.amount,
            Charge::Unseen | Charge::Declined(_) | Charge::Closed | Charge::Refunded(_) => 0,
        }
    }

    fn stock(&mut self, command: &StockCommand) -> Option<OrderSagaMessage> {
        let (kind, line, attempt, quantity) = match command {
            StockCommand::ReserveStock(c) => (StockCommandKind::Reserve, c.line, c.attempt, c.quantity.get()),
            StockCommand::ConfirmStock(c) => (StockCommandKind::Confirm, c.line, c.attempt, 0),
            StockCommand::ReleaseStock(c) => (StockCommandKind::Release, c.line, c.attempt, 0),
            StockCommand::RestockStock(c) => (StockCommandKind::Restock, c.line, c.attempt, 0),
            StockCommand::DefineProduct(_) | StockCommand::ChangeStock(_) => return None,
        };
        let is_silent = matches!(command, StockCommand::ConfirmStock(confirm) if confirm.silent);
        let fails = self.script.stock_failures.get(self.stock_commands).copied().unwrap_or(false);
        self.stock_commands += 1;
        if fails {
            return Some(impossible(line, kind, attempt));
        }
        self.version += 1;
        let answer = match kind {
            StockCommandKind::Reserve => self.reserve(line, attempt, quantity),
            StockCommandKind::Confirm => self.confirm(line, attempt),
            StockCommandKind::Release => self.release(line, attempt),
            StockCommandKind::Restock => self.restock(line, attempt),
        };
        let unwanted = is_silent && matches!(answer, OrderSagaMessage::StockConfirmed(_));
        (!unwanted).then_some(answer)
    }

    fn reserve(&mut self, line: LineNumber, attempt: Attempt, quantity: u32) -> OrderSagaMessage {
        let number = usize::from(line.0);
        if self.holds[number] == Hold::Unseen {
            self.holds[number] = match self.script.refusals[number] {
                Some(reason) => Hold::Refused(reason),
                None => {
                    self.ever_held[number] = true;
                    Hold::Held(quantity)
                }
            };
        }
        let stock_version = self.version;
        let refused = |reason| StockRefused { line, attempt, reason, stock_version }.into();
        match self.holds[number] {
            Hold::Refused(reason) => refused(reason),
            Hold::Unseen | Hold::Tombstone => refused(ReserveRefusal::Released),
            Hold::Held(_) | Hold::Sold(_) | Hold::Released(_) | Hold::Restocked(_) => {
                StockReserved { line, attempt, stock_version }.into()
            }
        }
    }

    fn confirm(&mut self, line: LineNumber, attempt: Attempt) -> OrderSagaMessage {
        let number = usize::from(line.0);
        if let Hold::Held(units) = self.holds[number] {
            self.holds[number] = Hold::Sold(units);
            self.confirmed[number] = true;
        }
        if self.confirmed[number] {
            StockConfirmed { line, attempt, stock_version: self.version }.into()
        } else {
            impossible(line, StockCommandKind::Confirm, attempt)
        }
    }

    fn release(&mut self, line: LineNumber, attempt: Attempt) -> OrderSagaMessage {
        let number = usize::from(line.0);
        let (hold, units) = match self.holds[number] {
            Hold::Unseen | Hold::Tombstone => (Hold::Tombstone, 0),
            Hold::Refused(reason) => (Hold::Refused(reason), 0),
            Hold::Held(units) | Hold::Released(units) => (Hold::Released(units), units),
            Hold::Sold(_) | Hold::Restocked(_) => {
                return impossible(line, StockCommandKind::Release, attempt);
            }
        };
        self.holds[number] = hold;
        StockReleased { line, attempt, units, stock_version: self.version }.into()
    }

    fn restock(&mut self, line: LineNumber, attempt: Attempt) -> OrderSagaMessage {
        let number = usize::from(line.0);
        match self.holds[number] {
            Hold::Held(units) | Hold::Sold(units) | Hold::Restocked(units) => {
                self.holds[number] = Hold::Restocked(units);
                StockRestocked { line, attempt, units, stock_version: self.version }.into()
            }
            Hold::Unseen | Hold::Tombstone | Hold::Refused(_) | Hold::Released(_) => {
                impossible(line, StockCommandKind::Restock, attempt)
            }
        }
    }

    fn payment(&mut self, command: &PaymentCommand) -> OrderSagaMessage {
        let (kind, attempt) = match command {
            PaymentCommand::ChargePayment(command) => (PaymentCommandKind::Charge, command.attempt),
            PaymentCommand::ClosePayment(command) => (PaymentCommandKind::Close, command.attempt),
            PaymentCommand::RefundPayment(command) => (PaymentCommandKind::Refund, command.attempt),
        };
        match (command, self.charge) {
            (PaymentCommand::ChargePayment(command), Charge::Unseen) => {
                self.charge = match self.script.charge {
                    ChargeScript::Approve => Charge::Approved(command.amount),
                    ChargeScript::Decline(reason) => Charge::Declined(reason),
                };
            }
            (PaymentCommand::ClosePayment(_), Charge::Unseen) => self.charge = Charge::Closed,
            _ => {}
        }
        let unknown: OrderSagaMessage =
            PaymentCommandFailed { command: kind, attempt, code: "outcome_unknown".into() }.into();
        if self.unknown_answers > 0 {
            // It was done, but nobody can tell.
            self.unknown_answers -= 1;
            return unknown;
        }
        if let (PaymentCommand::RefundPayment(refund), Charge::Approved(amount)) = (command, self.charge) {
            assert_eq!(refund.amount, amount, "refunds what was charged");
            self.charge = Charge::Refunded(amount);
        }
        match (kind, self.charge) {
            (PaymentCommandKind::Refund, Charge::Refunded(amount)) => {
                PaymentRefunded { attempt, amount, reference: "refund".into() }.into()
            }
            (PaymentCommandKind::Refund, _) | (_, Charge::Unseen) => unknown,
            (_, Charge::Approved(amount) | Charge::Refunded(amount)) => {
                PaymentApproved { attempt, amount, reference: "charge".into() }.into()
            }
            (_, Charge::Declined(reason)) => PaymentDeclined { attempt, reason }.into(),
            (_, Charge::Closed) => PaymentClosed { attempt }.into(),
        }
    }
}

fn impossible(line: LineNumber, command: StockCommandKind, attempt: Attempt) -> OrderSagaMessage {
    StockCommandFailed { line, command, attempt, code: "impossible".into() }.into()
}

pub(crate) fn payment_step(command: &PaymentCommand) -> (StepName, Attempt) {
    match command {
        PaymentCommand::ChargePayment(command) => (StepName::Charge, command.attempt),
        PaymentCommand::ClosePayment(command) => (StepName::Close, command.attempt),
        PaymentCommand::RefundPayment(command) => (StepName::Refund, command.attempt),
    }
}
