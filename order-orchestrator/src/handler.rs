//! The owner of one partition of `order-saga`: load, decide, save, publish; fire due timers.

use std::collections::BTreeSet;
use std::time::Duration;

use domain_types::{OrderId, Timestamp};
use messaging::{
    Handler, HandlerError, HandlerFactory, Outputs, Ownership, Received, Record, Traced, Tx, wall_clock,
};
use schemas::{DecodeError, Message};

use crate::batch::{Batch, Decided};
use crate::cache::{Cache, Known};
use crate::history::HistorySeq;
use crate::messages::{self, SagaInput, timer_fired};
use crate::metrics::{SagaMetrics, Tally};
use crate::store::SagaStore;
use crate::timers::Timers;

/// The most timers that are fired in one transaction.
const TIMERS_PER_TRANSACTION: u32 = 500;
/// How long a saga's history is ahead of its row at least: most orders come to rest within this time, and are written once.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// After how long it is saved at the latest: those in between go with the oldest, so that a quiet partition does not have a
/// transaction for each.
const SAVE_BY: Duration = Duration::from_millis(1_500);
/// The most sagas that are saved in one transaction, those with due timers aside.
const SAVED_PER_TRANSACTION: usize = 1_000;
/// With more than this many unsaved sagas the owner saves without waiting: a successor has to fold their history again.
const UNSAVED_AT_MOST: usize = 10_000;

/// Makes a handler for each partition this process takes over.
pub(crate) struct SagaHandlers {
    metrics: SagaMetrics,
    cached_sagas: usize,
}

impl SagaHandlers {
    pub(crate) fn new(metrics: SagaMetrics, cached_sagas: usize) -> Self {
        Self { metrics, cached_sagas }
    }
}

impl HandlerFactory for SagaHandlers {
    type Handler = SagaHandler;

    async fn take_over(&self, ownership: Ownership) -> Result<SagaHandler, HandlerError> {
        let mut tx = Tx::open(&ownership.pool).await?;
        let (partition, metrics) = (ownership.partition, self.metrics.clone());
        SagaHandler::take_over(&mut tx, partition, self.cached_sagas, metrics, wall_clock).await
    }
}

/// The owner of one partition of `order-saga`.
pub struct SagaHandler {
    partition: i32,
    /// Sagas of former batches.
    cache: Cache,
    /// The last history that is committed.
    seq: HistorySeq,
    /// The sagas that the transaction in hand saves.
    saving: Option<BTreeSet<OrderId>>,
    /// The batch of the transaction in hand.
    batch: Option<Batch>,
    timers: Timers,
    /// What the transaction in hand did.
    tally: Tally,
    metrics: SagaMetrics,
    /// This machine's.
    clock: fn() -> Timestamp,
    /// This owner's part of the gauge.
    shown_cached: i64,
}

impl<S: SagaStore> Handler<S> for SagaHandler {
    type Input = SagaInput;

    fn decode(&self, record: &Record) -> Result<SagaInput, DecodeError> {
        messages::decode(record)
    }

    fn traced(&self, input: &SagaInput) -> Option<Traced> {
        Some(Traced {
            message_id: input.message_id,
            message_type: input.message.type_name(),
            order_id: Some(input.order_id),
        })
    }

    async fn handle(
        &mut self,
        tx: &mut S,
        received: &[Received<SagaInput>],
        outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        let mut batch = Batch::default();
        let mut unknown = Vec::new();
        let orders: BTreeSet<OrderId> = received.iter().map(|received| received.input.order_id).collect();
        for order_id in orders {
            match self.cache.take(order_id) {
                Some(known) => batch.load(order_id, known),
                None => unknown.push(order_id),
            }
        }
        for row in tx.load(self.partition, &unknown).await? {
            batch.load(row.order_id, Known { saga: row.saga, is_stored: true });
        }
        for received in received {
            batch.apply(received, outputs, &mut self.timers, &mut self.tally)?;
        }
        if !batch.entries().is_empty() {
            tx.append_history(self.partition, self.seq.next(), batch.entries()).await?;
        }
        if let Some(due_at) = batch.earliest_timer() {
            self.timers.armed(due_at);
        }
        self.batch = Some(batch);
        Ok(())
    }

    fn next_work(&self) -> Option<Timestamp> {
        let at_once = (self.cache.unsaved_len() > UNSAVED_AT_MOST).then_some(Timestamp::from_millis(0));
        let save = at_once.or_else(|| self.cache.unsaved_since().map(|since| since.plus(SAVE_BY)));
        self.timers.next_work().into_iter().chain(save).min()
    }

    async fn work(&mut self, tx: &mut S, now: Timestamp, outputs: &mut Outputs) -> Result<(), HandlerError> {
        let look = self.timers.next_work().is_some_and(|due_at| due_at <= now);
        // Rows of which a timer may be due must be the present ones.
        let saving = self.save(tx, now, look).await?;
        if look {
            let due = tx.take_due(self.partition, now, TIMERS_PER_TRANSACTION).await?;
            for (order_id, timer) in due {
                // The row is not the present one: its saga was not saved because its timer is not due any more.
                let is_outdated = self.cache.unsaved(order_id).is_some() && !saving.contains(&order_id);
                if !is_outdated {
                    outputs.push(timer_fired(order_id, timer));
                    self.tally.fired(timer.name);
                }
            }
            let stored = tx.next_due_at(self.partition).await?;
            self.timers.looked(stored.into_iter().chain(self.cache.earliest_timer_without(&saving)).min());
        }
        self.saving = Some(saving);
        Ok(())
    }

    fn committed(&mut self) {
        if let Some(batch) = self.batch.take() {
            if !batch.entries().is_empty() {
                self.seq = self.seq.next();
            }
            let now = (self.clock)();
            for decided in batch.into_decided() {
                let Decided { order_id, saga, is_stored, is_changed } = decided;
                if is_changed {
                    self.cache.changed(order_id, saga, is_stored, self.seq, now);
                } else {
                    self.cache.put(order_id, saga);
                }
            }
        }
        if let Some(saved) = self.saving.take() {
            self.cache.saved(saved);
        }
        self.timers.committed();
        self.metrics.count(&mut self.tally);
        self.show_cached();
    }

    fn rolled_back(&mut self) {
        // What is unsaved was only copied; what was clean is in its row.
        self.batch = None;
        self.saving = None;
        self.timers.rolled_back();
        self.tally = Tally::default();
        self.show_cached();
    }
}

impl SagaHandler {
    /// Takes a partition over: nobody else changes its sagas from now on. `clock` is this machine's.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn take_over(
        store: &mut impl SagaStore,
        partition: i32,
        cached_sagas: usize,
        metrics: SagaMetrics,
        clock: fn() -> Timestamp,
    ) -> Result<Self, HandlerError> {
        let ahead = store.ahead(partition).await?;
        let entries = ahead.batches.iter().flat_map(|(_, entries)| entries);
        let orders: BTreeSet<OrderId> = entries.map(|entry| entry.order_id).collect();
        let rows = store.load(partition, &Vec::from_iter(orders)).await?;
        let mut cache = Cache::new(cached_sagas);
        cache.recover(rows, ahead.batches, clock());
        let stored = store.next_due_at(partition).await?;
        let next_due_at = stored.into_iter().chain(cache.earliest_timer_without(&BTreeSet::new())).min();
        Ok(Self {
            partition,
            cache,
            seq: ahead.last,
            saving: None,
            batch: None,
            timers: Timers::new(next_due_at, clock),
            tally: Tally::default(),
            metrics,
            clock,
            shown_cached: 0,
        })
    }

    /// Saves the sagas whose rows have been behind for long enough and, with `due`, those with a due timer.
    async fn save(
        &self,
        tx: &mut impl SagaStore,
        now: Timestamp,
        due: bool,
    ) -> Result<BTreeSet<OrderId>, HandlerError> {
        let many = self.cache.unsaved_len() > UNSAVED_AT_MOST;
        let before = if many { now } else { now.minus(SAVE_AFTER) };
        let saving = self.cache.to_save(before, SAVED_PER_TRANSACTION, due.then_some(now));
        if !saving.is_empty() {
            let left = self.cache.first_unsaved_without(&saving);
            let checkpoint = left.map_or(self.seq, HistorySeq::previous);
            let unsaved = |order_id: &OrderId| Some((*order_id, self.cache.unsaved(*order_id)?));
            let sagas: Vec<_> = saving.iter().filter_map(unsaved).collect();
            tx.save(self.partition, &sagas, self.seq, checkpoint).await?;
        }
        Ok(saving)
    }

    fn show_cached(&mut self) {
        let cached = i64::try_from(self.cache.len()).unwrap_or(i64::MAX);
        self.metrics.cached.add(cached - self.shown_cached);
        self.shown_cached = cached;
    }
}

impl Drop for SagaHandler {
    fn drop(&mut self) {
        self.metrics.cached.sub(self.shown_cached);
    }
}
