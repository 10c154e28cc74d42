//! What a service writes: a handler for one partition, and the factory that makes one at each take-over.

use std::future::Future;
use std::sync::Arc;

use domain_types::{MessageId, OrderId, Timestamp};
use schemas::DecodeError;
use sqlx::PgPool;
use tokio::sync::Notify;

use crate::{HandlerError, Outputs, Received, Record, Tx};

/// Applies the records of one partition. There is one handler per owned partition, made anew at each take-over; it
/// may cache state, because the fence makes sure that nobody else changes it.
///
/// `T` is the transaction: PostgreSQL's for the runtime, another store's for a simulation that drives the
/// same handler.
pub trait Handler<T = Tx>: Send + 'static {
    /// What a record says, once decoded.
    type Input: Send + Sync + 'static;

    /// Reads a record's value. An error parks the record.
    fn decode(&self, record: &Record) -> Result<Self::Input, DecodeError>;

    /// What a sampled record's span is called. `None`: it has none.
    fn traced(&self, input: &Self::Input) -> Option<Traced> {
        let _ = input;
        None
    }

    /// Applies a batch (offset order, 1 to [`crate::Limits::batch_records`] records) in a transaction.
    ///
    /// The runtime adds position and outbox to the same transaction and commits it; `outputs` are published after
    /// that. It may be called again with the same records, or with some of them, after a rollback: so no effects but
    /// in `tx` and `outputs`.
    ///
    /// # Errors
    /// `Transient` is tried again; `Permanent` and `Bug` (and a panic) lead to halving the batch until
    /// the culprit is alone, which is parked.
    fn handle(
        &mut self,
        tx: &mut T,
        batch: &[Received<Self::Input>],
        outputs: &mut Outputs,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// When [`Handler::work`] wants to run next, by this machine's clock; `None`: not until it is woken.
    fn next_work(&self) -> Option<Timestamp> {
        None
    }

    /// All else that an owner does (due timers, outcomes of remote calls), in a fenced transaction without records.
    /// Called when [`Handler::next_work`] is due or the [`Waker`] was used.
    fn work(
        &mut self,
        tx: &mut T,
        now: Timestamp,
        outputs: &mut Outputs,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = (tx, now, outputs);
        async { Ok(()) }
    }

    /// The transaction of the last `handle` or `work` is committed.
    fn committed(&mut self) {}

    /// It is not: drop what was cached from it.
    fn rolled_back(&mut self) {}
}

/// What a record's span says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// The message; outputs carry [`Record::onward`] of it.
    pub message_id: MessageId,
    /// Its type.
    pub message_type: &'static str,
    /// Its order.
    pub order_id: Option<OrderId>,
}

/// Makes the handler of a partition that this process has just taken over.
pub trait HandlerFactory: Send + Sync + 'static {
    /// The handler.
    type Handler: Handler;

    /// Called after the epoch was raised and the predecessor's outputs were published: from now on nobody else
    /// changes the partition's state. Load what has to go on.
    fn take_over(
        &self,
        ownership: Ownership,
    ) -> impl Future<Output = Result<Self::Handler, HandlerError>> + Send;
}

/// A partition that this process owns.
#[derive(Debug, Clone)]
pub struct Ownership {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// Raised at each take-over.
    pub epoch: i64,
    /// The database that holds this partition's position and state.
    pub pool: PgPool,
    /// Makes the runtime call [`Handler::work`] soon.
    pub waker: Waker,
}

/// Makes the runtime call [`Handler::work`] soon; may be used from any task.
#[derive(Debug, Clone, Default)]
pub struct Waker(Arc<Notify>);

impl Waker {
    /// Wakes the owner; calls before it looks are one call.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits until it was used since the last wait. Cancel safe.
    pub async fn woken(&self) {
        self.0.notified().await;
    }
}
