//! Publishes once more, unchanged, each order that the projection still does not know after its `publish_before`.
//!
//! So a row whose publication failed, or never began, gets its answer from the log: a `PlaceOrder` that arrives late ends
//! `REJECTED` (`not_placed`), one that was there before changes nothing. A mark in the database says how far the look
//! has come; several nodes may look at the same rows, which costs a repeated record and nothing else.

use std::time::Duration;

use domain_types::{OrderId, Timestamp};
use messaging::Publisher;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::store::{self, SweptTo};
use super::{batch, now};

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// Rows of one look.
const LIMIT: i64 = 500;

/// Why a look was given up; the next one begins where it did.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Publish(#[from] messaging::PublishError),
    #[error(transparent)]
    Broker(#[from] messaging::BrokerAway),
}

/// Runs until `shutdown`. Looks at rows `after` their `publish_before`.
pub(crate) async fn sweep(pool: PgPool, publisher: Publisher, after: Duration, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        let until = Timestamp::from_millis(
            now().as_millis().saturating_sub(i64::try_from(after.as_millis()).unwrap_or(i64::MAX)),
        );
        // Not cancelled half way: a statement in flight would only be repeated.
        if let Err(error) = sweep_until(&pool, &publisher, until).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "unplaced orders are looked at later");
        }
    }
}

async fn sweep_until(pool: &PgPool, publisher: &Publisher, until: Timestamp) -> Result<(), SweepError> {
    let mut from = store::swept_to(pool).await?;
    loop {
        let (unplaced, last) = store::unplaced(pool, from, until, LIMIT).await?;
        if !unplaced.is_empty() {
            publisher.reachable().await?;
            tracing::info!(orders = unplaced.len(), "orders without a saga are published once more");
            let outputs: Vec<_> = unplaced.iter().map(|row| batch::output(row, &new_trace())).collect();
            publisher.publish(&outputs).await?;
        }
        match last {
            Some(last) => {
                store::sweep_to(pool, last).await?;
                from = last;
            }
            None => break,
        }
    }
    // Skips what was looked at by others, and keeps the next look short.
    store::sweep_to(pool, SweptTo { publish_before: until, order_id: OrderId(Uuid::max()) }).await?;
    Ok(())
}

fn new_trace() -> String {
    let span = Uuid::new_v4().simple().to_string().split_off(16);
    format!("00-{}-{span}-01", Uuid::new_v4().simple())
}
