//! The worker's tables, behind the [`PaymentStore`] that the owner works on. Everything is set-based: one statement per kind of change and transaction. Rows are looked up by
//! `LATERAL (.. OFFSET 0)`: the planner can't turn that into a scan of a whole partition, however empty the table was
//! when the plan was made.

use std::collections::HashMap;
use std::future::Future;

use domain_types::{Currency, CustomerId, Money, OrderId, Timestamp};
use messaging::{HandlerError, Tx};
use payment_domain::{CallNumber, Charge, ChargeState, EarlyRefund, Movement, PaymentRecord, Terms};
use schemas::PaymentMethod;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Uuid;

const BARRED: &str = "barred";

/// $1 partition, $2 orders.
const LOAD: &str = "SELECT c.order_id, c.customer_id, c.amount, c.currency, c.body
   FROM UNNEST($2::uuid[]) AS k (order_id)
  CROSS JOIN LATERAL (
     (SELECT o.order_id, o.customer_id, o.amount, o.currency, o.body
        FROM open_charges AS o WHERE o.partition_id = $1 AND o.order_id = k.order_id OFFSET 0)
     UNION ALL
     (SELECT d.order_id, d.customer_id, d.amount, d.currency, d.body
        FROM done_charges AS d WHERE d.partition_id = $1 AND d.order_id = k.order_id OFFSET 0)) AS c";

const SAVE: &str = include_str!("save.sql");

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

    /// Saves what a transaction changed. Durable once it commits.
    fn save(
        &mut self,
        partition: i32,
        changes: &Changes<'_>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// What a transaction changed.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    /// Each order once.
    pub records: Vec<Change<'a>>,
    /// What is appended to the ledger.
    pub ledger: Option<LedgerRow<'a>>,
}

/// A record that a transaction changed.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// As it is now. Customer and terms of a stored one never change.
    pub record: &'a PaymentRecord,
    /// Where its row was before; `None`: it had none.
    pub was: Option<Table>,
}

/// The table that a record's row is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `open_charges`: a provider call is pending.
    Open,
    /// `done_charges`: none is.
    Done,
}

impl Table {
    /// Where this record's row is once it is saved.
    pub const fn of(record: &PaymentRecord) -> Self {
        match record {
            PaymentRecord::Charge(charge) if charge.state.pending().is_some() => Self::Open,
            PaymentRecord::Charge(_) | PaymentRecord::Barred { .. } => Self::Done,
        }
    }
}

/// A row of the ledger: the movements of one transaction.
#[derive(Debug, Clone, Copy)]
pub struct LedgerRow<'a> {
    /// The ownership.
    pub epoch: i64,
    /// The row within it.
    pub seq: i64,
    /// By this machine's clock.
    pub recorded_at: Timestamp,
    /// At least one.
    pub movements: &'a [Movement],
}

impl PaymentStore for Tx {
    async fn load(
        &mut self,
        partition: i32,
        orders: &[OrderId],
    ) -> Result<HashMap<OrderId, Stored>, HandlerError> {
        Ok(load(self.reader().await?, partition, orders).await?)
    }

    async fn load_pending(
        &mut self,
        partition: i32,
        until: Timestamp,
        in_hand: &[OrderId],
        limit: i64,
    ) -> Result<Vec<(OrderId, Stored)>, HandlerError> {
        Ok(load_pending(self.reader().await?, partition, until, in_hand, limit).await?)
    }

    async fn next_call_after(
        &mut self,
        partition: i32,
        until: Timestamp,
    ) -> Result<Option<Timestamp>, HandlerError> {
        Ok(next_call_after(self.reader().await?, partition, until).await?)
    }

    async fn save(&mut self, partition: i32, changes: &Changes<'_>) -> Result<(), HandlerError> {
        Ok(save(self, partition, changes).await?)
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
    let rows: Vec<Row> = sqlx::query_as(LOAD).bind(partition).bind(orders).fetch_all(tx).await?;
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
           FROM open_charges
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
        "SELECT min(next_call_at) FROM open_charges WHERE partition_id = $1 AND next_call_at > $2",
    )
    .bind(partition)
    .bind(until.as_millis())
    .fetch_one(tx)
    .await?;
    Ok(next.map(Timestamp::from_millis))
}

/// Rows of either table, by column; those of `done_charges` have no call.
#[derive(Default)]
struct Columns {
    order_id: Vec<Uuid>,
    customer_id: Vec<Uuid>,
    amount: Vec<Option<i64>>,
    currency: Vec<Option<&'static str>>,
    next_call_at: Vec<i64>,
    state: Vec<&'static str>,
    body: Vec<Option<String>>,
}

impl Columns {
    fn push(&mut self, record: &PaymentRecord) -> Result<(), StoreError> {
        match record {
            PaymentRecord::Barred { order_id, customer_id } => {
                self.order_id.push(order_id.uuid());
                self.customer_id.push(customer_id.uuid());
                self.amount.push(None);
                self.currency.push(None);
                self.state.push(BARRED);
                self.body.push(None);
            }
            PaymentRecord::Charge(charge) => {
                let body = BodyOut {
                    method: &charge.terms.method,
                    calls: charge.calls,
                    charge: &charge.state,
                    refund: charge.refund.as_deref(),
                };
                self.order_id.push(charge.order_id.uuid());
                self.customer_id.push(charge.customer_id.uuid());
                self.amount.push(Some(charge.terms.amount.amount));
                self.currency.push(Some(charge.terms.amount.currency.code()));
                self.next_call_at.extend(charge.state.pending().map(|call| call.not_before.as_millis()));
                self.state.push(charge.state.name());
                self.body.push(Some(serde_json::to_string(&body)?));
            }
        }
        Ok(())
    }
}

/// What happens to the rows of one table.
#[derive(Default)]
struct Rows {
    new: Columns,
    changed: Columns,
    gone: Vec<Uuid>,
}

async fn save(tx: &mut Tx, partition: i32, changes: &Changes<'_>) -> Result<(), StoreError> {
    let Changes { records, ledger } = changes;
    if records.is_empty() && ledger.is_none() {
        return Ok(());
    }
    let (mut open, mut done) = (Rows::default(), Rows::default());
    for Change { record, was } in records {
        let table = Table::of(record);
        let (here, there) = match table {
            Table::Open => (&mut open, &mut done),
            Table::Done => (&mut done, &mut open),
        };
        if *was == Some(table) {
            here.changed.push(record)?;
        } else {
            here.new.push(record)?;
            there.gone.extend(was.map(|_| record.order_id().uuid()));
        }
    }
    let movements = ledger.map(|row| serde_json::to_string(row.movements)).transpose()?;
    let save = sqlx::query(SAVE)
        .bind(partition)
        .bind(open.new.order_id)
        .bind(open.new.customer_id)
        .bind(open.new.amount)
        .bind(open.new.currency)
        .bind(open.new.next_call_at)
        .bind(open.new.state)
        .bind(open.new.body)
        .bind(open.changed.order_id)
        .bind(open.changed.next_call_at)
        .bind(open.changed.state)
        .bind(open.changed.body)
        .bind(open.gone)
        .bind(done.new.order_id)
        .bind(done.new.customer_id)
        .bind(done.new.amount)
        .bind(done.new.currency)
        .bind(done.new.state)
        .bind(done.new.body)
        .bind(done.changed.order_id)
        .bind(done.changed.state)
        .bind(done.changed.body)
        .bind(done.gone)
        .bind(ledger.map(|row| row.epoch))
        .bind(ledger.map(|row| row.seq))
        .bind(ledger.map(|row| row.recorded_at.as_millis()))
        .bind(movements);
    Ok(tx.last(save).await?)
}

#[cfg(test)]
mod tests;
