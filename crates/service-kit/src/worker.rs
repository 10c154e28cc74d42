//! What every worker service is: one consumer whose state is in databases of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use messaging::{
    Cluster, ConsumerConfig, Databases, HandlerFactory, Metrics, Publisher, Status, crash_point,
};
use prometheus::Registry;
use sqlx::migrate::Migrator;
use tokio_util::sync::CancellationToken;
use traces::Tracer;

use crate::{admin, database};

/// What differs between workers before they work.
pub struct WorkerConfig<'a> {
    /// The consumer group, and the name to Kafka and PostgreSQL. Dead letters and control records name it.
    pub name: &'static str,
    /// The topic it consumes.
    pub topic: &'static str,
    /// Which Kafka.
    pub cluster: Cluster,
    /// Its own databases, in the same order for every replica; the first is home.
    pub database_urls: Vec<&'a str>,
    /// Connections to each.
    pub database_connections: u32,
    /// Where health, readiness and metrics are served.
    pub admin_listen: SocketAddr,
    /// Static member id of the consumer group.
    pub instance_id: Option<String>,
    /// Records of a partition that may be set aside.
    pub parked_records: usize,
    /// The service's own tables.
    pub migrations: &'static Migrator,
}

/// A worker whose databases are there and migrated.
pub struct Worker {
    /// Where spans go, if the environment names a collector.
    pub tracer: Option<Tracer>,
    databases: Databases,
    publisher: Publisher,
    consumer: ConsumerConfig,
    metrics: Metrics,
    status: Status,
}

impl Worker {
    /// Opens the admin port, which serves `registry`, waits for every database, and migrates it. `None`: shut down first.
    ///
    /// # Errors
    /// What waiting can't mend: a port in use, wrong settings, a database whose migrations are not this build's, a list
    /// of databases that is not the one they know ([`messaging::DatabasesError`]).
    pub async fn start(
        config: WorkerConfig<'_>,
        registry: &Registry,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let metrics = Metrics::register(registry)?;
        let status = Status::default();
        let readiness = status.clone();
        let ready = Arc::new(move || readiness.ready());
        admin::serve(config.admin_listen, registry.clone(), ready, shutdown.clone())
            .await
            .with_context(|| format!("the admin port {} can't be opened", config.admin_listen))?;

        let mut pools = Vec::new();
        for url in &config.database_urls {
            let pool = database::pool(url, config.name, config.database_connections)
                .context("the database's url is wrong")?;
            if !database::reachable(&pool, shutdown).await {
                return Ok(None);
            }
            messaging::migrate(&pool).await.context("the runtime's tables can't be made")?;
            crash_point(config.name, "migrating");
            config.migrations.run(&pool).await.context("the database can't be migrated")?;
            pools.push(pool);
        }
        let databases = Databases::open(pools, config.name, config.topic)
            .await
            .context("the list of databases can't be used")?;

        let publisher = Publisher::new(&config.cluster, config.name)?;
        let tracer = Tracer::from_env(config.name, registry)?;
        let mut consumer = ConsumerConfig::new(config.cluster, config.name, config.topic, databases.clone());
        consumer.instance_id = config.instance_id;
        consumer.limits.parked_records = config.parked_records;
        consumer.tracer.clone_from(&tracer);
        Ok(Some(Self { tracer, databases, publisher, consumer, metrics, status }))
    }

    /// Consumes until `shutdown`; returns once every partition has ended its transaction in hand and published what it
    /// led to.
    ///
    /// # Errors
    /// If the consumer ended for good.
    pub async fn run(self, handlers: impl HandlerFactory, shutdown: CancellationToken) -> anyhow::Result<()> {
        let topic = self.consumer.topic.clone();
        let (publisher, metrics, status) = (self.publisher, self.metrics, self.status);
        let ended = messaging::run(self.consumer, handlers, publisher, metrics, status, shutdown).await;
        self.databases.close().await;
        if let Some(tracer) = &self.tracer {
            tracer.close().await;
        }
        ended.with_context(|| format!("the consumer of {topic} failed"))
    }
}
