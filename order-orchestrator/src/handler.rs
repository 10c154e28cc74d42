//! The owner of one partition of `order-saga`: load, decide, save, publish; fire due timers.

use std::collections::HashSet;

use domain_types::{OrderId, Timestamp};
use messaging::{Handler, HandlerError, HandlerFactory, Outputs, Ownership, Received, Record, wall_clock};
use schemas::DecodeError;

use crate::batch::Batch;
use crate::cache::Cache;
use crate::messages::{self, SagaInput, timer_fired};
use crate::metrics::{SagaMetrics, Tally};
use crate::store::SagaStore;
use crate::timers::Timers;

/// The most timers that are fired in one transaction.
const TIMERS_PER_TRANSACTION: u32 = 500;

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
        let mut connection = ownership.pool.acquire().await?;
        let (partition, metrics) = (ownership.partition, self.metrics.clone());
        SagaHandler::take_over(&mut *connection, partition, self.cached_sagas, metrics, wall_clock).await
    }
}

/// The owner of one partition of `order-saga`.
pub struct SagaHandler {
    partition: i32,
    /// Sagas of former batches, as they are in the database.
    cache: Cache,
    /// The batch of the transaction in hand.
    batch: Option<Batch>,
    timers: Timers,
    /// What the transaction in hand did.
    tally: Tally,
    metrics: SagaMetrics,
    /// This owner's part of the gauge.
    shown_cached: i64,
}

impl<S: SagaStore> Handler<S> for SagaHandler {
    type Input = SagaInput;

    fn decode(&self, record: &Record) -> Result<SagaInput, DecodeError> {
        messages::decode(record)
    }

    async fn handle(
        &mut self,
        tx: &mut S,
        received: &[Received<SagaInput>],
        outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        let mut batch = Batch::default();
        let mut unknown = Vec::new();
        let orders: HashSet<OrderId> = received.iter().map(|received| received.input.order_id).collect();
        for order_id in orders {
            match self.cache.take(order_id) {
                Some(saga) => batch.load(order_id, saga),
                None => unknown.push(order_id),
            }
        }
        for (order_id, saga) in tx.load(self.partition, &unknown).await? {
            batch.load(order_id, saga);
        }
        for received in received {
            batch.apply(received, outputs, &mut self.timers, &mut self.tally)?;
        }
        if let Some(due_at) = tx.save(self.partition, &batch).await? {
            self.timers.armed(due_at);
        }
        self.batch = Some(batch);
        Ok(())
    }

    fn next_work(&self) -> Option<Timestamp> {
        self.timers.next_work()
    }

    async fn work(&mut self, tx: &mut S, now: Timestamp, outputs: &mut Outputs) -> Result<(), HandlerError> {
        let due = tx.take_due(self.partition, now, TIMERS_PER_TRANSACTION).await?;
        for (order_id, timer) in due {
            outputs.push(timer_fired(order_id, timer));
            self.tally.fired(timer.name);
        }
        self.timers.looked(tx.next_due_at(self.partition).await?);
        Ok(())
    }

    fn committed(&mut self) {
        for (order_id, saga) in self.batch.take().into_iter().flat_map(Batch::into_sagas) {
            self.cache.put(order_id, saga);
        }
        self.timers.committed();
        self.metrics.count(&mut self.tally);
        self.show_cached();
    }

    fn rolled_back(&mut self) {
        self.batch = None;
        self.cache.clear();
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
        Ok(Self {
            partition,
            cache: Cache::new(cached_sagas),
            batch: None,
            timers: Timers::new(store.next_due_at(partition).await?, clock),
            tally: Tally::default(),
            metrics,
            shown_cached: 0,
        })
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
