//! The owner of one partition of `payment-commands`: load, decide, save, answer, and call the provider after the commit.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use domain_types::{OrderId, Timestamp};
use messaging::{
    Handler, HandlerError, HandlerFactory, Output, Outputs, Ownership, Received, Record, Traced, wall_clock,
};
use payment_domain::{Charge, Decision, Movement, PaymentRecord, Policy, Reply, answered, decide};
use schemas::{DecodeError, Envelope, Message, OrderSagaMessage, Topic};

use crate::calls::{Answered, Calls, Line};
use crate::command::{self, Command};
use crate::metrics::Tally;
use crate::provider::Provider;
use crate::store::{Change, Changes, LedgerRow, PaymentStore, Stored, Table};

/// Most provider answers of one transaction.
const ANSWERS_PER_TRANSACTION: usize = 1_000;
/// Calls due within this time are taken in hand; later ones stay in their rows until then.
const NEAR: Duration = Duration::from_secs(1);

/// Makes a handler for each partition this process takes over.
pub(crate) struct PaymentHandlers<P> {
    pub(crate) line: Arc<Line<P>>,
    pub(crate) policy: Policy,
    /// Most charges of a partition whose call is in memory.
    pub(crate) calls_in_memory: usize,
}

impl<P: Provider> HandlerFactory for PaymentHandlers<P> {
    type Handler = PaymentHandler<P>;

    async fn take_over(&self, ownership: Ownership) -> Result<PaymentHandler<P>, HandlerError> {
        let Ownership { partition, epoch, waker, .. } = ownership;
        let calls = Calls::new(Arc::clone(&self.line), self.calls_in_memory, waker, wall_clock);
        Ok(PaymentHandler::take_over(partition, epoch, self.policy, calls))
    }
}

/// What is known about pending calls that are in their rows only.
#[derive(Debug, Clone, Copy)]
struct Rows {
    /// The earliest of them is due then.
    look_at: Option<Timestamp>,
    /// Some that are due did not fit in memory.
    starved: bool,
}

impl Rows {
    fn left(&mut self, at: Timestamp) {
        self.look_at = Some(self.look_at.map_or(at, |known| known.min(at)));
    }
}

/// What the transaction in hand does, until its commit.
#[derive(Default)]
struct Staged {
    /// Records as they will be.
    records: BTreeMap<OrderId, PaymentRecord>,
    /// Where the rows of those are that have one.
    stored: HashMap<OrderId, Table>,
    changed: HashSet<OrderId>,
    movements: Vec<Movement>,
    /// How many of the handler's answers it applies.
    answers: usize,
    rows: Option<Rows>,
    tally: Tally,
}

impl Staged {
    /// The records that changed.
    fn changes(&self) -> Changes<'_> {
        let change = |order_id| {
            let record = self.records.get(order_id)?;
            Some(Change { record, was: self.stored.get(order_id).copied() })
        };
        Changes { records: self.changed.iter().filter_map(change).collect(), ledger: None }
    }
}

/// The owner of one partition of `payment-commands`.
pub struct PaymentHandler<P> {
    partition: i32,
    epoch: i64,
    policy: Policy,
    calls: Calls<P>,
    /// Answers that are not yet committed, in the order they came.
    answers: Vec<Answered>,
    rows: Rows,
    /// The next ledger row of this ownership.
    ledger_seq: i64,
    staged: Staged,
}

impl<P: Provider, S: PaymentStore> Handler<S> for PaymentHandler<P> {
    type Input = Command;

    fn decode(&self, record: &Record) -> Result<Command, DecodeError> {
        command::decode(record)
    }

    fn traced(&self, input: &Command) -> Option<Traced> {
        Some(Traced {
            message_id: input.cause.message_id,
            message_type: input.message.type_name(),
            order_id: Some(input.order_id),
        })
    }

    async fn handle(
        &mut self,
        tx: &mut S,
        batch: &[Received<Command>],
        outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        self.staged = Staged::default();
        let orders = batch.iter().map(|received| received.input.order_id);
        if let Some((order_id, why)) = self.load(tx, orders).await?.first() {
            return Err(HandlerError::bug(format!(
                "order {order_id}: the stored charge is unreadable: {why}"
            )));
        }
        for received in batch {
            let Command { order_id, cause, message } = &received.input;
            let known = self.staged.records.get(order_id);
            let decision = decide(known, *order_id, message, cause);
            self.stage(*order_id, decision, outputs);
        }
        tx.save(self.partition, &self.staged.changes()).await
    }

    fn next_work(&self) -> Option<Timestamp> {
        let at_once = Timestamp::from_millis(0);
        if !self.answers.is_empty() || self.calls.has_answers() {
            return Some(at_once);
        }
        if self.rows.starved {
            return self.calls.has_much_room().then_some(at_once);
        }
        self.rows.look_at
    }

    async fn work(&mut self, tx: &mut S, now: Timestamp, outputs: &mut Outputs) -> Result<(), HandlerError> {
        self.staged = Staged::default();
        self.calls.take_answers(&mut self.answers, ANSWERS_PER_TRANSACTION);
        self.apply_answers(tx, outputs).await?;
        let movements = &self.staged.movements;
        let row = LedgerRow { epoch: self.epoch, seq: self.ledger_seq, recorded_at: now, movements };
        let ledger = (!movements.is_empty()).then_some(row);
        tx.save(self.partition, &Changes { ledger, ..self.staged.changes() }).await?;
        let look = if self.rows.starved {
            self.calls.has_much_room()
        } else {
            self.rows.look_at.is_some_and(|at| at <= now)
        };
        if look {
            self.look_at_rows(tx, now).await?;
        }
        Ok(())
    }

    fn committed(&mut self) {
        let mut staged = std::mem::take(&mut self.staged);
        self.answers.drain(..staged.answers.min(self.answers.len()));
        if !staged.movements.is_empty() {
            self.ledger_seq += 1;
        }
        if let Some(rows) = staged.rows {
            self.rows = rows;
        }
        let now = self.calls.now();
        for record in staged.records.values() {
            match record {
                PaymentRecord::Barred { .. } => {}
                PaymentRecord::Charge(charge) => self.go_on(charge, now),
            }
        }
        self.calls.metrics().count(&mut staged.tally);
    }

    fn rolled_back(&mut self) {
        self.staged = Staged::default();
    }
}

impl<P: Provider> PaymentHandler<P> {
    /// Takes a partition over: nobody else changes its charges from now on.
    pub fn take_over(partition: i32, epoch: i64, policy: Policy, calls: Calls<P>) -> Self {
        Self {
            partition,
            epoch,
            policy,
            calls,
            answers: Vec::new(),
            // The predecessor's calls, whose answers nobody has seen.
            rows: Rows { look_at: Some(Timestamp::from_millis(0)), starved: false },
            ledger_seq: 0,
            staged: Staged::default(),
        }
    }

    /// Brings the orders into `staged.records`, from memory or from their rows; returns those that can't be read.
    async fn load(
        &mut self,
        tx: &mut impl PaymentStore,
        orders: impl Iterator<Item = OrderId>,
    ) -> Result<Vec<(OrderId, String)>, HandlerError> {
        let mut missing = HashSet::new();
        for order_id in orders {
            if let Entry::Vacant(entry) = self.staged.records.entry(order_id) {
                match self.calls.charge(order_id) {
                    Some(charge) => {
                        let record = entry.insert(PaymentRecord::Charge(charge.clone()));
                        self.staged.stored.insert(order_id, Table::of(record));
                    }
                    None => {
                        missing.insert(order_id);
                    }
                }
            }
        }
        let missing: Vec<_> = missing.into_iter().collect();
        let mut unreadable = Vec::new();
        for (order_id, stored) in tx.load(self.partition, &missing).await? {
            match stored {
                Stored::Record(record) => {
                    self.staged.stored.insert(order_id, Table::of(&record));
                    self.staged.records.insert(order_id, record);
                }
                Stored::Unreadable(why) => unreadable.push((order_id, why)),
            }
        }
        Ok(unreadable)
    }

    /// Takes note of a decision.
    fn stage(&mut self, order_id: OrderId, decision: Decision, outputs: &mut Outputs) {
        if let Some(record) = decision.record {
            self.staged.records.insert(order_id, record);
            self.staged.changed.insert(order_id);
        }
        for reply in &decision.replies {
            self.staged.tally.note(reply);
            outputs.push(output(order_id, reply));
        }
        self.staged.movements.extend(decision.movement);
        if decision.contradiction {
            tracing::error!(%order_id, "the provider contradicted itself about this charge");
            self.staged.tally.contradictions += 1;
        }
    }

    async fn apply_answers(
        &mut self,
        tx: &mut impl PaymentStore,
        outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        let orders: Vec<OrderId> = self.answers.iter().map(|answered| answered.order_id).collect();
        for (order_id, why) in self.load(tx, orders.into_iter()).await? {
            tracing::error!(%order_id, why, "a provider's answer is for a charge that can't be read");
        }
        let answers = std::mem::take(&mut self.answers);
        for Answered { order_id, number, answer, asked_at } in &answers {
            let Some(PaymentRecord::Charge(charge)) = self.staged.records.get(order_id) else { continue };
            let decision = answered(charge, *number, answer, *asked_at, &self.policy);
            self.stage(*order_id, decision, outputs);
        }
        self.staged.answers = answers.len();
        self.answers = answers;
        Ok(())
    }

    /// Brings charges whose call is due, or will soon be, into memory.
    async fn look_at_rows(&mut self, tx: &mut impl PaymentStore, now: Timestamp) -> Result<(), HandlerError> {
        let until = now.plus(NEAR);
        // What this transaction has changed is placed by its commit.
        let known = self.calls.orders().chain(self.staged.records.keys().copied());
        let known: Vec<OrderId> = known.collect();
        let room = self.calls.room();
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        let pending = tx.load_pending(self.partition, until, &known, limit).await?;
        let starved = pending.len() >= room;
        let look_at = tx.next_call_after(self.partition, until).await?;
        self.staged.rows = Some(Rows { look_at, starved });
        for (order_id, stored) in pending {
            match stored {
                Stored::Record(record) => {
                    self.staged.records.insert(order_id, record);
                }
                Stored::Unreadable(why) => {
                    tracing::error!(%order_id, why, "a charge with a pending call can't be read");
                }
            }
        }
        Ok(())
    }

    /// Starts the next call of a committed charge, or leaves it to its row.
    fn go_on(&mut self, charge: &Charge, now: Timestamp) {
        let next = charge.next_call();
        let later = next.as_ref().and_then(|call| call.not_before).filter(|at| *at > now.plus(NEAR));
        if let Some(at) = later {
            self.calls.let_go(charge.order_id);
            self.rows.left(at);
        } else if !self.calls.place(charge, next) {
            self.rows.starved = true;
        }
    }
}

/// A reply for the order's saga.
fn output(order_id: OrderId, reply: &Reply) -> Output {
    let envelope: Envelope<OrderSagaMessage> = Envelope {
        message_id: reply.message_id(),
        order_id: Some(order_id),
        causation_id: Some(reply.cause.message_id),
        occurred_at: reply.cause.time,
        message: reply.message(),
    };
    Output::new(Topic::OrderSaga, order_id.to_string(), &envelope)
        .traceparent(reply.cause.traceparent.as_deref())
}
