//! The payment worker.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use domain_types::{OrderId, Timestamp};
use messaging::{HandlerError, Waker};
use payment_domain::{Movement, PaymentRecord, Policy};
use payment_worker::{Calls, Change, Changes, Line, PaymentHandler, PaymentStore, Stored, Table};
use schemas::Topic;

use super::{exists, metrics};
use crate::database::Tx;
use crate::planted::Planted;
use crate::ports::Service;
use crate::provider::{LATE_REQUEST_MS, VirtualProvider};
use crate::world::{Shared, World, wall_clock};

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

    async fn save(&mut self, partition: i32, changes: &Changes<'_>) -> Result<(), HandlerError> {
        let planted = self.planted();
        for Change { record, was } in &changes.records {
            let key = (partition, record.order_id());
            let before = self.read(|tables| tables.charges.get(&key).cloned());
            match (was, &before) {
                (None, None) => {}
                (Some(table), Some(before)) if *table == Table::of(before) => {}
                (None, Some(_)) => return Err(exists(key.1)),
                (Some(_), _) => return Err(HandlerError::bug(format!("{key:?} was {was:?}: {before:?}"))),
            }
            let is_tombstone = matches!(record, PaymentRecord::Barred { .. });
            if is_tombstone && planted == Some(Planted::ClosedChargeForgotten) {
                continue;
            }
            let record = PaymentRecord::clone(record);
            self.write(|tables| {
                tables.charges.insert(key, record);
                Box::new(move |tables| {
                    match before {
                        Some(before) => tables.charges.insert(key, before),
                        None => tables.charges.remove(&key),
                    };
                })
            });
        }
        let Some(row) = &changes.ledger else { return Ok(()) };
        let key = (partition, row.epoch, row.seq);
        if self.read(|tables| tables.movements.contains_key(&key)) {
            return Err(exists(format!("movements {key:?}")));
        }
        let movements = row.movements.to_vec();
        self.write(|tables| {
            tables.movements.insert(key, movements);
            Box::new(move |tables| {
                tables.movements.remove(&key);
            })
        });
        Ok(())
    }
}
