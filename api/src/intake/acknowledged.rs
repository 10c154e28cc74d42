//! Notes, late and in bulk, which orders Kafka acknowledged while the projection does not know them yet.
//!
//! Normally the projection is quicker and nothing is written. A note that is lost costs one more publication of the
//! same command, should the customer repeat the order.

use std::time::Duration;

use domain_types::OrderId;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::store;

/// Acknowledged orders that may wait for their note.
pub(crate) const WAITING_NOTES: usize = 50_000;
/// How long the projection has before a note is written.
const AFTER: Duration = Duration::from_secs(1);
/// Most orders of one statement.
const BATCH: usize = 5_000;

/// Runs until `shutdown`, then writes what is left.
pub(crate) async fn note(
    pool: PgPool,
    mut acknowledged: mpsc::Receiver<OrderId>,
    shutdown: CancellationToken,
) {
    let mut batch = Vec::new();
    while let Some(Some(first)) = shutdown.run_until_cancelled(acknowledged.recv()).await {
        batch.push(first);
        let _cancelled = shutdown.run_until_cancelled(tokio::time::sleep(AFTER)).await;
        write(&pool, &mut acknowledged, &mut batch).await;
    }
    acknowledged.close();
    write(&pool, &mut acknowledged, &mut batch).await;
}

async fn write(pool: &PgPool, acknowledged: &mut mpsc::Receiver<OrderId>, batch: &mut Vec<OrderId>) {
    loop {
        while batch.len() < BATCH
            && let Ok(order) = acknowledged.try_recv()
        {
            batch.push(order);
        }
        if batch.is_empty() {
            return;
        }
        if let Err(error) = store::mark_acknowledged(pool, batch).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "acknowledgements not noted");
        }
        batch.clear();
    }
}
