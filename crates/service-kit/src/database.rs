//! The database pool.

use std::str::FromStr;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio_util::sync::CancellationToken;

/// Plans are made anew for each execution. A plan that is kept from when a table was almost empty reads all of it, or all
/// of a partition, for ever after.
pub const PLAN_CACHE_MODE: (&str, &str) = ("plan_cache_mode", "force_custom_plan");

/// A process or host that is gone must not keep its locks: a partition's successor waits for them.
const LOST_PEER: [(&str, &str); 5] = [
    ("idle_in_transaction_session_timeout", "10s"),
    ("statement_timeout", "30s"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// How long a caller waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(3);

/// A pool of at most `connections` connections; connects when first used, so that a service can start before its
/// database.
///
/// # Errors
/// If the URL is none.
pub fn pool(url: &str, application: &str, connections: u32) -> Result<PgPool, sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?
        .application_name(application)
        .options([PLAN_CACHE_MODE])
        .options(LOST_PEER);
    Ok(PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .connect_lazy_with(options))
}

/// Waits for PostgreSQL to answer; `false` when shut down first. Migrate after it.
pub async fn reachable(pool: &PgPool, shutdown: &CancellationToken) -> bool {
    loop {
        let error = match sqlx::query("SELECT 1").execute(pool).await {
            Ok(_) => return true,
            Err(error) => error,
        };
        tracing::warn!(%error, "waiting for the database");
        tokio::select! {
            () = shutdown.cancelled() => return false,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}
