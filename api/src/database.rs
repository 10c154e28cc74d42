//! The connections that requests use.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgPool};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long a request waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(1);
/// Longest statement; the server ends it.
const STATEMENT_TIMEOUT: &str = "5s";
/// A connection that was not used for so long is tried before a request gets it: PostgreSQL may have been restarted.
const TRY_AFTER_IDLE: Duration = Duration::from_millis(200);

/// Whoever asks for readiness gets an answer this old: asking often costs nothing.
const KNOWN_FOR: Duration = Duration::from_millis(500);

/// Whether the database answers, asked once for all who want to know. Clones share what is known.
#[derive(Clone)]
pub(crate) struct Probe {
    pool: PgPool,
    within: Duration,
    known: Arc<Mutex<Option<(Instant, bool)>>>,
}

impl Probe {
    /// A database that says nothing for as long as `within` does not answer.
    pub(crate) fn new(pool: PgPool, within: Duration) -> Self {
        Self { pool, within, known: Arc::default() }
    }

    /// Whether it answers, or did a moment ago.
    pub(crate) async fn answers(&self) -> bool {
        // Whoever waits here gets the answer to the question that is under way.
        let mut known = self.known.lock().await;
        if let Some((at, answers)) = *known
            && at.elapsed() < KNOWN_FOR
        {
            return answers;
        }
        let asked = timeout(self.within, sqlx::query("SELECT 1").execute(&self.pool)).await;
        let answers = matches!(asked, Ok(Ok(_)));
        *known = Some((Instant::now(), answers));
        answers
    }
}

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
