#![doc = include_str!("../README.md")]

mod batch;
mod cache;
mod handler;
pub mod history;
mod messages;
mod metrics;
mod settings;
mod store;
mod timers;

use prometheus::Registry;
use schemas::Topic;
use service_kit::worker::{Worker, WorkerConfig};
use tokio_util::sync::CancellationToken;

use crate::handler::SagaHandlers;

pub use cache::Unsaved;
pub use handler::SagaHandler;
pub use messages::{SagaInput, decode, output, timer_name};
pub use metrics::SagaMetrics;
pub use settings::{EXAMPLE_SETTINGS, Settings};
pub use store::{Ahead, PresentSaga, ReadError, SagaReader, SagaStore, StoredSaga};

/// The consumer group; dead letters and control records name it.
pub const CONSUMER_GROUP: &str = "order-orchestrator";

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// Makes the service's tables, and the runtime's; may be repeated.
///
/// # Errors
/// If the database can't be written, or was migrated by a later build.
pub async fn migrate(pool: &sqlx::PgPool) -> anyhow::Result<()> {
    messaging::migrate(pool).await?;
    Ok(MIGRATIONS.run(pool).await?)
}

/// Runs the service until `shutdown`: connects, migrates its database, and works. Returns once every partition has
/// ended its transaction in hand and published what it led to. Waits for Kafka and PostgreSQL to come (back).
///
/// # Errors
/// Only what waiting can't mend: wrong settings, a port in use, a database whose migrations are not this build's.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let registry = Registry::new();
    let metrics = SagaMetrics::register(&registry)?;
    let config = WorkerConfig {
        name: CONSUMER_GROUP,
        topic: Topic::OrderSaga.name(),
        cluster: settings.cluster(),
        database_urls: settings.database_urls(),
        database_connections: settings.database_connections,
        admin_listen: settings.admin_listen,
        instance_id: settings.instance_id.clone(),
        parked_records: settings.parked_records,
        migrations: &MIGRATIONS,
    };
    let Some(worker) = Worker::start(config, &registry, &shutdown).await? else { return Ok(()) };
    worker.run(SagaHandlers::new(metrics, settings.cached_sagas), shutdown).await
}
