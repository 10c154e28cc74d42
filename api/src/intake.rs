//! The intake: what happens to a valid order between its arrival and Kafka's acknowledgement.
//!
//! One task takes all orders that wait, looks up their products in one statement, keeps them in another, and hands
//! them to the producer as one batch. It runs apart from the requests, so that a client that hangs up cancels
//! nothing half way.

pub(crate) mod acknowledged;
mod batch;
pub(crate) mod repeat;
mod store;

pub(crate) use store::{IntakeRow, keep_published};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain_types::{CustomerId, OrderId, Sku, Timestamp};
use messaging::Publisher;
use schemas::{Policy, Ticket};
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Refusal;
use crate::metrics::IntakeMetrics;
use crate::notices::MailAddress;
use crate::orders::model::Order;
use crate::orders::validate::ValidOrder;

/// Orders that may wait for the next batch; more are told that the service is unavailable.
const WAITING_ORDERS: usize = 4_096;
/// Most orders of one statement.
const BATCH_ORDERS: usize = 500;

/// An order whose form is right.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) order_id: OrderId,
    pub(crate) customer_id: CustomerId,
    /// Whether its id comes from an `Idempotency-Key`: only then can it be a repeat.
    pub(crate) keyed: bool,
    pub(crate) order: ValidOrder,
    /// The lines' places at the door.
    pub(crate) tickets: HashMap<Sku, Ticket>,
    /// The door let it not in: it is only looked for.
    pub(crate) refused: Option<Refusal>,
    pub(crate) fingerprint: String,
    /// Where its customer wants to hear about the payment.
    pub(crate) mail: Option<MailAddress>,
    pub(crate) traceparent: String,
}

/// What became of a submission.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Kept, published and acknowledged: version 1.
    Accepted(Box<Order>),
    /// The order was there already, and is in the log.
    Repeated,
    /// Not let in, and not there either.
    Refused(Refusal),
    /// There is another order under that key.
    KeyReused,
    /// These skus do not exist.
    UnknownSkus(Vec<Sku>),
    /// The lines' prices are in different currencies.
    MixedCurrencies,
    /// The total does not fit.
    TotalOverflow,
    /// Something is away, nothing was kept.
    Unavailable(&'static str),
    /// Kept, or perhaps kept, but not acknowledged.
    Unknown,
}

impl Outcome {
    /// Whether the order's row is this submission's, or may be.
    pub(crate) const fn is_or_may_be_kept(&self) -> bool {
        match self {
            Self::Accepted(_) | Self::Unknown => true,
            Self::Repeated
            | Self::Refused(_)
            | Self::KeyReused
            | Self::UnknownSkus(_)
            | Self::MixedCurrencies
            | Self::TotalOverflow
            | Self::Unavailable(_) => false,
        }
    }

    const fn label(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Repeated => "repeated",
            Self::KeyReused => "key_reused",
            Self::Refused(_) | Self::UnknownSkus(_) | Self::MixedCurrencies | Self::TotalOverflow => {
                "refused"
            }
            Self::Unavailable(_) => "unavailable",
            Self::Unknown => "unknown",
        }
    }
}

/// A submission and who waits for its outcome.
#[derive(Debug)]
struct Waiting {
    submission: Submission,
    reply: oneshot::Sender<Outcome>,
}

/// What the intake needs, and how orders are published.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) pool: PgPool,
    pub(crate) publisher: Publisher,
    pub(crate) policy: Policy,
    /// The definition of the saga that they begin with.
    pub(crate) saga_definition: u16,
    /// How long after its arrival an order may reach the log.
    pub(crate) publish_within: Duration,
    pub(crate) acknowledged: mpsc::Sender<OrderId>,
    /// Whether anybody is told by mail: else no address is kept.
    pub(crate) tells_by_mail: bool,
    pub(crate) metrics: IntakeMetrics,
}

/// The way into the intake. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Intake {
    queue: mpsc::Sender<Waiting>,
    metrics: IntakeMetrics,
}

impl Intake {
    /// Starts the intake's task on `tasks`. It ends once every clone of the returned value is gone, or after
    /// `shutdown` with what waits then.
    pub(crate) fn start(means: Means, tasks: &TaskTracker, shutdown: CancellationToken) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_ORDERS);
        let publishing = tasks.clone();
        let metrics = means.metrics.clone();
        tasks.spawn(take_orders(Arc::new(means), waiting, publishing, shutdown));
        Self { queue, metrics }
    }

    /// The outcome of an order that was not let in and can't be a repeat.
    pub(crate) fn refused(&self, refusal: Refusal) -> Outcome {
        let outcome = Outcome::Refused(refusal);
        self.metrics.outcomes.with_label_values(&[outcome.label()]).inc();
        outcome
    }

    /// Submits an order. The outcome arrives within a few seconds; dropping the receiver takes nothing back.
    ///
    /// # Errors
    /// [`Outcome::Unavailable`] when too many wait already.
    pub(crate) fn submit(&self, submission: Submission) -> Result<oneshot::Receiver<Outcome>, Outcome> {
        let (reply, outcome) = oneshot::channel();
        match self.queue.try_send(Waiting { submission, reply }) {
            Ok(()) => Ok(outcome),
            Err(_full_or_closed) => Err(Outcome::Unavailable("the order intake")),
        }
    }
}

async fn take_orders(
    means: Arc<Means>,
    mut queue: mpsc::Receiver<Waiting>,
    publishing: TaskTracker,
    shutdown: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH_ORDERS);
    loop {
        let received = tokio::select! {
            received = queue.recv_many(&mut batch, BATCH_ORDERS) => received,
            () = shutdown.cancelled() => {
                queue.close();
                queue.recv_many(&mut batch, BATCH_ORDERS).await
            }
        };
        if received == 0 {
            return;
        }
        batch::take(&means, std::mem::take(&mut batch), &publishing).await;
    }
}

/// This machine's clock; orders are judged by the log's.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()))
}
