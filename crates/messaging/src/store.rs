//! The runtime's own SQL: position, outbox, parked records.

use sqlx::{Arguments, PgConnection, PgExecutor, PgPool, Postgres, Row, postgres::PgRow};

use domain_types::Timestamp;

use crate::codec::{Damaged, decode_headers, decode_outputs, encode_headers, encode_outputs};
use crate::owner::OutboxRow;
use crate::parking::{ParkCause, Parking};
use crate::rules::StoredPosition;
use crate::tx::CommitError;
use crate::{NextOffset, Offset, Output, ParkingKey, Record, Tx};

/// Makes the runtime's own tables; may be repeated, also by several processes at once.
///
/// # Errors
/// If the database can't be reached or refuses.
pub async fn migrate(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut tx = begin(pool).await?;
    sqlx::query("SELECT pg_advisory_xact_lock(7206117236)").execute(&mut *tx).await?;
    sqlx::raw_sql(include_str!("runtime.sql")).execute(&mut *tx).await?;
    tx.commit().await
}

/// Begins a transaction in a task of its own, so that a caller that is cancelled can't leave the connection inside a
/// transaction that nobody ends (sqlx 0.9.0 can, when `begin` itself is cancelled).
///
/// # Errors
/// If no connection can be had.
pub async fn begin(pool: &PgPool) -> Result<sqlx::Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    match tokio::spawn(async move { pool.begin().await }).await {
        Ok(transaction) => transaction,
        Err(_panicked_or_shut_down) => Err(sqlx::Error::WorkerCrashed),
    }
}

/// Everything as it is now, for as long as the transaction is open; nothing can be changed in it.
///
/// # Errors
/// If no connection can be had.
pub async fn snapshot(pool: &PgPool) -> Result<sqlx::Transaction<'static, Postgres>, sqlx::Error> {
    let mut tx = begin(pool).await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
    Ok(tx)
}

/// Where a consumer group stands in a partition, by its own database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPosition {
    /// The group.
    pub group: String,
    /// What it reads.
    pub topic: String,
    /// Which part of it.
    pub partition: i32,
    /// Everything before it is in the state.
    pub next: NextOffset,
    /// The cluster it reads from.
    pub cluster_id: String,
    /// The log it reads from, once that had a record.
    pub log_id: Option<String>,
    /// Raised at each take-over.
    pub epoch: i64,
}

/// Every position of a database. For people who look on; the runtime has its own.
///
/// # Errors
/// If the database can't be read.
pub async fn positions(connection: &mut PgConnection) -> Result<Vec<GroupPosition>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT consumer_group, topic, partition_id, next_offset, cluster_id, log_id, epoch FROM messaging_position
         ORDER BY consumer_group, topic, partition_id",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(GroupPosition {
                group: row.try_get("consumer_group")?,
                topic: row.try_get("topic")?,
                partition: row.try_get("partition_id")?,
                next: NextOffset(row.try_get("next_offset")?),
                cluster_id: row.try_get("cluster_id")?,
                log_id: row.try_get("log_id")?,
                epoch: row.try_get("epoch")?,
            })
        })
        .collect()
}

/// A record that a group has set aside, as its database keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRecord {
    /// The group.
    pub group: String,
    /// The record, as it was read.
    pub record: Record,
    /// What it is parked together with.
    pub key: ParkingKey,
    /// One word for why, see [`ParkCause`].
    pub cause: String,
    /// The error.
    pub detail: String,
    /// When, by the database's clock.
    pub parked_at: Timestamp,
}

/// Every parked record of a database, in the order of group, topic, partition and offset; with `key` only those parked
/// under it.
///
/// # Errors
/// If the database can't be read.
pub async fn parked(
    connection: &mut PgConnection,
    key: Option<&ParkingKey>,
) -> Result<Vec<ParkedRecord>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT consumer_group, topic, partition_id, record_offset, record_time_ms, record_key, headers, value, parking_key,
                cause, detail, (extract(epoch FROM parked_at) * 1000)::bigint AS parked_at_ms
           FROM messaging_parked WHERE $1::text IS NULL OR parking_key = $1
          ORDER BY consumer_group, topic, partition_id, record_offset",
    )
    .bind(key.map(|key| &key.0))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let topic: String = row.try_get("topic")?;
            Ok(ParkedRecord {
                group: row.try_get("consumer_group")?,
                record: parked_record(row, row.try_get("partition_id")?, &topic.into())?,
                key: ParkingKey(row.try_get("parking_key")?),
                cause: row.try_get("cause")?,
                detail: row.try_get("detail")?,
                parked_at: Timestamp::from_millis(row.try_get("parked_at_ms")?),
            })
        })
        .collect()
}

/// Whether a database has no tables of anybody.
///
/// # Errors
/// If the database can't be read.
pub async fn is_empty_database(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let tables: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_catalog.pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
    )
    .fetch_one(connection)
    .await?;
    Ok(tables == 0)
}

/// Says where a group stands in a database that was made anew; a former position is replaced. Not for a database with an
/// owner: nobody is fenced.
///
/// # Errors
/// If the database can't be written.
pub async fn set_position(
    connection: &mut PgConnection,
    position: &GroupPosition,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO messaging_position (partition_id, consumer_group, topic, epoch, next_offset, cluster_id, log_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (partition_id, consumer_group, topic)
         DO UPDATE SET next_offset = EXCLUDED.next_offset, cluster_id = EXCLUDED.cluster_id, log_id = EXCLUDED.log_id",
    )
    .bind(position.partition)
    .bind(&position.group)
    .bind(&position.topic)
    .bind(position.epoch)
    .bind(position.next.0)
    .bind(&position.cluster_id)
    .bind(&position.log_id)
    .execute(connection)
    .await?;
    Ok(())
}

/// Leaves outputs to the next owner of a partition, who publishes them at its take-over: for a database that was made anew.
///
/// # Errors
/// If the database can't be written.
pub async fn set_outbox(
    connection: &mut PgConnection,
    position: &GroupPosition,
    outputs: &[Output],
) -> Result<(), sqlx::Error> {
    if outputs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO messaging_outbox (partition_id, consumer_group, topic, epoch, seq, body)
         VALUES ($1, $2, $3, $4, 1, $5)",
    )
    .bind(position.partition)
    .bind(&position.group)
    .bind(&position.topic)
    .bind(position.epoch)
    .bind(encode_outputs(outputs))
    .execute(connection)
    .await?;
    Ok(())
}

/// Sets a record aside in a database that was made anew.
///
/// # Errors
/// If the database can't be written.
pub async fn set_aside(
    connection: &mut PgConnection,
    group: &str,
    record: &Record,
    key: &ParkingKey,
    detail: &str,
) -> Result<(), sqlx::Error> {
    let position =
        PositionKey { partition: record.partition, group: group.to_owned(), topic: record.topic.to_string() };
    let (record, key) = (record.clone(), key.clone());
    let parking = Parking { record, key, cause: ParkCause::Recorded, detail: detail.to_owned() };
    park(connection, &position, &[parking]).await
}

/// Which position is meant.
#[derive(Debug, Clone)]
pub(crate) struct PositionKey {
    pub(crate) partition: i32,
    pub(crate) group: String,
    pub(crate) topic: String,
}

/// A stored position after its epoch was raised.
#[derive(Debug)]
pub(crate) struct Position {
    pub(crate) epoch: i64,
    pub(crate) stored: StoredPosition,
}

/// Raises the epoch. From its commit on no other owner's transaction can commit.
pub(crate) async fn raise_epoch(
    pool: &PgPool,
    key: &PositionKey,
    cluster_id: &str,
) -> Result<Position, sqlx::Error> {
    let row = sqlx::query(
        "INSERT INTO messaging_position (partition_id, consumer_group, topic, epoch, next_offset, cluster_id)
         VALUES ($1, $2, $3, 1, 0, $4)
         ON CONFLICT (partition_id, consumer_group, topic)
         DO UPDATE SET epoch = messaging_position.epoch + 1
         RETURNING epoch, next_offset, cluster_id, log_id",
    )
    .bind(key.partition)
    .bind(&key.group)
    .bind(&key.topic)
    .bind(cluster_id)
    .fetch_one(pool)
    .await?;
    let stored = StoredPosition {
        next: NextOffset(row.try_get("next_offset")?),
        cluster_id: row.try_get("cluster_id")?,
        log_id: row.try_get("log_id")?,
    };
    Ok(Position { epoch: row.try_get("epoch")?, stored })
}

/// Keeps the identity of the log beside the position.
pub(crate) async fn set_log_id(
    executor: impl PgExecutor<'_>,
    key: &PositionKey,
    log_id: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE messaging_position SET log_id = $4
         WHERE partition_id = $1 AND consumer_group = $2 AND topic = $3 AND log_id IS NULL",
    )
    .bind(key.partition)
    .bind(&key.group)
    .bind(&key.topic)
    .bind(log_id)
    .execute(executor)
    .await?;
    Ok(())
}

/// Outputs that were committed and may not have been published, in order.
pub(crate) async fn outbox(
    pool: &PgPool,
    key: &PositionKey,
) -> Result<Vec<(OutboxRow, Vec<Output>)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT epoch, seq, body FROM messaging_outbox
         WHERE partition_id = $1 AND consumer_group = $2 AND topic = $3 ORDER BY epoch, seq",
    )
    .bind(key.partition)
    .bind(&key.group)
    .bind(&key.topic)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let outbox_row = OutboxRow { epoch: row.try_get("epoch")?, seq: row.try_get("seq")? };
            let outputs = decode_outputs(row.try_get("body")?).map_err(damaged)?;
            Ok((outbox_row, outputs))
        })
        .collect()
}

fn damaged(error: Damaged) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

/// Keys and offsets of parked records; `true` where the message was unknown to the build that parked it.
pub(crate) async fn parked_keys(
    pool: &PgPool,
    key: &PositionKey,
) -> Result<Vec<(ParkingKey, Offset, bool)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT parking_key, record_offset, cause FROM messaging_parked
         WHERE partition_id = $1 AND consumer_group = $2 AND topic = $3 ORDER BY record_offset",
    )
    .bind(key.partition)
    .bind(&key.group)
    .bind(&key.topic)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let cause: String = row.try_get("cause")?;
            Ok((
                ParkingKey(row.try_get("parking_key")?),
                Offset(row.try_get("record_offset")?),
                cause == ParkCause::Unknown.as_str(),
            ))
        })
        .collect()
}

/// Parked records, as they were read.
pub(crate) async fn parked_records(
    pool: &PgPool,
    key: &PositionKey,
    topic: &std::sync::Arc<str>,
    offsets: &[Offset],
) -> Result<Vec<Record>, sqlx::Error> {
    let offsets: Vec<i64> = offsets.iter().map(|offset| offset.0).collect();
    let rows = sqlx::query(
        "SELECT record_offset, record_time_ms, record_key, headers, value FROM messaging_parked
         WHERE partition_id = $1 AND consumer_group = $2 AND topic = $3 AND record_offset = ANY ($4)
         ORDER BY record_offset",
    )
    .bind(key.partition)
    .bind(&key.group)
    .bind(&key.topic)
    .bind(offsets)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| parked_record(row, key.partition, topic)).collect()
}

fn parked_record(row: &PgRow, partition: i32, topic: &std::sync::Arc<str>) -> Result<Record, sqlx::Error> {
    Ok(Record {
        topic: std::sync::Arc::clone(topic),
        partition,
        offset: Offset(row.try_get("record_offset")?),
        time: Timestamp::from_millis(row.try_get("record_time_ms")?),
        key: row.try_get("record_key")?,
        headers: decode_headers(row.try_get("headers")?).map_err(damaged)?,
        value: row.try_get("value")?,
    })
}

/// Sets records aside.
pub(crate) async fn park(
    tx: &mut PgConnection,
    key: &PositionKey,
    parkings: &[Parking],
) -> Result<(), sqlx::Error> {
    for parking in parkings {
        sqlx::query(
            "INSERT INTO messaging_parked (partition_id, consumer_group, topic, record_offset, parking_key,
                                           record_time_ms, record_key, headers, value, cause, detail)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT ON CONSTRAINT messaging_parked_pk DO NOTHING",
        )
        .bind(key.partition)
        .bind(&key.group)
        .bind(&key.topic)
        .bind(parking.record.offset.0)
        .bind(parking.key.0.replace('\0', "\u{fffd}"))
        .bind(parking.record.time.as_millis())
        .bind(&parking.record.key)
        .bind(encode_headers(&parking.record.headers))
        .bind(&parking.record.value)
        .bind(parking.cause.as_str())
        .bind(parking.detail.replace('\0', "\u{fffd}"))
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Deletes parked records that are settled.
pub(crate) async fn unpark(
    tx: &mut PgConnection,
    key: &PositionKey,
    offsets: &[Offset],
) -> Result<(), sqlx::Error> {
    let offsets: Vec<i64> = offsets.iter().map(|offset| offset.0).collect();
    sqlx::query(
        "DELETE FROM messaging_parked
         WHERE partition_id = $1 AND consumer_group = $2 AND topic = $3 AND record_offset = ANY ($4)",
    )
    .bind(key.partition)
    .bind(&key.group)
    .bind(&key.topic)
    .bind(offsets)
    .execute(tx)
    .await?;
    Ok(())
}

/// Commits what was written, moves the position and keeps the outputs; raises SQLSTATE `FC001` if the partition has another
/// owner.
pub(crate) async fn commit(
    tx: &mut Tx,
    key: &PositionKey,
    row: OutboxRow,
    (expected, next): (NextOffset, NextOffset),
    outputs: &[Output],
    done: Option<OutboxRow>,
) -> Result<(), CommitError> {
    let body = (!outputs.is_empty()).then(|| encode_outputs(outputs));
    let advance = |before: usize| {
        let places: Vec<String> = (before + 1..=before + 10).map(|place| format!("${place}")).collect();
        format!("messaging_advance({})", places.join(", "))
    };
    tx.commit(advance, |arguments| {
        arguments.add(key.partition)?;
        arguments.add(&key.group)?;
        arguments.add(&key.topic)?;
        arguments.add(row.epoch)?;
        arguments.add(expected.0)?;
        arguments.add(next.0)?;
        arguments.add(row.seq)?;
        arguments.add(body)?;
        arguments.add(done.map(|row| row.epoch))?;
        arguments.add(done.map(|row| row.seq))
    })
    .await
}
