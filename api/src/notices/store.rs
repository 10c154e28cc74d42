//! SQL of notices: addresses, and mails to be sent.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use domain_types::{MessageId, OrderId, Timestamp};
use sqlx::types::Uuid;
use sqlx::{PgConnection, Row};

use super::MailAddress;
use super::wording::Wording;

/// Which mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MailKey {
    pub(super) order_id: OrderId,
    pub(super) version: i64,
}

/// A mail to be sent.
#[derive(Debug, Clone)]
pub(super) struct Mail {
    pub(super) key: MailKey,
    pub(super) message_id: MessageId,
    pub(super) address: MailAddress,
    pub(super) subject: String,
    pub(super) body: String,
    pub(super) tries: i32,
}

/// What an event tells.
#[derive(Debug, Clone)]
pub(super) struct Notice {
    pub(super) key: MailKey,
    pub(super) message_id: MessageId,
    pub(super) wording: Wording,
}

/// Keeps the addresses of orders that are being taken. Durable once the transaction commits.
pub(crate) async fn keep_addresses(
    tx: &mut PgConnection,
    addresses: &[(OrderId, &MailAddress)],
) -> sqlx::Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO mail_addresses (order_id, address) SELECT * FROM UNNEST($1::uuid[], $2::text[])
         ON CONFLICT (order_id) DO NOTHING",
    )
    .bind(addresses.iter().map(|(order_id, _)| order_id.uuid()).collect::<Vec<_>>())
    .bind(addresses.iter().map(|(_, address)| address.as_str()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Those of the orders whose customer wants to hear of them.
pub(super) async fn addressed(
    connection: &mut PgConnection,
    orders: HashSet<OrderId>,
) -> sqlx::Result<HashSet<OrderId>> {
    if orders.is_empty() {
        return Ok(orders);
    }
    let found: Vec<Uuid> = sqlx::query_scalar("SELECT order_id FROM mail_addresses WHERE order_id = ANY($1)")
        .bind(orders.iter().map(|order_id| order_id.uuid()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    Ok(found.into_iter().map(OrderId).collect())
}

/// Adds the mails whose orders have an address and were not told as much before.
pub(super) async fn add(tx: &mut PgConnection, partition: i32, notices: &[Notice]) -> sqlx::Result<()> {
    if notices.is_empty() {
        return Ok(());
    }
    let orders: Vec<Uuid> = notices.iter().map(|notice| notice.key.order_id.uuid()).collect();
    let versions: Vec<i64> = notices.iter().map(|notice| notice.key.version).collect();
    sqlx::query(
        "INSERT INTO mails (partition_id, order_id, version, message_id, subject, body, address, try_at)
         SELECT $1, n.order_id, n.version, n.message_id, n.subject, n.body, a.address, now()
           FROM UNNEST($2::uuid[], $3::bigint[], $4::uuid[], $5::text[], $6::text[])
                AS n (order_id, version, message_id, subject, body)
          CROSS JOIN LATERAL (
             SELECT f.address, f.told_version FROM mail_addresses AS f WHERE f.order_id = n.order_id OFFSET 0) AS a
          WHERE n.version > a.told_version
         ON CONFLICT ON CONSTRAINT mails_pkey DO NOTHING",
    )
    .bind(partition)
    .bind(&orders)
    .bind(&versions)
    .bind(notices.iter().map(|notice| notice.message_id.uuid()).collect::<Vec<_>>())
    .bind(notices.iter().map(|notice| notice.wording.subject.as_str()).collect::<Vec<_>>())
    .bind(notices.iter().map(|notice| notice.wording.body.as_str()).collect::<Vec<_>>())
    .execute(&mut *tx)
    .await?;
    sqlx::query(TOLD).bind(&orders).bind(&versions).execute(tx).await?;
    Ok(())
}

/// Forgets the addresses of orders that have ended.
pub(super) async fn forget(tx: &mut PgConnection, orders: &[OrderId]) -> sqlx::Result<()> {
    if orders.is_empty() {
        return Ok(());
    }
    sqlx::query("DELETE FROM mail_addresses WHERE order_id = ANY($1)")
        .bind(orders.iter().map(|order_id| order_id.uuid()).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

/// At most `limit` mails that are due, longest due first, without those `in_hand`.
pub(super) async fn due(
    tx: &mut PgConnection,
    partition: i32,
    now: Timestamp,
    in_hand: &[MailKey],
    limit: i64,
) -> sqlx::Result<Vec<Mail>> {
    let rows = sqlx::query(
        "SELECT order_id, version, message_id, address, subject, body, tries FROM mails AS m
          WHERE partition_id = $1 AND try_at <= $2
            AND NOT EXISTS (SELECT FROM UNNEST($3::uuid[], $4::bigint[]) AS h (order_id, version)
                             WHERE h.order_id = m.order_id AND h.version = m.version)
          ORDER BY try_at LIMIT $5",
    )
    .bind(partition)
    .bind(now.to_utc())
    .bind(in_hand.iter().map(|key| key.order_id.uuid()).collect::<Vec<_>>())
    .bind(in_hand.iter().map(|key| key.version).collect::<Vec<_>>())
    .bind(limit)
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Mail {
                key: MailKey {
                    order_id: OrderId(row.try_get("order_id")?),
                    version: row.try_get("version")?,
                },
                message_id: MessageId(row.try_get("message_id")?),
                address: MailAddress(row.try_get("address")?),
                subject: row.try_get("subject")?,
                body: row.try_get("body")?,
                tries: row.try_get("tries")?,
            })
        })
        .collect()
}

/// When the first mail that is not due at `now` will be.
pub(super) async fn next_after(
    tx: &mut PgConnection,
    partition: i32,
    now: Timestamp,
) -> sqlx::Result<Option<Timestamp>> {
    let next: Option<DateTime<Utc>> =
        sqlx::query_scalar("SELECT min(try_at) FROM mails WHERE partition_id = $1 AND try_at > $2")
            .bind(partition)
            .bind(now.to_utc())
            .fetch_one(tx)
            .await?;
    Ok(next.map(Timestamp::from))
}

/// $1 orders, $2 versions.
const TOLD: &str = "UPDATE mail_addresses AS a SET told_version = n.version
   FROM (SELECT order_id, max(version) AS version
           FROM UNNEST($1::uuid[], $2::bigint[]) AS u (order_id, version) GROUP BY 1) AS n
  CROSS JOIN LATERAL (
     SELECT f.ctid, f.told_version FROM mail_addresses AS f WHERE f.order_id = n.order_id OFFSET 0) AS found (row_id, told_version)
  WHERE a.ctid = found.row_id AND found.told_version < n.version";

/// $1 partition, $2 and $3 keys.
const SETTLE: &str = "DELETE FROM mails AS m
  USING UNNEST($2::uuid[], $3::bigint[]) AS k (order_id, version)
  CROSS JOIN LATERAL (
     SELECT f.ctid FROM mails AS f
      WHERE f.partition_id = $1 AND f.order_id = k.order_id AND f.version = k.version OFFSET 0) AS found (row_id)
  WHERE m.ctid = found.row_id";

/// $1 partition, $2 and $3 keys, $4 when.
const PUT_OFF: &str = "UPDATE mails AS m SET tries = m.tries + 1, try_at = k.try_at
   FROM UNNEST($2::uuid[], $3::bigint[], $4::timestamptz[]) AS k (order_id, version, try_at)
  CROSS JOIN LATERAL (
     SELECT f.ctid FROM mails AS f
      WHERE f.partition_id = $1 AND f.order_id = k.order_id AND f.version = k.version OFFSET 0) AS found (row_id)
  WHERE m.ctid = found.row_id";

/// These mails are settled.
pub(super) async fn settle(tx: &mut PgConnection, partition: i32, keys: &[MailKey]) -> sqlx::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(SETTLE)
        .bind(partition)
        .bind(keys.iter().map(|key| key.order_id.uuid()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.version).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

/// These mails are tried again at their times.
pub(super) async fn put_off(
    tx: &mut PgConnection,
    partition: i32,
    mails: &[(MailKey, Timestamp)],
) -> sqlx::Result<()> {
    if mails.is_empty() {
        return Ok(());
    }
    sqlx::query(PUT_OFF)
        .bind(partition)
        .bind(mails.iter().map(|(key, _)| key.order_id.uuid()).collect::<Vec<_>>())
        .bind(mails.iter().map(|(key, _)| key.version).collect::<Vec<_>>())
        .bind(mails.iter().map(|(_, at)| at.to_utc()).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
