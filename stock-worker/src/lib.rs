#![doc = include_str!("../README.md")]

mod command;
mod handler;
mod levels;
mod metrics;
mod settings;
mod store;

use std::time::Duration;

use anyhow::Context;
use messaging::{Cluster, LogReader, TailFrom};
use prometheus::Registry;
use schemas::Topic;
use service_kit::worker::{Worker, WorkerConfig};
use tokio_util::sync::CancellationToken;

use crate::handler::StockHandlers;

pub use command::decode;
pub use handler::StockHandler;
pub use levels::LevelWatch;
pub use metrics::StockMetrics;
pub use settings::{EXAMPLE_SETTINGS, Settings};
pub use store::{Changed, ChangedItem, LedgerEntry, LedgerRow, Needs, StockStore};

/// The consumer group; dead letters and control records name it.
pub const CONSUMER_GROUP: &str = "stock-worker";

/// How often new levels are looked at: an older one that landed late is rare, and may stand for so long.
const LOOK_EVERY: Duration = Duration::from_millis(250);

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// Runs the service until `shutdown`: connects, migrates its database, and works. Returns once every partition has
/// ended its transaction in hand and published what it led to. Waits for Kafka and PostgreSQL to come (back).
///
/// # Errors
/// Only what waiting can't mend: wrong settings, a port in use, a database whose migrations are not this build's.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let registry = Registry::new();
    let metrics = StockMetrics::register(&registry)?;
    let config = WorkerConfig {
        name: CONSUMER_GROUP,
        topic: Topic::StockCommands.name(),
        cluster: settings.cluster(),
        database_urls: settings.database_urls(),
        database_connections: settings.database_connections,
        admin_listen: settings.admin_listen,
        instance_id: settings.instance_id.clone(),
        parked_records: settings.parked_records,
        migrations: &MIGRATIONS,
    };
    let Some(worker) = Worker::start(config, &registry, &shutdown).await? else { return Ok(()) };
    let watch = LevelWatch::default();
    let watching = tokio::spawn(watch_levels(settings.cluster(), watch.clone(), shutdown.clone()));
    let handlers = StockHandlers::new(watch, metrics, LogReader::new(settings.cluster())?);
    let ended = worker.run(handlers, shutdown.clone()).await;
    shutdown.cancel();
    watching.await.context("the watch over stock-levels panicked")?;
    ended
}

/// Follows `stock-levels` until shut down; begins anew should the client fail.
async fn watch_levels(cluster: Cluster, watch: LevelWatch, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        let observer = watch.clone();
        let observe = move |record: messaging::Record| observer.observe(&record);
        let topic = Topic::StockLevels.name();
        let tail =
            messaging::tail(&cluster, topic, TailFrom::Beginning, LOOK_EVERY, shutdown.clone(), observe);
        match tail.await {
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%error, topic, "stock-levels can't be followed, trying again");
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        }
    }
}
