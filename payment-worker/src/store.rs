//! The worker's tables, behind the [`PaymentStore`] that the owner works on. Everything is set-based: one statement per kind of change and transaction. Rows are looked up by
//! `LATERAL (.. OFFSET 0)`: the planner can't turn that into a scan of a whole partition, however empty the table was
//! when the plan was made.

use std::collections::HashMap;
use std::future::Future;

use domain_types::{Currency, CustomerId, Money, OrderId, Timestamp};
use messaging::HandlerError;
use payment_domain::{CallNumber, Charge, ChargeState, EarlyRefund, Movement, PaymentRecord, Terms};
use schemas::PaymentMethod;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Uuid;

const BARRED: &str = "barred";

/// The charges of a partition, in an open transaction.
pub trait PaymentStore: Send {
    /// What is stored under these orders.
    fn load(
        &mut self,
        partition: i32,
        orders: &[OrderId],
    ) -> impl Future<Output = Result<HashMap<OrderId, Stored>, HandlerError>> + Send;

    /// At most `limit` charges whose provider call is due by `until`, longest due first, without those `in_hand`.
    fn load_pending(
        &mut self,
        partition: i32,
        until: Timestamp,
        in_hand: &[OrderId],
        limit: i64,
    ) -> impl Future<Output = Result<Vec<(OrderId, Stored)>, HandlerError>> + Send;

    /// When the first call that is not due by `until` will be.
    fn next_call_after(
        &mut self,
        partition: i32,
        until: Timestamp,
    ) -> impl Future<Output = Result<Option<Timestamp>, HandlerError>> + Send;

    /// Adds orders that have no row yet.
    fn insert(
        &mut self,
        partition: i32,
        records: &[&PaymentRecord],
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Changes orders that have a row. Customer and terms never change.
    fn update(
        &mut self,
        partition: i32,
        records: &[&PaymentRecord],
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Appends the movements of this transaction to the ledger, as one row.
    fn append_movements(
        &mut self,
        key: LedgerKey,
        now: Timestamp,
        movements: &[Movement],
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

impl PaymentStore for PgConnection {
    async fn load(
        &mut self,
        partition: i32,
        orders: &[OrderId],
    ) -> Result<HashMap<OrderId, Stored>, HandlerError> {
        Ok(load(self, partition, orders).await?)
    }

    async fn load_pending(
        &mut self,
        partition: i32,
        until: Timestamp,
        in_hand: &[OrderId],
        limit: i64,
    ) -> Result<Vec<(OrderId, Stored)>, HandlerError> {
        Ok(load_pending(self, partition, until, in_hand, limit).await?)
    }

    async fn next_call_after(
        &mut self,
        partition: i32,
        until: Timestamp,
    ) -> Result<Option<Timestamp>, HandlerError> {
        Ok(next_call_after(self, partition, until).await?)
    }

    async fn insert(&mut self, partition: i32, records: &[&PaymentRecord]) -> Result<(), HandlerError> {
        Ok(insert(self, partition, records.iter().copied()).await?)
    }

    async fn update(&mut self, partition: i32, records: &[&PaymentRecord]) -> Result<(), HandlerError> {
        Ok(update(self, partition, records.iter().copied()).await?)
    }

    async fn append_movements(
        &mut self,
        key: LedgerKey,
        now: Timestamp,
        movements: &[Movement],
    ) -> Result<(), HandlerError> {
        Ok(append_movements(self, key, now, movements).await?)
    }
}

/// Why the tables could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("state can't be written as json")]
    Json(#[from] serde_json::Error),
}

impl From<StoreError> for HandlerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Database(error) => error.into(),
            error @ StoreError::Json(_) => Self::bug(error),
        }
    }
}

/// What a row holds.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are records")]
pub enum Stored {
    /// This.
    Record(PaymentRecord),
    /// Written by a later build, or damaged; says why.
    Unreadable(String),
}

#[derive(Serialize)]
struct BodyOut<'a> {
    method: &'a PaymentMethod,
    calls: CallNumber,
    charge: &'a ChargeState,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund: Option<&'a EarlyRefund>,
}

#[derive(Deserialize)]
struct BodyIn {
    method: PaymentMethod,
    calls: CallNumber,
    charge: ChargeState,
    #[serde(default)]
    refund: Option<EarlyRefund>,
}

#[derive(sqlx::FromRow)]
struct Row {
    order_id: Uuid,
    customer_id: Uuid,
    amount: Option<i64>,
    currency: Option<String>,
    body: Option<String>,
}

impl Row {
    fn read(self) -> (OrderId, Stored) {
        let (order_id, customer_id) = (OrderId(self.order_id), CustomerId(self.customer_id));
        let (Some(amount), Some(currency), Some(body)) = (self.amount, self.currency, self.body) else {
            return (order_id, Stored::Record(PaymentRecord::Barred { order_id, customer_id }));
        };
        let Some(currency) = Currency::from_code(&currency) else {
            return (order_id, Stored::Unreadable(format!("no currency: {currency:?}")));
        };
        let stored = match serde_json::from_str::<BodyIn>(&body) {
            Err(error) => Stored::Unreadable(error.to_string()),
            Ok(body) => Stored::Record(PaymentRecord::Charge(Charge {
                order_id,
                customer_id,
                terms: Terms { amount: Money::new(amount, currency), method: body.method },
                state: body.charge,
                calls: body.calls,
                refund: body.refund.map(Box::new),
            })),
        };
        (order_id, stored)
    }
}

fn uuids(orders: &[OrderId]) -> Vec<Uuid> {
    orders.iter().map(|order_id| order_id.uuid()).collect()
}

async fn load(
    tx: &mut PgConnection,
    partition: i32,
    orders: &[OrderId],
) -> Result<HashMap<OrderId, Stored>, StoreError> {
    if orders.is_empty() {
        return Ok(HashMap::new());
    }
    let orders = uuids(orders);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT c.order_id, c.customer_id, c.amount, c.currency, c.body
           FROM UNNEST($2::uuid[]) AS k (order_id)
          CROSS JOIN LATERAL (
             SELECT c.* FROM charges AS c WHERE c.partition_id = $1 AND c.order_id = k.order_id OFFSET 0) AS c",
    )
    .bind(partition)
    .bind(orders)
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(Row::read).collect())
}

async fn load_pending(
    tx: &mut PgConnection,
    partition: i32,
    until: Timestamp,
    in_hand: &[OrderId],
    limit: i64,
) -> Result<Vec<(OrderId, Stored)>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT order_id, customer_id, amount, currency, body
           FROM charges
          WHERE partition_id = $1 AND next_call_at <= $2 AND order_id <> ALL($3)
          ORDER BY next_call_at LIMIT $4",
    )
    .bind(partition)
    .bind(until.as_millis())
    .bind(uuids(in_hand))
    .bind(limit)
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(Row::read).collect())
}

async fn next_call_after(
    tx: &mut PgConnection,
    partition: i32,
    until: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let next: Option<i64> = sqlx::query_scalar(
        "SELECT min(next_call_at) FROM charges WHERE partition_id = $1 AND next_call_at > $2",
    )
    .bind(partition)
    .bind(until.as_millis())
    .fetch_one(tx)
    .await?;
    Ok(next.map(Timestamp::from_millis))
}

#[derive(Default)]
struct Columns {
    order_id: Vec<Uuid>,
    customer_id: Vec<Uuid>,
    amount: Vec<Option<i64>>,
    currency: Vec<Option<&'static str>>,
    next_call_at: Vec<Option<i64>>,
    state: Vec<&'static str>,
    body: Vec<Option<String>>,
}

impl Columns {
    fn of<'a>(records: impl Iterator<Item = &'a PaymentRecord>) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for record in records {
            match record {
                PaymentRecord::Barred { order_id, customer_id } => {
                    columns.order_id.push(order_id.uuid());
                    columns.customer_id.push(customer_id.uuid());
                    columns.amount.push(None);
                    columns.currency.push(None);
                    columns.next_call_at.push(None);
                    columns.state.push(BARRED);
                    columns.body.push(None);
                }
                PaymentRecord::Charge(charge) => {
                    let body = BodyOut {
                        method: &charge.terms.method,
                        calls: charge.calls,
                        charge: &charge.state,
                        refund: charge.refund.as_deref(),
                    };
                    columns.order_id.push(charge.order_id.uuid());
                    columns.customer_id.push(charge.customer_id.uuid());
                    columns.amount.push(Some(charge.terms.amount.amount));
                    columns.currency.push(Some(charge.terms.amount.currency.code()));
                    columns.next_call_at.push(charge.state.pending().map(|call| call.not_before.as_millis()));
                    columns.state.push(charge.state.name());
                    columns.body.push(Some(serde_json::to_string(&body)?));
                }
            }
        }
        Ok(columns)
    }
}

async fn insert<'a>(
    tx: &mut PgConnection,
    partition: i32,
    records: impl Iterator<Item = &'a PaymentRecord>,
) -> Result<(), StoreError> {
    let columns = Columns::of(records)?;
    if columns.order_id.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO charges
                (partition_id, order_id, customer_id, amount, currency, next_call_at, state, body)
         SELECT $1, * FROM UNNEST($2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::bigint[],
                                  $7::text[], $8::text[])",
    )
    .bind(partition)
    .bind(columns.order_id)
    .bind(columns.customer_id)
    .bind(columns.amount)
    .bind(columns.currency)
    .bind(columns.next_call_at)
    .bind(columns.state)
    .bind(columns.body)
    .execute(tx)
    .await?;
    Ok(())
}

async fn update<'a>(
    tx: &mut PgConnection,
    partition: i32,
    records: impl Iterator<Item = &'a PaymentRecord>,
) -> Result<(), StoreError> {
    let columns = Columns::of(records)?;
    if columns.order_id.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE charges c
            SET next_call_at = new.next_call_at, state = new.state, body = new.body
           FROM UNNEST($2::uuid[], $3::bigint[], $4::text[], $5::text[])
                AS new (order_id, next_call_at, state, body)
          CROSS JOIN LATERAL (
             SELECT f.ctid FROM charges AS f WHERE f.partition_id = $1 AND f.order_id = new.order_id OFFSET 0
             ) AS found (row_id)
          WHERE c.ctid = found.row_id",
    )
    .bind(partition)
    .bind(columns.order_id)
    .bind(columns.next_call_at)
    .bind(columns.state)
    .bind(columns.body)
    .execute(tx)
    .await?;
    Ok(())
}

/// The key of a ledger row.
#[derive(Debug, Clone, Copy)]
pub struct LedgerKey {
    /// The partition.
    pub partition: i32,
    /// The ownership.
    pub epoch: i64,
    /// The row within it.
    pub seq: i64,
}

async fn append_movements(
    tx: &mut PgConnection,
    key: LedgerKey,
    now: Timestamp,
    movements: &[Movement],
) -> Result<(), StoreError> {
    if movements.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO money_movements (partition_id, epoch, seq, recorded_at, entries)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(key.partition)
    .bind(key.epoch)
    .bind(key.seq)
    .bind(now.as_millis())
    .bind(serde_json::to_string(movements)?)
    .execute(tx)
    .await?;
    Ok(())
}
