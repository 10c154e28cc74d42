//! The database pool.

use std::str::FromStr;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio_util::sync::CancellationToken;

/// Every statement here finds its rows by an index, whatever its arguments and however many rows there are; so the plan is
/// made once per connection, and must not depend on how full a table was at that moment. (Planning each execution anew took
/// a quarter of PostgreSQL's time at low load; plans made on empty tables read whole partitions for ever after.)
const PLANS: [(&str, &str); 7] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_material", "off"),
    ("enable_memoize", "off"),
];

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

/// How to connect to the database: for a pool that needs other limits than [`pool`]'s.
///
/// # Errors
/// If the URL is none.
pub fn connect_options(url: &str, application: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(PgConnectOptions::from_str(url)?.application_name(application).options(PLANS).options(LOST_PEER))
}

/// A pool of at most `connections` connections; connects when first used, so that a service can start before its
/// database.
///
/// # Errors
/// If the URL is none.
pub fn pool(url: &str, application: &str, connections: u32) -> Result<PgPool, sqlx::Error> {
    Ok(PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .connect_lazy_with(connect_options(url, application)?))
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
