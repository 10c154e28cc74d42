//! The only code that knows the tables, behind the [`SagaStore`] that the owner works on. Rows are looked up by `LATERAL (.. OFFSET 0)`: the planner can't turn that into a
//! scan of a whole partition, however empty the table was when the plan was made.

mod read;

pub use read::{PresentSaga, ReadError, SagaReader};

use std::future::Future;

use chrono::{DateTime, Utc};
use domain_types::{OrderId, Timestamp};
use messaging::{ErrorClass, HandlerError, Tx, classify};
use saga::{Saga, Timer};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::cache::Unsaved;
use crate::history::{self, HistoryEntry, HistoryError, HistorySeq};
use crate::messages::{timer_by_name, timer_name};

/// A saga as its row holds it.
#[derive(Debug, Clone)]
pub struct StoredSaga {
    /// Whose.
    pub order_id: OrderId,
    /// As it was.
    pub saga: Saga,
    /// The history that it holds.
    pub seq: HistorySeq,
}

/// History that rows may not hold yet.
#[derive(Debug, Clone, Default)]
pub struct Ahead {
    /// By batch, in the order in which it was applied.
    pub batches: Vec<(HistorySeq, Vec<HistoryEntry>)>,
    /// The last history there is.
    pub last: HistorySeq,
}

/// The sagas of a partition, in an open transaction.
pub trait SagaStore: Send {
    /// The sagas of these orders that have a row.
    fn load(
        &mut self,
        partition: i32,
        orders: &[OrderId],
    ) -> impl Future<Output = Result<Vec<StoredSaga>, HandlerError>> + Send;

    /// Records what a batch did. Durable once the transaction commits.
    fn append_history(
        &mut self,
        partition: i32,
        seq: HistorySeq,
        entries: &[HistoryEntry],
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// The history behind the checkpoint.
    fn ahead(&mut self, partition: i32) -> impl Future<Output = Result<Ahead, HandlerError>> + Send;

    /// Saves sagas that hold all history up to `seq`; once they are, every row of the partition holds it up to
    /// `checkpoint`. Durable once the transaction commits.
    fn save(
        &mut self,
        partition: i32,
        sagas: &[(OrderId, &Unsaved)],
        seq: HistorySeq,
        checkpoint: HistorySeq,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Takes up to `limit` due timers, earliest first: they are not due any more, and are to be fired in this very
    /// transaction.
    fn take_due(
        &mut self,
        partition: i32,
        now: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<(OrderId, Timer)>, HandlerError>> + Send;

    /// The earliest due time of the partition's rows.
    fn next_due_at(
        &mut self,
        partition: i32,
    ) -> impl Future<Output = Result<Option<Timestamp>, HandlerError>> + Send;
}

impl SagaStore for Tx {
    async fn load(&mut self, partition: i32, orders: &[OrderId]) -> Result<Vec<StoredSaga>, HandlerError> {
        Ok(load(self.reader().await?, partition, orders).await?)
    }

    async fn append_history(
        &mut self,
        partition: i32,
        seq: HistorySeq,
        entries: &[HistoryEntry],
    ) -> Result<(), HandlerError> {
        Ok(append_history(self, partition, seq, entries).await?)
    }

    async fn ahead(&mut self, partition: i32) -> Result<Ahead, HandlerError> {
        Ok(ahead(self.reader().await?, partition).await?)
    }

    async fn save(
        &mut self,
        partition: i32,
        sagas: &[(OrderId, &Unsaved)],
        seq: HistorySeq,
        checkpoint: HistorySeq,
    ) -> Result<(), HandlerError> {
        Ok(save(self.writer().await?, partition, sagas, seq, checkpoint).await?)
    }

    async fn take_due(
        &mut self,
        partition: i32,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<(OrderId, Timer)>, HandlerError> {
        Ok(take_due(self.writer().await?, partition, now, limit).await?)
    }

    async fn next_due_at(&mut self, partition: i32) -> Result<Option<Timestamp>, HandlerError> {
        Ok(next_due_at(self.reader().await?, partition).await?)
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
    /// Stored history that this build can't read.
    #[error("the saga history {seq} can't be read")]
    UnreadableHistory {
        /// Its number.
        seq: i64,
        /// Why.
        #[source]
        source: HistoryError,
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
            StoreError::Unreadable { .. }
            | StoreError::UnreadableHistory { .. }
            | StoreError::Unwritable(_)
            | StoreError::UnknownTimer { .. } => ErrorClass::Bug,
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
) -> Result<Vec<StoredSaga>, StoreError> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    let orders: Vec<Uuid> = orders.iter().map(|order_id| order_id.uuid()).collect();
    let rows: Vec<(Uuid, String, i64)> = sqlx::query_as(
        "SELECT s.order_id, s.state, s.seq
           FROM UNNEST($2::uuid[]) AS k (order_id)
          CROSS JOIN LATERAL (
             SELECT s.* FROM sagas AS s WHERE s.partition_id = $1 AND s.order_id = k.order_id OFFSET 0) AS s",
    )
    .bind(partition)
    .bind(orders)
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(order_id, state, seq)| {
            let order_id = OrderId(order_id);
            let saga =
                serde_json::from_str(&state).map_err(|source| StoreError::Unreadable { order_id, source })?;
            Ok(StoredSaga { order_id, saga, seq: HistorySeq(seq) })
        })
        .collect()
}

async fn append_history(
    tx: &mut Tx,
    partition: i32,
    seq: HistorySeq,
    entries: &[HistoryEntry],
) -> Result<(), StoreError> {
    let body = history::encode(entries).map_err(StoreError::Unwritable)?;
    let append = sqlx::query(
        "WITH batch AS (INSERT INTO saga_history (partition_id, seq, body) VALUES ($1, $2, $3)) SELECT 1",
    );
    tx.last(append.bind(partition).bind(seq.0).bind(body)).await?;
    Ok(())
}

async fn ahead(tx: &mut PgConnection, partition: i32) -> Result<Ahead, StoreError> {
    let checkpoint: Option<i64> =
        sqlx::query_scalar("SELECT seq FROM saga_checkpoint WHERE partition_id = $1")
            .bind(partition)
            .fetch_optional(&mut *tx)
            .await?;
    let checkpoint = checkpoint.unwrap_or(0);
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT seq, body FROM saga_history WHERE partition_id = $1 AND seq > $2 ORDER BY seq",
    )
    .bind(partition)
    .bind(checkpoint)
    .fetch_all(tx)
    .await?;
    let last = rows.last().map_or(checkpoint, |(seq, _)| *seq);
    let read = rows.into_iter().map(|(seq, body)| {
        let entries =
            history::decode(&body).map_err(|source| StoreError::UnreadableHistory { seq, source })?;
        Ok((HistorySeq(seq), entries))
    });
    Ok(Ahead { batches: read.collect::<Result<_, StoreError>>()?, last: HistorySeq(last) })
}

#[derive(Default)]
struct Columns {
    orders: Vec<Uuid>,
    is_new: Vec<bool>,
    versions: Vec<i64>,
    due_at: Vec<Option<DateTime<Utc>>>,
    timers: Vec<Option<&'static str>>,
    states: Vec<String>,
    journals: Vec<String>,
}

async fn save(
    tx: &mut PgConnection,
    partition: i32,
    sagas: &[(OrderId, &Unsaved)],
    seq: HistorySeq,
    checkpoint: HistorySeq,
) -> Result<(), StoreError> {
    let mut columns = Columns::default();
    for (order_id, unsaved) in sagas {
        let timer = unsaved.saga.timer;
        columns.orders.push(order_id.uuid());
        columns.is_new.push(unsaved.is_new);
        columns.versions.push(unsaved.saga.version);
        columns.due_at.push(timer.map(|timer| timer.due_at.to_utc()));
        columns.timers.push(timer.map(|timer| timer_name(timer.name)));
        columns.states.push(serde_json::to_string(&unsaved.saga).map_err(StoreError::Unwritable)?);
        columns.journals.push(array(&unsaved.journal));
    }
    sqlx::query(include_str!("save.sql"))
        .bind(partition)
        .bind(columns.orders)
        .bind(columns.is_new)
        .bind(columns.versions)
        .bind(columns.due_at)
        .bind(columns.timers)
        .bind(columns.states)
        .bind(columns.journals)
        .bind(seq.0)
        .bind(checkpoint.0)
        .execute(tx)
        .await?;
    Ok(())
}

/// As PostgreSQL writes an array: `unnest` can't take arrays of different lengths.
fn array(journal: &[HistorySeq]) -> String {
    let numbers: Vec<String> = journal.iter().map(|seq| seq.0.to_string()).collect();
    format!("{{{}}}", numbers.join(","))
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
