//! The connections that requests use.

use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgPool};

/// How long a request waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(1);
/// Longest statement; the server ends it.
const STATEMENT_TIMEOUT: &str = "5s";
/// A connection that was not used for so long is tried before a request gets it: PostgreSQL may have been restarted.
const TRY_AFTER_IDLE: Duration = Duration::from_millis(200);

/// Makes the pool; it connects when first used.
pub(crate) fn pool(url: &str, connections: u32) -> Result<PgPool, sqlx::Error> {
    let options = service_kit::database::connect_options(url, "api")?
        // A page is read in its order from an index, also where the plan was made for an empty table, which is quickly sorted.
        .options([("statement_timeout", STATEMENT_TIMEOUT)])
        .options([("enable_sort", "off"), ("enable_incremental_sort", "off")]);
    Ok(PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .before_acquire(|connection, known| {
            Box::pin(async move {
                if known.idle_for > TRY_AFTER_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options))
}
