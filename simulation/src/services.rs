//! The three services: their real handlers on tables in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use domain_types::{OrderId, RequestId, Sku, Timestamp};
use messaging::{HandlerError, Record, Waker};
use order_orchestrator::history::{HistoryEntry, HistorySeq};
use order_orchestrator::{Ahead, SagaHandler, SagaMetrics, SagaStore, StoredSaga, Unsaved};
use payment_domain::{Movement, PaymentRecord, Policy};
use payment_worker::{Calls, LedgerKey, Line, PaymentHandler, PaymentMetrics, PaymentStore, Stored};
use prometheus::Registry;
use saga::{Saga, Timer};
use schemas::Topic;
use stock_domain::{Change, Entry, Hold, HoldKey, HoldStatus, Item, Stock};
use stock_worker::{Changed, LevelWatch, Needs, StockHandler, StockMetrics, StockStore};

use crate::database::Tx;
use crate::planted::Planted;
use crate::ports::Service;
use crate::provider::{LATE_REQUEST_MS, VirtualProvider};
use crate::world::{Shared, World, lock, wall_clock};

/// Metrics of all schedules; nobody reads them.
#[expect(clippy::expect_used, reason = "a registry of their own has no other names")]
fn metrics() -> &'static (SagaMetrics, StockMetrics, PaymentMetrics) {
    static METRICS: OnceLock<(SagaMetrics, StockMetrics, PaymentMetrics)> = OnceLock::new();
    METRICS.get_or_init(|| {
        let registry = Registry::new();
        let saga = SagaMetrics::register(&registry).expect("its names are its own");
        let stock = StockMetrics::register(&registry).expect("its names are its own");
        (saga, stock, PaymentMetrics::register(&registry).expect("its names are its own"))
    })
}

fn exists(what: impl std::fmt::Display) -> HandlerError {
    HandlerError::permanent(format!("unique violation: {what}"))
}

/// A saga's row.
#[derive(Debug, Clone)]
pub(crate) struct SagaRow {
    pub(crate) saga: Saga,
    pub(crate) next_due: Option<Timer>,
    seq: HistorySeq,
}

/// The orchestrator's tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct SagaTables {
    pub(crate) sagas: BTreeMap<(i32, OrderId), SagaRow>,
    pub(crate) history: BTreeMap<(i32, HistorySeq), Vec<HistoryEntry>>,
    checkpoints: BTreeMap<i32, HistorySeq>,
}

impl SagaTables {
    fn checkpoint(&self, partition: i32) -> HistorySeq {
        self.checkpoints.get(&partition).copied().unwrap_or_default()
    }

    /// Whether every row holds all history.
    pub(crate) fn is_saved(&self) -> bool {
        self.history.keys().all(|(partition, seq)| *seq <= self.checkpoint(*partition))
    }
}

/// The orchestrator.
pub(crate) struct Orchestrator;

impl Service for Orchestrator {
    type Tables = SagaTables;
    type Handler = SagaHandler;
    type Process = SagaMetrics;

    const TOPIC: Topic = Topic::OrderSaga;
    const GROUP: &'static str = order_orchestrator::CONSUMER_GROUP;

    fn process(_world: &Shared<World>) -> SagaMetrics {
        metrics().0.clone()
    }

    async fn begin(
        process: &SagaMetrics,
        tx: &mut Tx<SagaTables>,
        partition: i32,
        _epoch: i64,
        _waker: &Waker,
    ) -> Result<SagaHandler, HandlerError> {
        SagaHandler::take_over(tx, partition, 6, process.clone(), wall_clock).await
    }
}

impl SagaStore for Tx<SagaTables> {
    async fn load(&mut self, partition: i32, orders: &[OrderId]) -> Result<Vec<StoredSaga>, HandlerError> {
        self.control.point().await;
        Ok(self.read(|tables| {
            let row = |order_id: &OrderId| {
                let row = tables.sagas.get(&(partition, *order_id))?;
                Some(StoredSaga { order_id: *order_id, saga: row.saga.clone(), seq: row.seq })
            };
            orders.iter().filter_map(row).collect()
        }))
    }

    async fn append_history(
        &mut self,
        partition: i32,
        seq: HistorySeq,
        entries: &[HistoryEntry],
    ) -> Result<(), HandlerError> {
        let (key, entries) = ((partition, seq), entries.to_vec());
        if self.read(|tables| tables.history.contains_key(&key)) {
            return Err(exists(format!("history {seq:?}")));
        }
        self.write(|tables| {
            tables.history.insert(key, entries);
            Box::new(move |tables| {
                tables.history.remove(&key);
            })
        });
        Ok(())
    }

    async fn ahead(&mut self, partition: i32) -> Result<Ahead, HandlerError> {
        self.control.point().await;
        Ok(self.read(|tables| {
            let checkpoint = tables.checkpoint(partition);
            let behind = tables.history.range((partition, checkpoint.next())..(partition + 1, HistorySeq(0)));
            let batches: Vec<_> = behind.map(|((_, seq), entries)| (*seq, entries.clone())).collect();
            let last = batches.last().map_or(checkpoint, |(seq, _)| *seq);
            Ahead { batches, last }
        }))
    }

    async fn save(
        &mut self,
        partition: i32,
        sagas: &[(OrderId, &Unsaved)],
        seq: HistorySeq,
        checkpoint: HistorySeq,
    ) -> Result<(), HandlerError> {
        let planted = self.planted();
        for (order_id, unsaved) in sagas {
            let (key, saga) = ((partition, *order_id), unsaved.saga.clone());
            let before = self.read(|tables| tables.sagas.get(&key).cloned());
            if unsaved.is_new && before.is_some() {
                return Err(exists(order_id));
            }
            if !unsaved.is_new && before.is_none() {
                continue;
            }
            let mut next_due = saga.timer;
            if planted == Some(Planted::TimerNotArmedAgain)
                && before.as_ref().is_some_and(|row| row.next_due.is_none() && row.saga.timer == saga.timer)
            {
                next_due = None;
            }
            self.write(|tables| {
                tables.sagas.insert(key, SagaRow { saga, next_due, seq });
                Box::new(move |tables| {
                    match before {
                        Some(row) => tables.sagas.insert(key, row),
                        None => tables.sagas.remove(&key),
                    };
                })
            });
        }
        self.write(|tables| {
            let before = tables.checkpoints.insert(partition, checkpoint);
            Box::new(move |tables| {
                match before {
                    Some(before) => tables.checkpoints.insert(partition, before),
                    None => tables.checkpoints.remove(&partition),
                };
            })
        });
        Ok(())
    }

    async fn take_due(
        &mut self,
        partition: i32,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<(OrderId, Timer)>, HandlerError> {
        let mut due: Vec<(OrderId, Timer)> = self.read(|tables| {
            let rows = tables.sagas.iter().filter(|((of, _), _)| *of == partition);
            rows.filter_map(|((_, order_id), row)| Some((*order_id, row.next_due?)))
                .filter(|(_, timer)| timer.due_at <= now)
                .collect()
        });
        due.sort_by_key(|(_, timer)| timer.due_at);
        due.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        for (order_id, timer) in due.clone() {
            let key = (partition, order_id);
            let set = move |tables: &mut SagaTables, next_due| {
                if let Some(row) = tables.sagas.get_mut(&key) {
                    row.next_due = next_due;
                }
            };
            self.write(|tables| {
                set(tables, None);
                Box::new(move |tables| set(tables, Some(timer)))
            });
        }
        Ok(due)
    }

    async fn next_due_at(&mut self, partition: i32) -> Result<Option<Timestamp>, HandlerError> {
        Ok(self.read(|tables| {
            let rows = tables.sagas.iter().filter(|((of, _), _)| *of == partition);
            rows.filter_map(|(_, row)| Some(row.next_due?.due_at)).min()
        }))
    }
}

/// The stock worker's tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct StockTables {
    pub(crate) items: BTreeMap<(i32, Sku), Item>,
    pub(crate) holds: BTreeMap<(i32, HoldKey), Hold>,
    pub(crate) changes: BTreeMap<(i32, RequestId), Change>,
    pub(crate) ledger: BTreeMap<(i32, Sku), Vec<Entry>>,
}

/// The stock worker.
pub(crate) struct StockWorker;

#[derive(Clone)]
pub(crate) struct StockProcess {
    pub(crate) watch: LevelWatch,
    pub(crate) metrics: StockMetrics,
}

impl Service for StockWorker {
    type Tables = StockTables;
    type Handler = StockHandler;
    type Process = StockProcess;

    const TOPIC: Topic = Topic::StockCommands;
    const GROUP: &'static str = stock_worker::CONSUMER_GROUP;
    const TAIL: Option<Topic> = Some(Topic::StockLevels);

    fn process(_world: &Shared<World>) -> StockProcess {
        StockProcess { watch: LevelWatch::default(), metrics: metrics().1.clone() }
    }

    fn observe(process: &StockProcess, record: &Record) {
        process.watch.observe(record);
    }

    async fn begin(
        process: &StockProcess,
        tx: &mut Tx<StockTables>,
        partition: i32,
        epoch: i64,
        waker: &Waker,
    ) -> Result<StockHandler, HandlerError> {
        let end = lock(&tx.world).end(Topic::StockLevels, partition);
        Ok(StockHandler::take_over(partition, epoch, waker, end, &process.watch, process.metrics.clone()))
    }
}

impl StockStore for Tx<StockTables> {
    async fn load(&mut self, partition: i32, needs: &Needs, stock: &mut Stock) -> Result<(), HandlerError> {
        self.control.point().await;
        self.read(|tables| {
            for sku in needs.skus().filter(|sku| stock.item(sku).is_none()).cloned().collect::<Vec<_>>() {
                if let Some(item) = tables.items.get(&(partition, sku)) {
                    stock.load_item(item.clone());
                }
            }
            for order_id in needs.orders() {
                for ((of, key), hold) in &tables.holds {
                    if *of == partition && key.order_id == order_id {
                        stock.load_hold(*key, hold.clone());
                    }
                }
            }
            for request_id in needs.requests() {
                if let Some(change) = tables.changes.get(&(partition, request_id)) {
                    stock.load_change(request_id, change.clone());
                }
            }
            for (sku, customer_id) in needs.counted_customers(stock).cloned().collect::<Vec<_>>() {
                let theirs = |hold: &&Hold| {
                    hold.sku == sku && hold.asked.is_some_and(|asked| asked.customer_id == customer_id)
                };
                let holds = tables.holds.iter().filter(|((of, _), _)| *of == partition);
                let units = holds.map(|(_, hold)| hold).filter(theirs).map(Hold::counted_units).sum();
                stock.load_customer_units(sku, customer_id, units);
            }
        });
        Ok(())
    }

    async fn load_items(
        &mut self,
        partition: i32,
        skus: &std::collections::BTreeSet<Sku>,
        stock: &mut Stock,
    ) -> Result<(), HandlerError> {
        self.read(|tables| {
            for sku in skus {
                if stock.item(sku).is_none()
                    && let Some(item) = tables.items.get(&(partition, sku.clone()))
                {
                    stock.load_item(item.clone());
                }
            }
        });
        Ok(())
    }

    async fn save(&mut self, partition: i32, stock: &Stock, changed: &Changed) -> Result<(), HandlerError> {
        let planted = self.planted();
        let not_as_loaded = || HandlerError::transient("the stored stock is not what was loaded");
        for (request_id, change) in changed.changes() {
            let (key, change) = ((partition, *request_id), change.clone());
            if self.read(|tables| tables.changes.contains_key(&key)) {
                return Err(exists(request_id));
            }
            self.write(|tables| {
                tables.changes.insert(key, change);
                Box::new(move |tables| {
                    tables.changes.remove(&key);
                })
            });
        }
        for item in changed.items() {
            let key = (partition, item.sku.clone());
            let before = self.read(|tables| tables.items.get(&key).cloned());
            if before.as_ref().map_or(0, |item| item.version) != item.before {
                return Err(not_as_loaded());
            }
            let Some(after) = stock.item(&item.sku).cloned() else { return Err(not_as_loaded()) };
            let (entries, added) = (item.entries.clone(), item.entries.len());
            self.write(|tables| {
                tables.items.insert(key.clone(), after);
                tables.ledger.entry(key.clone()).or_default().extend(entries);
                Box::new(move |tables| {
                    if let Some(ledger) = tables.ledger.get_mut(&key) {
                        ledger.truncate(ledger.len() - added);
                    }
                    match before {
                        Some(item) => tables.items.insert(key, item),
                        None => tables.items.remove(&key),
                    };
                })
            });
        }
        let new: Vec<HoldKey> = changed.new_holds().copied().collect();
        let old: Vec<HoldKey> = changed.old_holds().copied().collect();
        for (key, is_new) in new.iter().map(|key| (key, true)).chain(old.iter().map(|key| (key, false))) {
            let Some(hold) = stock.hold(key).cloned() else { return Err(not_as_loaded()) };
            let forgotten = match hold.status {
                HoldStatus::Tombstone => planted == Some(Planted::NoTombstone),
                HoldStatus::Refused { .. } => planted == Some(Planted::RefusalForgotten),
                HoldStatus::Released { .. } => planted == Some(Planted::ReleaseForgotten) && !is_new,
                HoldStatus::Held | HoldStatus::Sold { .. } | HoldStatus::Restocked { .. } => false,
            };
            if forgotten {
                continue;
            }
            let key = (partition, *key);
            let before = self.read(|tables| tables.holds.get(&key).cloned());
            if is_new && before.is_some() {
                return Err(exists(key.1.order_id));
            }
            if !is_new && before.is_none() {
                return Err(not_as_loaded());
            }
            self.write(|tables| {
                tables.holds.insert(key, hold);
                Box::new(move |tables| {
                    match before {
                        Some(hold) => tables.holds.insert(key, hold),
                        None => tables.holds.remove(&key),
                    };
                })
            });
        }
        Ok(())
    }

    async fn item_versions(
        &mut self,
        partition: i32,
        after: Option<&Sku>,
        limit: i64,
    ) -> Result<Vec<(Sku, i64)>, HandlerError> {
        self.control.point().await;
        Ok(self.read(|tables| {
            let items = tables.items.iter().filter(|((of, sku), _)| *of == partition && Some(sku) > after);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            items.map(|((_, sku), item)| (sku.clone(), item.version)).take(limit).collect()
        }))
    }
}

/// The payment worker's tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct PaymentTables {
    pub(crate) charges: BTreeMap<(i32, OrderId), PaymentRecord>,
    pub(crate) movements: BTreeMap<(i32, i64, i64), Vec<Movement>>,
}

/// The payment worker.
pub(crate) struct PaymentWorker;

#[derive(Clone)]
pub(crate) struct PaymentProcess {
    pub(crate) line: Arc<Line<VirtualProvider>>,
}

impl Service for PaymentWorker {
    type Tables = PaymentTables;
    type Handler = PaymentHandler<VirtualProvider>;
    type Process = PaymentProcess;

    const TOPIC: Topic = Topic::PaymentCommands;
    const GROUP: &'static str = payment_worker::CONSUMER_GROUP;

    fn process(world: &Shared<World>) -> PaymentProcess {
        let provider = VirtualProvider { world: world.clone() };
        PaymentProcess { line: Arc::new(Line::new(provider, 3, metrics().2.clone())) }
    }

    async fn begin(
        process: &PaymentProcess,
        _tx: &mut Tx<PaymentTables>,
        partition: i32,
        epoch: i64,
        waker: &Waker,
    ) -> Result<Self::Handler, HandlerError> {
        let policy = Policy {
            first_retry: Duration::from_millis(100),
            longest_retry: Duration::from_secs(3),
            unknown_limit: Duration::from_secs(30),
            late_request_limit: Duration::from_millis(LATE_REQUEST_MS.unsigned_abs()),
        };
        let calls = Calls::new(Arc::clone(&process.line), 4, waker.clone(), wall_clock);
        Ok(PaymentHandler::take_over(partition, epoch, policy, calls))
    }
}

fn due_at(record: &PaymentRecord) -> Option<Timestamp> {
    match record {
        PaymentRecord::Barred { .. } => None,
        PaymentRecord::Charge(charge) => charge.state.pending().map(|call| call.not_before),
    }
}

const fn order_of(record: &PaymentRecord) -> OrderId {
    match record {
        PaymentRecord::Barred { order_id, .. } => *order_id,
        PaymentRecord::Charge(charge) => charge.order_id,
    }
}

impl PaymentStore for Tx<PaymentTables> {
    async fn load(
        &mut self,
        partition: i32,
        orders: &[OrderId],
    ) -> Result<HashMap<OrderId, Stored>, HandlerError> {
        self.control.point().await;
        Ok(self.read(|tables| {
            let row = |order_id: &OrderId| {
                let record = tables.charges.get(&(partition, *order_id))?;
                Some((*order_id, Stored::Record(record.clone())))
            };
            orders.iter().filter_map(row).collect()
        }))
    }

    async fn load_pending(
        &mut self,
        partition: i32,
        until: Timestamp,
        in_hand: &[OrderId],
        limit: i64,
    ) -> Result<Vec<(OrderId, Stored)>, HandlerError> {
        Ok(self.read(|tables| {
            let rows = tables
                .charges
                .iter()
                .filter(|((of, order_id), _)| *of == partition && !in_hand.contains(order_id));
            let mut due: Vec<_> = rows
                .filter_map(|((_, order_id), record)| Some((due_at(record)?, *order_id, record.clone())))
                .filter(|(due, _, _)| *due <= until)
                .collect();
            due.sort_by_key(|(due, order_id, _)| (*due, *order_id));
            due.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            due.into_iter().map(|(_, order_id, record)| (order_id, Stored::Record(record))).collect()
        }))
    }

    async fn next_call_after(
        &mut self,
        partition: i32,
        until: Timestamp,
    ) -> Result<Option<Timestamp>, HandlerError> {
        Ok(self.read(|tables| {
            let rows = tables.charges.iter().filter(|((of, _), _)| *of == partition);
            rows.filter_map(|(_, record)| due_at(record)).filter(|due| *due > until).min()
        }))
    }

    async fn insert(&mut self, partition: i32, records: &[&PaymentRecord]) -> Result<(), HandlerError> {
        let planted = self.planted();
        for record in records {
            let key = (partition, order_of(record));
            if planted == Some(Planted::ClosedChargeForgotten)
                && matches!(record, PaymentRecord::Barred { .. })
            {
                continue;
            }
            if self.read(|tables| tables.charges.contains_key(&key)) {
                return Err(exists(key.1));
            }
            let record = PaymentRecord::clone(record);
            self.write(|tables| {
                tables.charges.insert(key, record);
                Box::new(move |tables| {
                    tables.charges.remove(&key);
                })
            });
        }
        Ok(())
    }

    async fn update(&mut self, partition: i32, records: &[&PaymentRecord]) -> Result<(), HandlerError> {
        for record in records {
            let key = (partition, order_of(record));
            let Some(before) = self.read(|tables| tables.charges.get(&key).cloned()) else { continue };
            let record = PaymentRecord::clone(record);
            self.write(|tables| {
                tables.charges.insert(key, record);
                Box::new(move |tables| {
                    tables.charges.insert(key, before);
                })
            });
        }
        Ok(())
    }

    async fn append_movements(
        &mut self,
        key: LedgerKey,
        _now: Timestamp,
        movements: &[Movement],
    ) -> Result<(), HandlerError> {
        if movements.is_empty() {
            return Ok(());
        }
        let key = (key.partition, key.epoch, key.seq);
        if self.read(|tables| tables.movements.contains_key(&key)) {
            return Err(exists(format!("movements {key:?}")));
        }
        let movements = movements.to_vec();
        self.write(|tables| {
            tables.movements.insert(key, movements);
            Box::new(move |tables| {
                tables.movements.remove(&key);
            })
        });
        Ok(())
    }
}
