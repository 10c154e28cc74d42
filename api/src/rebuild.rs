//! The api's database from Kafka alone: what its consumers make of the topics, and the intake from the orders' own commands. What
//! is in no topic stays aside: e-mail addresses, mails that were sent, orders that were never published, and what an admin's
//! pending change asked for.

mod store;

use std::collections::HashMap;

use messaging::{Handler, HandlerError, Outputs, Received, Record, Tx};
use schemas::{Envelope, Message, OrderSagaMessage, Topic};
use sqlx::PgPool;

use crate::intake::{IntakeRow, keep_published};
use crate::projection::{OrdersHandler, StockChangesHandler, apply_levels};

pub use store::{Table, entries};

/// Makes the service's tables, and the runtime's; may be repeated.
///
/// # Errors
/// If the database can't be written, or was migrated by a later build.
pub async fn migrate(pool: &PgPool) -> anyhow::Result<()> {
    messaging::migrate(pool).await?;
    Ok(sqlx::migrate!().run(pool).await?)
}

/// Builds a database that nobody else uses.
#[derive(Debug)]
pub struct Builder {
    pool: PgPool,
    /// Of the last records, finished.
    tx: Option<Tx>,
    orders: HashMap<i32, OrdersHandler>,
}

impl Builder {
    /// Of a database that is migrated.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, tx: None, orders: HashMap::new() }
    }

    /// Applies the next records of a partition of `order-events`, `stock-levels` or `stock-events`; of `order-saga`
    /// it takes what customers placed. Other records say nothing to the api. Durable after `Ok`.
    ///
    /// # Errors
    /// If the database can't be written, or a record contradicts those before it.
    pub async fn apply(&mut self, topic: Topic, records: Vec<Record>) -> Result<(), HandlerError> {
        let Some(partition) = records.first().map(|record| record.partition) else { return Ok(()) };
        let mut tx = match self.tx.take() {
            Some(tx) => tx,
            None => Tx::open(&self.pool).await?,
        };
        match topic {
            Topic::OrderEvents => {
                let orders = self.orders.entry(partition).or_default();
                orders.handle(&mut tx, &received(records), &mut Outputs::default()).await?;
            }
            Topic::StockLevels => {
                apply_levels(&mut tx, &received(records)).await?;
            }
            Topic::StockEvents => {
                StockChangesHandler.handle(&mut tx, &received(records), &mut Outputs::default()).await?;
            }
            Topic::OrderSaga => {
                let rows: Vec<IntakeRow> = records.iter().filter_map(placed).collect();
                keep_published(tx.writer().await?, &rows).await?;
            }
            _ => {}
        }
        tx.finish().await?;
        self.tx = Some(tx);
        if let Some(orders) = self.orders.get_mut(&partition).filter(|_| topic == Topic::OrderEvents) {
            orders.committed();
        }
        Ok(())
    }
}

/// What can be read; the rest is parked.
fn received<M: Message>(records: Vec<Record>) -> Vec<Received<Envelope<M>>> {
    let read = |record: Record| {
        let input = Envelope::decode(&record.value).ok()?;
        Some(Received { record, input })
    };
    records.into_iter().filter_map(read).collect()
}

fn placed(record: &Record) -> Option<IntakeRow> {
    let envelope = Envelope::<OrderSagaMessage>::decode(&record.value).ok()?;
    let OrderSagaMessage::PlaceOrder(order) = envelope.message else { return None };
    Some(IntakeRow {
        order_id: envelope.order_id?,
        customer_id: order.customer_id,
        fingerprint: order.fingerprint,
        publish_before: order.publish_before,
        command: String::from_utf8(record.value.clone()).ok()?,
    })
}
