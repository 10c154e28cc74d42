//! The stock worker.

use std::collections::BTreeMap;

use domain_types::{RequestId, Sku};
use messaging::{HandlerError, Record, Waker};
use schemas::Topic;
use stock_domain::{Change, Entry, Hold, HoldKey, HoldStatus, Item, Stock};
use stock_worker::{Changed, LevelWatch, Needs, StockHandler, StockMetrics, StockStore};

use super::{exists, metrics};
use crate::database::Tx;
use crate::planted::Planted;
use crate::ports::Service;
use crate::world::{Shared, World, lock};

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
            self.write(|tables| {
                tables.items.insert(key.clone(), after);
                Box::new(move |tables| {
                    match before {
                        Some(item) => tables.items.insert(key, item),
                        None => tables.items.remove(&key),
                    };
                })
            });
        }
        for entry in changed.entries().iter().cloned() {
            let key = (partition, entry.sku);
            self.write(|tables| {
                tables.ledger.entry(key.clone()).or_default().push(entry.entry);
                Box::new(move |tables| {
                    tables.ledger.entry(key).or_default().pop();
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
