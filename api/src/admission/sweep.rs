//! Looks after the counts: tickets that nobody stands behind any more are voided, and a count that stays different from
//! the stock begins anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain_types::{Sku, Timestamp};
use schemas::{Envelope, OrderSagaMessage};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::scripts::{self, Count, Held, Look};
use super::{Admission, RedisAway, store};
use crate::intake::now;

/// How often the skus are looked at that had orders since.
const EVERY: Duration = Duration::from_secs(2);
/// After how many looks all skus are looked at: another node's may be among them.
const ALL_EVERY: u32 = 30;
/// When a ticket whose order is on its way is looked at again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Most overdue tickets of one look at a sku.
const MOST: usize = 100;
/// Skus that one script looks at.
const SKUS_PER_LOOK: usize = 64;

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Redis(#[from] RedisAway),
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// Runs until `shutdown`.
pub(super) async fn run(admission: Arc<Admission>, shutdown: CancellationToken) {
    let mut suspects = HashMap::new();
    let mut looks = 0_u32;
    while shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        let skus =
            if looks.is_multiple_of(ALL_EVERY) { admission.levels.skus() } else { admission.touched() };
        looks = looks.wrapping_add(1);
        let at_once = if admission.redis.is_cluster() { 1 } else { SKUS_PER_LOOK };
        for skus in Vec::from_iter(skus).chunks(at_once) {
            let looking = look_after(&admission, skus, &mut suspects);
            let Some(again) = shutdown.run_until_cancelled(looking).await else { return };
            again.iter().for_each(|sku| admission.touch(sku));
        }
    }
}

/// Those that should be looked at again soon.
async fn look_after(admission: &Admission, skus: &[Sku], suspects: &mut HashMap<Sku, Count>) -> Vec<Sku> {
    let at = now();
    let looks = match scripts::look(&admission.redis, skus, at, at.plus(AGAIN_AFTER), MOST).await {
        Ok(looks) => looks,
        Err(RedisAway) => return skus.to_vec(),
    };
    let mut again = Vec::new();
    for (sku, look) in skus.iter().zip(looks) {
        match judge(admission, sku, look, at, suspects).await {
            Ok(false) => {}
            Ok(true) => again.push(sku.clone()),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, %sku, "looked at later");
                again.push(sku.clone());
            }
        }
    }
    again
}

/// Says whether the sku should be looked at again soon.
async fn judge(
    admission: &Admission,
    sku: &Sku,
    look: Option<Look>,
    at: Timestamp,
    suspects: &mut HashMap<Sku, Count>,
) -> Result<bool, SweepError> {
    let redis = &admission.redis;
    let Some(look) = look else { return Ok(admission.levels.feed(redis, sku).await?) };
    for held in abandoned(&admission.pool, look.overdue).await? {
        if scripts::let_go(redis, &held, None).await? {
            tracing::info!(%sku, order_id = %held.order_id, "a ticket without an order was voided");
        }
    }
    let Some(level) = admission.levels.of(sku) else { return Ok(false) };
    if level.granted != look.count.granted {
        admission.levels.feed(redis, sku).await?;
    }
    let sold = level.granted - level.available;
    let fits = look.count.open > 0
        || level.version < look.count.version
        || look.count.issued - look.count.voided == sold;
    if fits {
        suspects.remove(sku);
        return Ok(look.count.open > 0);
    }
    // With nothing open the two agree, unless one of them is a little late: then it has changed by the next look.
    let seen = Count { version: level.version, ..look.count.clone() };
    if suspects.insert(sku.clone(), seen.clone()).is_some_and(|before| before == seen) {
        suspects.remove(sku);
        if scripts::feed(redis, &level, at, Some(&look.count)).await? {
            tracing::warn!(%sku, sold, counted = look.count.issued - look.count.voided, "admission counts anew");
        }
    }
    Ok(true)
}

/// Those whose orders the intake does not keep, or keeps without this very ticket.
async fn abandoned(pool: &PgPool, overdue: Vec<Held>) -> sqlx::Result<Vec<Held>> {
    if overdue.is_empty() {
        return Ok(overdue);
    }
    let ids: Vec<_> = overdue.iter().map(|held| held.order_id).collect();
    let kept = store::kept(pool, &ids).await?;
    let stands_behind = |held: &Held| {
        let Some(command) = kept.get(&held.order_id) else { return false };
        let Ok(envelope) = Envelope::<OrderSagaMessage>::decode(command.as_bytes()) else { return true };
        let OrderSagaMessage::PlaceOrder(order) = envelope.message else { return true };
        order.lines.iter().any(|line| line.sku == held.sku && line.ticket == Some(held.ticket))
    };
    Ok(overdue.into_iter().filter(|held| !stands_behind(held)).collect())
}
