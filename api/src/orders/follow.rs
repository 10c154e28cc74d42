//! Reads followed orders from the projection: one statement for many of them, never two at once on a node.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::orders::store;
use crate::wakeups::{Wakeups, Wanted};

/// Most orders of one statement.
const BATCH_ORDERS: usize = 500;
/// Between two statements: those that are woken meanwhile share the next one.
const PAUSE: Duration = Duration::from_millis(2);
/// How long the database may take before it counts as away.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Tells followers what there is, until `shutdown`.
pub(crate) async fn read(wakeups: Wakeups, pool: PgPool, shutdown: CancellationToken) {
    let mut was_away = false;
    while let Some(wanted) = shutdown.run_until_cancelled(wakeups.due(BATCH_ORDERS)).await {
        let reading = tokio::time::timeout(READ_WITHIN, store::newer(&pool, &wanted));
        let failure = match reading.await {
            Ok(Ok(orders)) => {
                tell(&wakeups, &wanted, orders);
                was_away = false;
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_elapsed) => Some("it does not answer".to_owned()),
        };
        if let Some(failure) = failure {
            if !was_away {
                tracing::warn!(failure, "followed orders are not read: the database failed");
            }
            was_away = true;
            wanted.into_iter().for_each(|wanted| wakeups.not_read(wanted));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn tell(wakeups: &Wakeups, wanted: &[Wanted], orders: Vec<store::Newer>) {
    let mut newer: HashMap<_, _> = orders.into_iter().collect();
    for wanted in wanted {
        match newer.remove(&wanted.order) {
            Some(Ok(order)) => wakeups.found(*wanted, Some(order)),
            None => wakeups.found(*wanted, None),
            Some(Err(error)) => {
                tracing::error!(
                    order_id = %wanted.order,
                    error = &error as &dyn std::error::Error,
                    "the database holds an unreadable order"
                );
                wakeups.not_read(*wanted);
            }
        }
    }
}
