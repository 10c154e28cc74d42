//! The only code that knows the tables, behind the [`SagaStore`] that the owner works on. Rows are looked up by `LATERAL (.. OFFSET 0)`: the planner can't turn that into a
//! scan of a whole partition, however empty the table was when the plan was made.

use std::future::Future;

use chrono::{DateTime, Utc};
use domain_types::{OrderId, Timestamp};
use messaging::{ErrorClass, HandlerError, classify};
use saga::{Saga, Timer};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::batch::Batch;
use crate::history;
use crate::messages::{timer_by_name, timer_name};

/// The sagas of a partition, in an open transaction.
pub trait SagaStore: Send {
    /// The sagas of these orders, as far as there are any.
    fn load(
        &mut self,
        partition: i32,
        orders: &[OrderId],
    ) -> impl Future<Output = Result<Vec<(OrderId, Saga)>, HandlerError>> + Send;

    /// Saves what a batch changed, and its history. Returns the earliest due time among the saved timers. Durable once
    /// the transaction commits.
    fn save(
        &mut self,
        partition: i32,
        batch: &Batch,
    ) -> impl Future<Output = Result<Option<Timestamp>, HandlerError>> + Send;

    /// Takes up to `limit` due timers, earliest first: they are not due any more, and are to be fired in this very
    /// transaction.
    fn take_due(
        &mut self,
        partition: i32,
        now: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<(OrderId, Timer)>, HandlerError>> + Send;

    /// The earliest due time of the partition.
    fn next_due_at(
        &mut self,
        partition: i32,
    ) -> impl Future<Output = Result<Option<Timestamp>, HandlerError>> + Send;
}

impl SagaStore for PgConnection {
    async fn load(
        &mut self,
        partition: i32,
        orders: &[OrderId],
    ) -> Result<Vec<(OrderId, Saga)>, HandlerError> {
        Ok(load(self, partition, orders).await?)
    }

    async fn save(&mut self, partition: i32, batch: &Batch) -> Result<Option<Timestamp>, HandlerError> {
        Ok(save(self, partition, batch).await?)
    }

    async fn take_due(
        &mut self,
        partition: i32,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<(OrderId, Timer)>, HandlerError> {
        Ok(take_due(self, partition, now, limit).await?)
    }

    async fn next_due_at(&mut self, partition: i32) -> Result<Option<Timestamp>, HandlerError> {
        Ok(next_due_at(self, partition).await?)
    }
}

/// Why sagas could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database failed.
    #[error("the saga database failed")]
    Database(#[from] sqlx::Error),
    /// A stored saga that this build can't read.
    #[error("the stored saga of order {order_id} can't be read")]
    Unreadable {
        /// The order.
        order_id: OrderId,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// State or events that can't be written as JSON.
    #[error("a saga can't be written")]
    Unwritable(#[source] serde_json::Error),
    /// A stored timer that this build doesn't know.
    #[error("order {order_id} has an unknown timer {timer:?}")]
    UnknownTimer {
        /// The order.
        order_id: OrderId,
        /// The name.
        timer: String,
    },
}

impl From<StoreError> for HandlerError {
    fn from(error: StoreError) -> Self {
        let class = match &error {
            StoreError::Database(error) => classify(error),
            StoreError::Unreadable { .. } | StoreError::Unwritable(_) | StoreError::UnknownTimer { .. } => {
                ErrorClass::Bug
            }
        };
        match class {
            ErrorClass::Transient => Self::transient(error),
            ErrorClass::Permanent => Self::permanent(error),
            ErrorClass::Bug => Self::bug(error),
        }
    }
}

async fn load(
    tx: &mut PgConnection,
    partition: i32,
    orders: &[OrderId],
) -> Result<Vec<(OrderId, Saga)>, StoreError> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    let orders: Vec<Uuid> = orders.iter().map(|order_id| order_id.uuid()).collect();
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT s.order_id, s.state
           FROM UNNEST($2::uuid[]) AS k (order_id)
          CROSS JOIN LATERAL (
             SELECT s.* FROM sagas AS s WHERE s.partition_id = $1 AND s.order_id = k.order_id OFFSET 0) AS s",
    )
    .bind(partition)
    .bind(orders)
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(order_id, state)| {
            let order_id = OrderId(order_id);
            let saga =
                serde_json::from_str(&state).map_err(|source| StoreError::Unreadable { order_id, source })?;
            Ok((order_id, saga))
        })
        .collect()
}

#[derive(Default)]
struct Columns {
    orders: Vec<Uuid>,
    is_new: Vec<bool>,
    versions: Vec<i64>,
    due_at: Vec<Option<DateTime<Utc>>>,
    timers: Vec<Option<&'static str>>,
    states: Vec<String>,
}

async fn save(tx: &mut PgConnection, partition: i32, batch: &Batch) -> Result<Option<Timestamp>, StoreError> {
    let Some(first) = batch.entries().first() else { return Ok(None) };
    let mut columns = Columns::default();
    let mut earliest: Option<Timestamp> = None;
    for changed in batch.changed() {
        let timer = changed.saga.timer;
        columns.orders.push(changed.order_id.uuid());
        columns.is_new.push(changed.is_new);
        columns.versions.push(changed.saga.version);
        columns.due_at.push(timer.map(|timer| timer.due_at.to_utc()));
        columns.timers.push(timer.map(|timer| timer_name(timer.name)));
        columns.states.push(serde_json::to_string(changed.saga).map_err(StoreError::Unwritable)?);
        if let Some(timer) = timer {
            earliest = Some(earliest.map_or(timer.due_at, |earliest| earliest.min(timer.due_at)));
        }
    }
    let body = history::encode(batch.entries()).map_err(StoreError::Unwritable)?;
    sqlx::query(include_str!("save.sql"))
        .bind(partition)
        .bind(columns.orders)
        .bind(columns.is_new)
        .bind(columns.versions)
        .bind(columns.due_at)
        .bind(columns.timers)
        .bind(columns.states)
        .bind(first.offset)
        .bind(body)
        .execute(tx)
        .await?;
    Ok(earliest)
}

async fn take_due(
    tx: &mut PgConnection,
    partition: i32,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<(OrderId, Timer)>, StoreError> {
    let rows: Vec<(Uuid, String, DateTime<Utc>)> = sqlx::query_as(
        "WITH due AS (
             SELECT order_id, next_timer, next_due_at FROM sagas
              WHERE partition_id = $1 AND next_due_at <= $2
              ORDER BY next_due_at LIMIT $3
         )
         UPDATE sagas SET next_due_at = NULL FROM due
          CROSS JOIN LATERAL (
             SELECT f.ctid FROM sagas AS f WHERE f.partition_id = $1 AND f.order_id = due.order_id OFFSET 0
             ) AS found (row_id)
          WHERE sagas.ctid = found.row_id
         RETURNING due.order_id, due.next_timer, due.next_due_at",
    )
    .bind(partition)
    .bind(now.to_utc())
    .bind(i64::from(limit))
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(order_id, timer, due_at)| {
            let order_id = OrderId(order_id);
            let name = timer_by_name(&timer).ok_or(StoreError::UnknownTimer { order_id, timer })?;
            Ok((order_id, Timer { name, due_at: due_at.into() }))
        })
        .collect()
}

async fn next_due_at(tx: &mut PgConnection, partition: i32) -> Result<Option<Timestamp>, StoreError> {
    let earliest: Option<DateTime<Utc>> = sqlx::query_scalar(
        "SELECT min(next_due_at) FROM sagas WHERE partition_id = $1 AND next_due_at IS NOT NULL",
    )
    .bind(partition)
    .fetch_one(tx)
    .await?;
    Ok(earliest.map(Timestamp::from))
}
