//! The orchestrator.

use std::collections::BTreeMap;

use domain_types::{OrderId, Timestamp};
use messaging::{HandlerError, Waker};
use order_orchestrator::history::{HistoryEntry, HistorySeq};
use order_orchestrator::{Ahead, SagaHandler, SagaMetrics, SagaStore, StoredSaga, Unsaved};
use saga::{Saga, Timer};
use schemas::Topic;

use super::{exists, metrics};
use crate::database::Tx;
use crate::planted::Planted;
use crate::ports::Service;
use crate::world::{Shared, World, wall_clock};

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
