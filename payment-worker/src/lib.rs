#![doc = include_str!("../README.md")]

mod calls;
mod command;
mod handler;
mod metrics;
mod provider;
mod settings;
mod store;
mod trace;

use std::sync::Arc;

use anyhow::Context;
use prometheus::Registry;
use schemas::Topic;
use service_kit::worker::{Worker, WorkerConfig};
use tokio_util::sync::CancellationToken;

use crate::handler::PaymentHandlers;
use crate::provider::AnyProvider;
use crate::provider::http::HttpProvider;
use crate::provider::simulated::SimulatedProvider;

pub use calls::{Calls, Line};
pub use command::{Command, decode};
pub use handler::PaymentHandler;
pub use metrics::PaymentMetrics;
pub use provider::Provider;
pub use settings::{
    CallSettings, EXAMPLE_SETTINGS, HttpSettings, InvalidSettings, Settings, SimulatedSettings,
};
pub use store::{Change, Changes, LedgerRow, PaymentStore, Stored, Table};

/// The consumer group; dead letters and control records name it.
pub const CONSUMER_GROUP: &str = "payment-worker";

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
    let metrics = PaymentMetrics::register(&registry)?;
    let config = WorkerConfig {
        name: CONSUMER_GROUP,
        topic: Topic::PaymentCommands.name(),
        cluster: settings.cluster(),
        database_urls: settings.database_urls(),
        database_connections: settings.database_connections,
        admin_listen: settings.admin_listen,
        instance_id: settings.instance_id.clone(),
        parked_records: settings.parked_records,
        migrations: &MIGRATIONS,
    };
    let Some(worker) = Worker::start(config, &registry, &shutdown).await? else { return Ok(()) };
    // In one book, at home, wherever a charge's partition is: a provider knows nothing of our partitions.
    let book = service_kit::database::pool(&settings.database_url, SIMULATED_PROVIDER, BOOK_CONNECTIONS)
        .context("the database's url is wrong")?;
    let provider = match &settings.http_provider {
        Some(http) => AnyProvider::Http(HttpProvider::new(http, metrics.breaker.clone())?),
        None => AnyProvider::Simulated(SimulatedProvider::new(settings.provider.clone(), book.clone())),
    };
    let handlers = PaymentHandlers {
        line: Arc::new(Line::new(provider, settings.calls.at_once, metrics).traced_by(worker.tracer.clone())),
        policy: settings.calls.policy(),
        calls_in_memory: settings.calls.in_memory,
    };
    let ended = worker.run(handlers, shutdown.clone()).await;
    shutdown.cancel();
    book.close().await;
    ended
}
