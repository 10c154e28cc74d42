//! The door: first come, first served, decided in Redis within a millisecond and without Kafka.
//!
//! A line is let in while `issued + quantity <= granted + voided`, where `granted` is what the stock worker says was ever
//! there to be had, `issued` what was promised at the door, and `voided` what was promised and never taken. All of it is a
//! hint: the stock worker decides, and without Redis everybody is let in. See `docs/adr/0011-admission-in-redis.md`.

mod asks;
mod events;
mod levels;
mod scripts;
mod store;
mod sweep;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain_types::{CustomerId, OrderId, Quantity, Sku, Timestamp};
use messaging::{Cluster, Publisher};
use schemas::Ticket;
use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use asks::Asks;
pub(crate) use events::Settlements;
use levels::Levels;
use scripts::{Admitted, Ask, Asking, Held, Told};

use crate::intake::{Intake, Outcome, Submission, now};
use crate::redis::{Redis, RedisAway};

/// How often a script may ask back.
const MOST_QUESTIONS: usize = 4;
/// How long a customer's orders may be looked for.
const ORDERS_WITHIN: Duration = Duration::from_millis(500);
/// How long after its `publish_before` a ticket without an intake row counts as lost: longer than any statement lasts.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Why an order is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Fewer units are left than wanted.
    SoldOut(Sku),
    /// The customer would have more than one customer may.
    LimitExceeded(Sku),
    /// The product is not on sale now.
    SaleClosed {
        sku: Sku,
        /// When it will be, if ever.
        opens_at: Option<Timestamp>,
    },
}

/// The door.
pub(crate) struct Admission {
    redis: Redis,
    asks: Asks,
    pool: PgPool,
    publisher: Publisher,
    levels: Levels,
    publish_within: Duration,
    /// Skus with tickets that are looked after.
    touched: Mutex<HashSet<Sku>>,
}

/// The tickets of an order, held by one request.
#[derive(Debug, Default)]
struct Hand {
    request: Uuid,
    held: Vec<Held>,
}

impl Hand {
    fn tickets(&self) -> HashMap<Sku, Ticket> {
        self.held.iter().map(|held| (held.sku.clone(), held.ticket)).collect()
    }
}

/// What a request wants.
struct Order<'a> {
    order_id: OrderId,
    customer_id: CustomerId,
    fingerprint: &'a str,
    lines: &'a [(Sku, Quantity)],
}

impl Admission {
    /// Opens the door; `publish_within` is how long after its arrival an order may reach the log. Needs a Tokio runtime.
    pub(crate) fn new(redis: Redis, pool: PgPool, publisher: Publisher, publish_within: Duration) -> Self {
        let (asks, levels) = (Asks::start(redis.clone()), Levels::default());
        Self { redis, asks, pool, publisher, levels, publish_within, touched: Mutex::default() }
    }

    /// Keeps the counts current until `shutdown`. What `order-events` tell comes by [`Admission::settlements`].
    pub(crate) fn start(
        self: &Arc<Self>,
        cluster: &Cluster,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) {
        tasks.spawn(self.levels.clone().run(cluster.clone(), self.redis.clone(), shutdown.clone()));
        tasks.spawn(sweep::run(Arc::clone(self), shutdown.clone()));
    }

    /// The consumer of `order-events`.
    pub(crate) fn settlements(&self) -> Settlements {
        Settlements { redis: self.redis.clone(), levels: self.levels.clone() }
    }

    /// Takes an order through the door and the intake, and waits for its outcome until `deadline`.
    ///
    /// Runs on when the caller is dropped, so that no ticket stays with nobody.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        intake: &Intake,
        submission: Submission,
        deadline: Instant,
    ) -> Outcome {
        let (this, intake) = (Arc::clone(self), intake.clone());
        let task = tokio::spawn(async move { this.pass(&intake, submission, deadline).await });
        task.await.unwrap_or(Outcome::Unknown)
    }

    async fn pass(&self, intake: &Intake, mut submission: Submission, deadline: Instant) -> Outcome {
        let mut hand = Hand::default();
        // Without a broker there is no order: the intake says so, and no ticket is taken.
        if self.publisher.reachable().await.is_ok() {
            match self.admit(&submission).await {
                Ok(taken) => hand = taken,
                Err(refusal) if submission.keyed => submission.refused = Some(refusal),
                Err(refusal) => return intake.refused(refusal),
            }
        }
        submission.tickets = hand.tickets();
        let outcome = match intake.submit(submission) {
            Ok(outcome) => match tokio::time::timeout_at(deadline, outcome).await {
                Ok(Ok(outcome)) => outcome,
                // Late, or the intake ended with it in hand: it may be kept and sent.
                Ok(Err(_)) | Err(_) => Outcome::Unknown,
            },
            Err(outcome) => outcome,
        };
        if !outcome.is_or_may_be_kept() {
            self.let_go(hand).await;
        }
        outcome
    }

    /// Asks for each line, in sku order. A refusal gives back the earlier ones.
    async fn admit(&self, submission: &Submission) -> Result<Hand, Refusal> {
        let order = Order {
            order_id: submission.order_id,
            customer_id: submission.customer_id,
            fingerprint: &submission.fingerprint,
            lines: &submission.order.lines,
        };
        let mut hand = Hand { request: Uuid::new_v4(), held: Vec::new() };
        for (sku, quantity) in order.lines {
            match self.admit_line(&order, hand.request, sku, *quantity).await {
                Ok(Some(ticket)) => {
                    let Order { order_id, customer_id, .. } = order;
                    hand.held.push(Held { sku: sku.clone(), order_id, customer_id, ticket });
                }
                Ok(None) => {}
                Err(refusal) => {
                    self.let_go(hand).await;
                    return Err(refusal);
                }
            }
        }
        Ok(hand)
    }

    /// A ticket, or none where the stock worker is to decide.
    async fn admit_line(
        &self,
        order: &Order<'_>,
        request: Uuid,
        sku: &Sku,
        quantity: Quantity,
    ) -> Result<Option<Ticket>, Refusal> {
        let at = now();
        self.touch(sku);
        let asking = Asking {
            sku,
            units: quantity.get(),
            order_id: order.order_id,
            customer_id: order.customer_id,
            request,
            fingerprint: order.fingerprint,
            deadline: at.plus(self.publish_within).plus(LOST_AFTER),
        };
        let mut told = Told::default();
        for _ in 0..MOST_QUESTIONS {
            let Ok(answer) = self.asks.admit(Ask::new(&asking, at, &told)).await else { return Ok(None) };
            match answer {
                Admitted::Ticket(ticket) => return Ok(Some(ticket)),
                Admitted::Pass => return Ok(None),
                Admitted::SoldOut => return Err(Refusal::SoldOut(sku.clone())),
                Admitted::OverLimit => return Err(Refusal::LimitExceeded(sku.clone())),
                Admitted::Closed { opens_at } => {
                    return Err(Refusal::SaleClosed { sku: sku.clone(), opens_at });
                }
                Admitted::Unknown => match self.levels.feed(&self.redis, sku).await {
                    Ok(true) => {}
                    Ok(false) | Err(RedisAway) => return Ok(None),
                },
                Admitted::NeedsWindow(window) => told.judge(&window, at),
                Admitted::NeedsCustomer => match self.units_of(order.customer_id, sku).await {
                    Some(units) => told.customer = Some(units),
                    None => return Ok(None),
                },
            }
        }
        Ok(None)
    }

    /// A customer's orders that have units of a sku, as the projection knows them; `None` if it can't be asked.
    async fn units_of(&self, customer: CustomerId, sku: &Sku) -> Option<Vec<(OrderId, u32)>> {
        let orders = tokio::time::timeout(ORDERS_WITHIN, store::orders_of(&self.pool, customer)).await;
        let orders = orders.ok()?.ok()?;
        let units = orders.iter().flat_map(|order| {
            let lines = order.lines.iter().filter(|line| line.sku == *sku);
            lines.map(|line| (order.id, line.quantity.get()))
        });
        Some(units.collect())
    }

    async fn let_go(&self, hand: Hand) {
        for held in &hand.held {
            // Redis away: the sweep finds the ticket.
            if let Err(RedisAway) = scripts::let_go(&self.redis, held, Some(hand.request)).await {
                tracing::debug!(sku = %held.sku, order_id = %held.order_id, "a ticket is given back later");
            }
        }
    }

    fn touch(&self, sku: &Sku) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if !touched.contains(sku) {
            touched.insert(sku.clone());
        }
    }

    /// Skus touched since the last call.
    fn touched(&self) -> Vec<Sku> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }
}
