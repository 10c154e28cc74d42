#![doc = include_str!("../README.md")]

mod calls;
mod command;
mod handler;
mod metrics;
mod provider;
mod settings;
mod store;

use std::sync::Arc;

use anyhow::Context;
use messaging::{ConsumerConfig, Publisher, Status};
use prometheus::Registry;
use schemas::Topic;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::calls::Line;
use crate::handler::PaymentHandlers;
use crate::metrics::PaymentMetrics;
use crate::provider::AnyProvider;
use crate::provider::http::HttpProvider;
use crate::provider::simulated::SimulatedProvider;

pub use settings::{
    CallSettings, EXAMPLE_SETTINGS, HttpSettings, InvalidSettings, Settings, SimulatedSettings,
};

/// The consumer group; dead letters and control records name it.
pub const CONSUMER_GROUP: &str = "payment-worker";

/// Its name to Kafka and PostgreSQL.
const CLIENT: &str = "payment-worker";
/// The simulated provider's name to PostgreSQL: it stands for another system.
const SIMULATED_PROVIDER: &str = "simulated-provider";
/// One writes, one may be reconnecting.
const BOOK_CONNECTIONS: u32 = 2;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// Runs the service until `shutdown`: connects, migrates its database, and works. Returns once every partition has
/// ended its transaction in hand and published what it led to; provider calls in flight are dropped, and made again with the
/// same keys by the successor. Waits for Kafka and PostgreSQL to come (back).
///
/// # Errors
/// Only what waiting can't mend: wrong settings, a port in use, a database whose migrations are not this build's.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    settings.check()?;
    let registry = Registry::new();
    let runtime_metrics = messaging::Metrics::register(&registry)?;
    let metrics = PaymentMetrics::register(&registry)?;
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
    migrate(&pool).await?;

    let publisher = Publisher::new(&settings.brokers, CLIENT)?;
    let book = service_kit::database::pool(&settings.database_url, SIMULATED_PROVIDER, BOOK_CONNECTIONS)
        .context("the database's url is wrong")?;
    let provider = match &settings.http_provider {
        Some(http) => AnyProvider::Http(HttpProvider::new(http, metrics.breaker.clone())?),
        None => AnyProvider::Simulated(SimulatedProvider::new(settings.provider.clone(), book.clone())),
    };
    let turns = Semaphore::new(settings.calls.at_once.min(Semaphore::MAX_PERMITS));
    let handlers = PaymentHandlers {
        line: Arc::new(Line { provider, turns, metrics }),
        policy: settings.calls.policy(),
        calls_in_memory: settings.calls.in_memory,
    };
    let mut consumer =
        ConsumerConfig::new(&settings.brokers, CONSUMER_GROUP, Topic::PaymentCommands.name(), pool.clone());
    consumer.instance_id = settings.instance_id;
    let ended =
        messaging::run(consumer, handlers, publisher, runtime_metrics, status, shutdown.clone()).await;
    shutdown.cancel();
    pool.close().await;
    book.close().await;
    ended.context("the consumer of payment-commands failed")
}

async fn migrate(pool: &PgPool) -> anyhow::Result<()> {
    messaging::migrate(pool).await.context("the runtime's tables can't be made")?;
    MIGRATIONS.run(pool).await.context("the database can't be migrated")
}
