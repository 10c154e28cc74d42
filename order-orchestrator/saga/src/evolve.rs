//! Folds the history into the state. Total: a fact that fits nothing changes nothing.

use domain_types::{Attempt, LineNumber, Timestamp};
use schemas::{OrderState, Reason, StepName};

use crate::definition::MAX_REMEMBERED_REQUESTS;
use crate::event::{Event, Placed};
use crate::state::{CommandRef, Line, LineStage, Payment, PaymentStage, Saga, Timer};

/// The state after `event`, which became known at `at` (the `now` of its input). Without a saga only `Placed` makes one.
pub fn evolve(saga: Option<Saga>, at: Timestamp, event: &Event) -> Option<Saga> {
    match (saga, event) {
        (None, Event::Placed(placed)) => Some(begin(at, placed)),
        (None, _) => None,
        (Some(mut saga), event) => {
            saga.apply(at, event);
            Some(saga)
        }
    }
}

/// The state right after `PlaceOrder`.
pub(crate) fn begin(at: Timestamp, placed: &Placed) -> Saga {
    let lines = placed.lines.iter().map(|line| Line {
        sku: line.sku.clone(),
        quantity: line.quantity,
        stage: if placed.too_late { LineStage::Refused } else { LineStage::Reserving },
        attempt: Attempt::FIRST,
        failed: None,
        held_version: None,
    });
    Saga {
        definition: placed.definition,
        customer_id: placed.customer_id,
        fingerprint: placed.fingerprint.clone(),
        lines: lines.collect(),
        amount: placed.amount,
        policy: placed.policy,
        ordered_at: at,
        now: at,
        version: 2,
        state: if placed.too_late { OrderState::Rejected } else { OrderState::Reserving },
        outcome: placed.too_late.then_some(Reason::NotPlaced),
        payment: placed.method.clone().map(chosen),
        timer: None,
        paused: false,
        withheld: Vec::new(),
        requests: Vec::new(),
    }
}

fn chosen(method: schemas::PaymentMethod) -> Payment {
    Payment {
        method,
        stage: PaymentStage::Chosen,
        attempt: Attempt::FIRST,
        charge_attempt: Attempt::FIRST,
        failed: None,
        charged: None,
        refunded: None,
        settled_by: None,
    }
}

impl Saga {
    /// See [`evolve`].
    pub(crate) fn apply(&mut self, at: Timestamp, event: &Event) {
        self.now = self.now.max(at);
        match event {
            Event::Placed(_) => {}
            Event::Sent { step, line, attempt } => self.sent(*step, *line, *attempt),
            Event::Reserved { line, stock_version } => self.with_line(*line, |line| {
                line.held_version = Some(*stock_version);
                if line.stage == LineStage::Reserving {
                    line.enter(LineStage::Held);
                }
            }),
            Event::Refused { line, .. } => self.with_line(*line, |line| line.enter(LineStage::Refused)),
            Event::Confirmed { line } => self.with_line(*line, |line| line.enter(LineStage::Sold)),
            Event::Released { line, units, stock_version } => self.with_line(*line, |line| {
                line.enter(LineStage::Released);
                if *units > 0 {
                    line.held_version.get_or_insert(*stock_version);
                }
            }),
            Event::Restocked { line, .. } => self.with_line(*line, |line| line.enter(LineStage::Restocked)),
            Event::MethodChosen { method } => self.payment = Some(chosen(method.clone())),
            Event::Approved { amount, .. } => self.with_payment(|payment| {
                payment.enter(PaymentStage::Approved);
                payment.charged = Some(*amount);
            }),
            Event::Declined { reason } => {
                self.with_payment(|payment| payment.enter(PaymentStage::Declined(*reason)));
            }
            Event::Closed => self.with_payment(|payment| payment.enter(PaymentStage::Closed)),
            Event::Refunded { amount, .. } => self.with_payment(|payment| {
                payment.enter(PaymentStage::Refunded);
                payment.refunded = Some(*amount);
            }),
            Event::Failed { line: Some(line), code, .. } => {
                self.with_line(*line, |line| line.failed = Some(code.clone()));
            }
            Event::Failed { line: None, code, .. } => {
                self.with_payment(|payment| payment.failed = Some(code.clone()));
            }
            Event::Settled { step, settled_by } => self.settled(*step, settled_by),
            Event::CompensationBegun { outcome } => {
                self.state = OrderState::Compensating;
                self.outcome = Some(*outcome);
                self.timer = None;
            }
            Event::Entered { state } => self.state = *state,
            Event::TimerArmed(timer) => self.timer = Some(*timer),
            Event::TimerDisarmed => self.timer = None,
            Event::Paused => self.paused = true,
            Event::Resumed => {
                self.paused = false;
                self.withheld.clear();
            }
            Event::Answered { request_id, .. } => {
                if self.requests.len() >= MAX_REMEMBERED_REQUESTS {
                    self.requests.remove(0);
                }
                self.requests.push(*request_id);
            }
            Event::Published => self.version = self.version.saturating_add(1),
        }
    }

    fn sent(&mut self, step: StepName, line: Option<LineNumber>, attempt: Attempt) {
        let line_stage = match step {
            StepName::Reserve => Some(LineStage::Reserving),
            StepName::Confirm => Some(LineStage::Confirming),
            StepName::Release => Some(LineStage::Releasing),
            StepName::Restock => Some(LineStage::Restocking),
            StepName::Charge | StepName::Close | StepName::Refund => None,
        };
        let payment_stage = match step {
            StepName::Charge => Some(PaymentStage::Charging),
            StepName::Close => Some(PaymentStage::Closing),
            StepName::Refund => Some(PaymentStage::Refunding),
            StepName::Reserve | StepName::Confirm | StepName::Release | StepName::Restock => None,
        };
        if let (Some(stage), Some(line)) = (line_stage, line) {
            self.with_line(line, |line| {
                line.enter(stage);
                line.attempt = attempt;
            });
        }
        if let Some(stage) = payment_stage {
            self.with_payment(|payment| {
                payment.enter(stage);
                payment.attempt = attempt;
                if step == StepName::Charge {
                    payment.charge_attempt = attempt;
                }
            });
        }
        if self.paused {
            // A command that never left is dropped when its compensation is decided; the compensation still
            // goes: an earlier attempt of the command may have left.
            let definition = self.definition();
            let undone = |withheld: &CommandRef| {
                withheld.line == line && definition.step(withheld.step).compensation_under_way == Some(step)
            };
            self.withheld.retain(|withheld| !undone(withheld));
            if !self.withholds(step, line) {
                self.withheld.push(CommandRef { step, line });
            }
        }
    }

    fn settled(&mut self, step: StepName, settled_by: &str) {
        let amount = self.amount;
        self.with_payment(|payment| {
            match step {
                StepName::Charge => {
                    payment.enter(PaymentStage::Approved);
                    payment.charged = Some(amount);
                }
                StepName::Close => payment.enter(PaymentStage::Closed),
                StepName::Refund => {
                    payment.enter(PaymentStage::Refunded);
                    payment.refunded = payment.charged;
                }
                StepName::Reserve | StepName::Confirm | StepName::Release | StepName::Restock => return,
            }
            payment.settled_by = Some(settled_by.to_owned());
        });
    }

    /// Whether a command is withheld.
    pub(crate) fn withholds(&self, step: StepName, line: Option<LineNumber>) -> bool {
        self.withheld.contains(&CommandRef { step, line })
    }

    fn with_line(&mut self, number: LineNumber, change: impl FnOnce(&mut Line)) {
        if let Some(line) = self.lines.get_mut(usize::from(number.0)) {
            change(line);
        }
    }

    fn with_payment(&mut self, change: impl FnOnce(&mut Payment)) {
        if let Some(payment) = &mut self.payment {
            change(payment);
        }
    }
}

impl Line {
    fn enter(&mut self, stage: LineStage) {
        self.stage = stage;
        self.failed = None;
    }
}

impl Payment {
    fn enter(&mut self, stage: PaymentStage) {
        self.stage = stage;
        self.failed = None;
    }
}

impl Timer {
    /// A timer.
    pub(crate) fn new(name: schemas::TimerName, due_at: Timestamp) -> Self {
        Self { name, due_at }
    }
}
