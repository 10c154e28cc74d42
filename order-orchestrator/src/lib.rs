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

use std::sync::Arc;

use anyhow::Context;
use messaging::{ConsumerConfig, Publisher, Status};
use prometheus::Registry;
use schemas::Topic;
use tokio_util::sync::CancellationToken;

use crate::handler::SagaHandlers;
use crate::metrics::SagaMetrics;

pub use settings::{EXAMPLE_SETTINGS, Settings};

/// The consumer group; dead letters and control records name it.
pub const CONSUMER_GROUP: &str = "order-orchestrator";

/// Its name to Kafka and PostgreSQL.
const CLIENT: &str = "order-orchestrator";

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// Runs the service until `shutdown`: connects, migrates its database, and works. Returns once every partition has
/// ended its transaction in hand and published what it led to. Waits for Kafka and PostgreSQL to come (back).
///
/// # Errors
/// Only what waiting can't mend: wrong settings, a port in use, a database whose migrations are not this build's.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let registry = Registry::new();
    let runtime_metrics = messaging::Metrics::register(&registry)?;
    let metrics = SagaMetrics::register(&registry)?;
    let status = Status::default();
    let readiness = status.clone();
    service_kit::admin::serve(
        settings.admin_listen,
        registry,
        Arc::new(move || readiness.ready()),
        shutdown.clone(),
    )
    .await
    .with_context(|| format!("the admin port {} can't be opened", settings.admin_listen))?;

    let pool = service_kit::database::pool(&settings.database_url, CLIENT, settings.database_connections)
        .context("the database's url is wrong")?;
    if !service_kit::database::reachable(&pool, &shutdown).await {
        return Ok(());
    }
    messaging::migrate(&pool).await.context("the runtime's tables can't be made")?;
    MIGRATIONS.run(&pool).await.context("the database can't be migrated")?;

    let publisher = Publisher::new(&settings.brokers, CLIENT)?;
    let mut consumer =
        ConsumerConfig::new(&settings.brokers, CONSUMER_GROUP, Topic::OrderSaga.name(), pool.clone());
    consumer.instance_id = settings.instance_id;
    let handlers = SagaHandlers::new(metrics, settings.cached_sagas);
    let ended = messaging::run(consumer, handlers, publisher, runtime_metrics, status, shutdown).await;
    pool.close().await;
    ended.context("the consumer of order-saga failed")
}
