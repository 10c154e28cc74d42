//! The owner of one partition of `stock-commands`: load, decide, save, answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use domain_types::{MessageId, Sku, Timestamp};
use messaging::{
    Handler, HandlerError, HandlerFactory, LogReader, Output, Outputs, Ownership, Received, Record, Traced,
    Waker,
};
use schemas::{
    DecodeError, Envelope, Message, OrderSagaMessage, StockCommand, StockEvent, StockLevelMessage, Topic,
};
use stock_domain::{Answer, Cause, Item, Stock, StockError, is_wanted};

use crate::CONSUMER_GROUP;
use crate::command;
use crate::levels::LevelWatch;
use crate::metrics::{StockMetrics, Tally};
use crate::store::{Changed, LedgerRow, Needs, StockStore};

/// The most items an owner keeps in memory between batches. A batch may need as many more as it has records.
const CACHED_ITEMS: usize = 20_000;
/// The most levels that are published again in one transaction.
const REPUBLISHED_PER_TRANSACTION: usize = 500;

/// The answer of a command is its first output, a level that it led to its second.
const ANSWER: u32 = 0;
const LEVEL: u32 = 1;

/// Makes a handler for each partition this process takes over.
pub(crate) struct StockHandlers {
    watch: LevelWatch,
    metrics: StockMetrics,
    log: Arc<Mutex<LogReader>>,
}

impl StockHandlers {
    pub(crate) fn new(watch: LevelWatch, metrics: StockMetrics, log: LogReader) -> Self {
        Self { watch, metrics, log: Arc::new(Mutex::new(log)) }
    }
}

impl HandlerFactory for StockHandlers {
    type Handler = StockHandler;

    async fn take_over(&self, ownership: Ownership) -> Result<StockHandler, HandlerError> {
        let Ownership { partition, epoch, waker, .. } = ownership;
        let log = Arc::clone(&self.log);
        let bounds = tokio::task::spawn_blocking(move || {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.bounds(Topic::StockLevels.name(), partition)
        });
        let (_, end) = bounds.await.map_err(HandlerError::transient)?.map_err(HandlerError::transient)?;
        Ok(StockHandler::take_over(partition, epoch, &waker, end, &self.watch, self.metrics.clone()))
    }
}

/// How far the levels have been compared with the database after the take-over.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LevelCheck {
    /// The products behind this one are still to be compared.
    From(Option<Sku>),
    /// All are.
    Done,
}

/// The owner of one partition of `stock-commands`.
pub struct StockHandler {
    partition: i32,
    epoch: i64,
    /// The next ledger row of this ownership.
    ledger_seq: i64,
    /// Whether the transaction in hand writes it.
    ledger_grows: bool,
    /// Items of former batches, as they are in the database; the rest is a batch's.
    stock: Stock,
    watch: LevelWatch,
    check: LevelCheck,
    /// Where `check` will be once the transaction in hand is committed.
    checking: Option<LevelCheck>,
    /// Levels that the transaction in hand publishes again.
    republishing: Vec<Sku>,
    /// What the transaction in hand did.
    tally: Tally,
    metrics: StockMetrics,
    /// This owner's part of the gauge.
    cached_items: usize,
}

impl<S: StockStore> Handler<S> for StockHandler {
    type Input = Envelope<StockCommand>;

    fn decode(&self, record: &Record) -> Result<Self::Input, DecodeError> {
        command::decode(record)
    }

    fn traced(&self, input: &Self::Input) -> Option<Traced> {
        Some(Traced {
            message_id: input.message_id,
            message_type: input.message.type_name(),
            order_id: input.order_id,
        })
    }

    async fn handle(
        &mut self,
        tx: &mut S,
        batch: &[Received<Self::Input>],
        outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        self.forget_last_batch();
        let mut needs = Needs::default();
        for received in batch {
            needs.add(received.input.order_id, &received.input.message);
        }
        tx.load(self.partition, &needs, &mut self.stock).await?;
        let mut changed = Changed::new(LedgerRow { epoch: self.epoch, seq: self.ledger_seq });
        for received in batch {
            let decision = self.decide(received, &mut changed).map_err(|error| {
                if error.is_bad_input() { HandlerError::permanent(error) } else { HandlerError::bug(error) }
            })?;
            if is_wanted(&received.input.message, &decision) {
                outputs.push(answer(&received.input, &received.record, decision));
            }
        }
        tx.save(self.partition, &self.stock, &changed).await?;
        self.ledger_grows = !changed.entries().is_empty();
        for sku in changed.skus() {
            push_level(outputs, self.stock.item(sku));
        }
        Ok(())
    }

    fn next_work(&self) -> Option<Timestamp> {
        let unfinished = matches!(&self.check, LevelCheck::From(Some(_)));
        unfinished.then_some(Timestamp::from_millis(0))
    }

    async fn work(&mut self, tx: &mut S, _now: Timestamp, outputs: &mut Outputs) -> Result<(), HandlerError> {
        self.forget_last_batch();
        self.republishing = self.watch.take_outdated(self.partition, REPUBLISHED_PER_TRANSACTION);
        let mut skus: BTreeSet<Sku> = self.republishing.iter().cloned().collect();
        skus.extend(self.check_levels(tx).await?);
        tx.load_items(self.partition, &skus, &mut self.stock).await?;
        for sku in &skus {
            push_level(outputs, self.stock.item(sku));
        }
        self.tally.republished += skus.len() as u64;
        Ok(())
    }

    fn committed(&mut self) {
        self.ledger_seq += i64::from(std::mem::take(&mut self.ledger_grows));
        self.republishing.clear();
        if let Some(check) = self.checking.take() {
            self.check = check;
        }
        self.metrics.count(&mut self.tally);
        self.show_cached(self.stock.item_count());
    }

    fn rolled_back(&mut self) {
        self.stock = Stock::default();
        self.ledger_grows = false;
        self.tally = Tally::default();
        self.checking = None;
        self.watch.give_back(self.partition, std::mem::take(&mut self.republishing));
        self.show_cached(0);
    }
}

impl StockHandler {
    /// Takes a partition over, whose levels end at `levels_end` in `stock-levels`: nobody else changes its stock from
    /// now on.
    pub fn take_over(
        partition: i32,
        epoch: i64,
        waker: &Waker,
        levels_end: i64,
        watch: &LevelWatch,
        metrics: StockMetrics,
    ) -> Self {
        watch.taken_over(partition, epoch, waker.clone(), levels_end);
        // Look at once, whether the watch has caught up already.
        waker.wake();
        Self {
            partition,
            epoch,
            ledger_seq: 0,
            ledger_grows: false,
            stock: Stock::default(),
            watch: watch.clone(),
            check: LevelCheck::From(None),
            checking: None,
            republishing: Vec::new(),
            tally: Tally::default(),
            metrics,
            cached_items: 0,
        }
    }

    /// Items stay, because only the owner changes them; holds are rarely asked for again soon.
    fn forget_last_batch(&mut self) {
        self.stock.keep_items_only();
        if self.stock.item_count() > CACHED_ITEMS {
            self.stock = Stock::default();
        }
    }

    fn decide(
        &mut self,
        received: &Received<Envelope<StockCommand>>,
        changed: &mut Changed,
    ) -> Result<Answer, StockError> {
        let Received { record, input } = received;
        let cause = Cause { message_id: input.message_id, offset: record.offset.0, at: record.time };
        let decision = self.stock.decide(input.order_id, &input.message, cause)?;
        changed.note(&self.stock, &decision);
        self.stock.evolve(&decision)?;
        self.tally.note(&decision);
        Ok(decision.answer)
    }

    /// After a take-over: the products whose last level in the topic is older than the database. A level under way
    /// counts as missing; publishing it again does no harm.
    async fn check_levels(&mut self, tx: &mut impl StockStore) -> Result<Vec<Sku>, HandlerError> {
        let LevelCheck::From(after) = &self.check else { return Ok(Vec::new()) };
        if !self.watch.has_caught_up(self.partition) {
            return Ok(Vec::new());
        }
        let limit = REPUBLISHED_PER_TRANSACTION as i64;
        let page = tx.item_versions(self.partition, after.as_ref(), limit).await?;
        let last = page.last().map(|(sku, _)| sku.clone());
        let more = page.len() == REPUBLISHED_PER_TRANSACTION;
        self.checking = Some(if more { LevelCheck::From(last) } else { LevelCheck::Done });
        let outdated = page.into_iter().filter(|(sku, version)| self.watch.last_seen(sku) < *version);
        Ok(outdated.map(|(sku, _)| sku).collect())
    }

    fn show_cached(&mut self, items: usize) {
        let count = |items: usize| i64::try_from(items).unwrap_or(i64::MAX);
        self.metrics.cached_items.add(count(items) - count(self.cached_items));
        self.cached_items = items;
    }
}

impl Drop for StockHandler {
    fn drop(&mut self) {
        self.watch.left(self.partition, self.epoch);
        self.show_cached(0);
    }
}

/// The answer to a command, for its saga or its admin.
fn answer(command: &Envelope<StockCommand>, record: &Record, answer: Answer) -> Output {
    let output = match answer {
        Answer::Saga(order_id, message) => {
            let reply: Envelope<OrderSagaMessage> = Envelope {
                message_id: MessageId::caused_by(command.message_id, ANSWER),
                order_id: Some(order_id),
                causation_id: Some(command.message_id),
                occurred_at: record.time,
                message,
            };
            Output::new(Topic::OrderSaga, order_id.to_string(), &reply)
        }
        Answer::Admin(message) => {
            let event: Envelope<StockEvent> = Envelope {
                message_id: MessageId::caused_by(command.message_id, ANSWER),
                order_id: None,
                causation_id: Some(command.message_id),
                occurred_at: record.time,
                message,
            };
            Output::new(Topic::StockEvents, command::sku_of(&command.message).as_str(), &event)
        }
    };
    output.traceparent(record.onward(CONSUMER_GROUP, command.message_id).as_deref())
}

/// Publishes an item's level. It depends on the item alone: the same version is the same message.
fn push_level(outputs: &mut Outputs, item: Option<&Item>) {
    let Some(item) = item else { return };
    let level: Envelope<StockLevelMessage> = Envelope {
        message_id: MessageId::caused_by(item.cause, LEVEL),
        order_id: None,
        causation_id: Some(item.cause),
        occurred_at: item.updated_at,
        message: item.level().into(),
    };
    outputs.push(Output::new(Topic::StockLevels, item.sku.as_str(), &level));
}
