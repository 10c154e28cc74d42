//! Looking on: all sagas of a database in one snapshot, and nothing changed. A saga is its row and the history that the row
//! lacks.

use std::collections::HashMap;

use domain_types::OrderId;
use futures::TryStreamExt;
use messaging::{GroupPosition, HandlerError, ParkedRecord, ParkingKey};
use saga::Saga;
use sqlx::{PgConnection, PgPool, Postgres, Row, Transaction};
use uuid::Uuid;

use super::StoreError;
use crate::CONSUMER_GROUP;
use crate::history::{self, HistoryEntry, HistorySeq};

/// Why a database could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It failed.
    #[error("the orchestrator's database failed")]
    Database(#[from] sqlx::Error),
    /// A row that this build can't read.
    #[error("{0}")]
    Unreadable(String),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Database(error) => Self::Database(error),
            error => Self::Unreadable(format!("{error}: {:?}", std::error::Error::source(&error))),
        }
    }
}

impl From<HandlerError> for ReadError {
    fn from(error: HandlerError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// A saga as it is at the partition's position.
#[derive(Debug, Clone)]
pub struct PresentSaga {
    /// Whose.
    pub order_id: OrderId,
    /// In which partition of `order-saga`.
    pub partition: i32,
    /// As it is.
    pub saga: Saga,
}

/// What rows lack.
#[derive(Debug, Default)]
struct Newer {
    sagas: HashMap<OrderId, (Saga, Vec<HistorySeq>)>,
}

/// One snapshot of an orchestrator's database. Reads only.
#[derive(Debug)]
pub struct SagaReader {
    tx: Transaction<'static, Postgres>,
    newer: HashMap<i32, Newer>,
}

impl SagaReader {
    /// Takes the snapshot.
    ///
    /// # Errors
    /// If no connection can be had.
    pub async fn open(pool: &PgPool) -> Result<Self, ReadError> {
        let tx = messaging::snapshot(pool).await?;
        Ok(Self { tx, newer: HashMap::new() })
    }

    /// How far each partition has come.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn positions(&mut self) -> Result<Vec<GroupPosition>, ReadError> {
        let mut positions = messaging::positions(&mut self.tx).await?;
        positions.retain(|position| position.group == CONSUMER_GROUP);
        Ok(positions)
    }

    /// How many sagas there are, those without a row aside.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn count(&mut self) -> Result<u64, ReadError> {
        let sagas: i64 = sqlx::query_scalar("SELECT count(*) FROM sagas").fetch_one(&mut *self.tx).await?;
        Ok(u64::try_from(sagas).unwrap_or(0))
    }

    /// What is parked, see [`messaging::parked`].
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn parked(&mut self, key: Option<&ParkingKey>) -> Result<Vec<ParkedRecord>, ReadError> {
        Ok(messaging::parked(&mut self.tx, key).await?)
    }

    /// One saga, if there is such an order.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn find(&mut self, order_id: OrderId) -> Result<Option<PresentSaga>, ReadError> {
        for position in self.positions().await? {
            let partition = position.partition;
            if let Some((saga, _)) = self.newer(partition).await?.sagas.get(&order_id) {
                return Ok(Some(PresentSaga { order_id, partition, saga: saga.clone() }));
            }
            if let Some(row) = super::load(&mut self.tx, partition, &[order_id]).await?.pop() {
                return Ok(Some(PresentSaga { order_id, partition, saga: row.saga }));
            }
        }
        Ok(None)
    }

    /// What happened to one saga, in order.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn history(
        &mut self,
        partition: i32,
        order_id: OrderId,
    ) -> Result<Vec<HistoryEntry>, ReadError> {
        let journal: Option<Vec<i64>> =
            sqlx::query_scalar("SELECT journal FROM sagas WHERE partition_id = $1 AND order_id = $2")
                .bind(partition)
                .bind(order_id.uuid())
                .fetch_optional(&mut *self.tx)
                .await?;
        let mut batches = journal.unwrap_or_default();
        if let Some((_, newer)) = self.newer(partition).await?.sagas.get(&order_id) {
            batches.extend(newer.iter().map(|seq| seq.0));
        }
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT h.seq, h.body FROM unnest($2::bigint[]) AS j (seq)
               JOIN saga_history AS h ON h.partition_id = $1 AND h.seq = j.seq ORDER BY h.seq",
        )
        .bind(partition)
        .bind(batches)
        .fetch_all(&mut *self.tx)
        .await?;
        let mut entries = Vec::new();
        for (seq, body) in rows {
            let batch = read_batch(seq, &body)?;
            entries.extend(batch.into_iter().filter(|entry| entry.order_id == order_id));
        }
        Ok(entries)
    }

    /// Hands out every saga of a partition, in no order.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn each_saga(
        &mut self,
        partition: i32,
        mut each: impl FnMut(PresentSaga),
    ) -> Result<(), ReadError> {
        self.newer(partition).await?;
        let newer = self.newer.entry(partition).or_default();
        let mut rows =
            sqlx::query_as::<_, (Uuid, String)>("SELECT order_id, state FROM sagas WHERE partition_id = $1")
                .bind(partition)
                .fetch(&mut *self.tx);
        while let Some((order_id, state)) = rows.try_next().await? {
            let order_id = OrderId(order_id);
            if newer.sagas.contains_key(&order_id) {
                continue;
            }
            let saga = serde_json::from_str(&state).map_err(|source| {
                ReadError::Unreadable(format!("the stored saga of order {order_id} can't be read: {source}"))
            })?;
            each(PresentSaga { order_id, partition, saga });
        }
        drop(rows);
        for (order_id, (saga, _)) in &newer.sagas {
            each(PresentSaga { order_id: *order_id, partition, saga: saga.clone() });
        }
        Ok(())
    }

    /// Hands out what happened to all sagas of a partition, in the order in which it was applied.
    ///
    /// # Errors
    /// If the database can't be read.
    pub async fn each_entry(
        &mut self,
        partition: i32,
        mut each: impl FnMut(HistoryEntry),
    ) -> Result<(), ReadError> {
        let mut rows = sqlx::query("SELECT seq, body FROM saga_history WHERE partition_id = $1 ORDER BY seq")
            .bind(partition)
            .fetch(&mut *self.tx);
        while let Some(row) = rows.try_next().await? {
            for entry in read_batch(row.try_get("seq")?, row.try_get("body")?)? {
                each(entry);
            }
        }
        Ok(())
    }

    /// For what else is to be read in the same snapshot.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    async fn newer(&mut self, partition: i32) -> Result<&Newer, ReadError> {
        if !self.newer.contains_key(&partition) {
            let newer = self.read_newer(partition).await?;
            self.newer.insert(partition, newer);
        }
        Ok(self.newer.entry(partition).or_default())
    }

    async fn read_newer(&mut self, partition: i32) -> Result<Newer, ReadError> {
        let ahead = super::ahead(&mut self.tx, partition).await?;
        let entries = ahead.batches.iter().flat_map(|(_, entries)| entries);
        let mut orders: Vec<OrderId> = entries.map(|entry| entry.order_id).collect();
        orders.sort_unstable();
        orders.dedup();
        let rows = super::load(&mut self.tx, partition, &orders).await?;
        let mut rows: HashMap<OrderId, _> = rows.into_iter().map(|row| (row.order_id, row)).collect();
        let mut newer = Newer::default();
        for (seq, entries) in ahead.batches {
            for entry in entries {
                let order_id = entry.order_id;
                if rows.get(&order_id).is_some_and(|row| row.seq >= seq) {
                    continue;
                }
                let row = rows.remove(&order_id).map(|row| (row.saga, Vec::new()));
                let before = newer.sagas.remove(&order_id).or(row);
                let (saga, mut journal) =
                    before.map_or((None, Vec::new()), |(saga, seqs)| (Some(saga), seqs));
                if journal.last() != Some(&seq) {
                    journal.push(seq);
                }
                if let Some(saga) = entry.fold(saga) {
                    newer.sagas.insert(order_id, (saga, journal));
                }
            }
        }
        Ok(newer)
    }
}

fn read_batch(seq: i64, body: &[u8]) -> Result<Vec<HistoryEntry>, ReadError> {
    history::decode(body).map_err(|source| StoreError::UnreadableHistory { seq, source }.into())
}
