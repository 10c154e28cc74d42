//! Starting and ending a node: the order in which its parts come and go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use messaging::{ConsumerConfig, HandlerFactory, Limits, Metrics, Publisher, Status, TailFrom, crash_point};
use prometheus::Registry;
use schemas::Topic;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use traces::Tracer;

use crate::admission::Admission;
use crate::app::{App, DATABASE_WITHIN, Shared, consumers_missing, router};
use crate::auth::{Expectations, Keys};
use crate::edge::{self, Edge};
use crate::intake::{Intake, Means, acknowledged, repeat};
use crate::metrics::{HttpMetrics, IntakeMetrics};
use crate::notices::{Mailer, Notices};
use crate::orders::live::Live;
use crate::products::cache::Catalogue;
use crate::projection::{Orders, StockChanges, StockLevels};
use crate::redis::Redis;
use crate::settings::Settings;
use crate::wakeups::Wakeups;
use crate::{database, orders};

/// All settings with their defaults, as TOML.
pub const EXAMPLE_SETTINGS: &str = include_str!("../settings.toml");

/// How long a record waits for a broker; answers that need it are given long before.
const GIVE_UP: Duration = Duration::from_secs(30);

/// How long a shutdown waits for requests under way.
const DRAIN: Duration = Duration::from_secs(10);

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The public port.
    pub public: SocketAddr,
    /// Metrics and health.
    pub admin: SocketAddr,
}

/// Runs a node until `shutdown`; then ends the requests under way, publishes what it has taken, and
/// leaves its consumer groups.
///
/// # Errors
/// If a port or the keys file can't be used, a migration fails, or a Kafka client can't be made. A database or broker that
/// is away is waited for.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (addresses, _nobody_asks) = oneshot::channel();
    run_reporting(settings, shutdown, addresses).await
}

/// The same; tells where it listens, once it does.
///
/// # Errors
/// See [`run`].
pub async fn run_reporting(
    settings: Settings,
    shutdown: CancellationToken,
    addresses: oneshot::Sender<Addresses>,
) -> anyhow::Result<()> {
    let expected = Expectations {
        issuer: settings.issuer.clone(),
        audience: settings.audience.clone(),
        loopback_only: settings.listen.ip().is_loopback(),
    };
    let keys = Keys::load(&settings.keys_file, &expected)?;
    let registry = Registry::new();
    let projection_pool = service_kit::database::pool(
        &settings.database_url,
        "api-projection",
        settings.projection_connections,
    )?;
    if !service_kit::database::reachable(&projection_pool, &shutdown).await {
        return Ok(());
    }
    messaging::migrate(&projection_pool).await.context("the runtime's tables could not be made")?;
    crash_point("api", "migrating");
    sqlx::migrate!().run(&projection_pool).await.context("migrations failed")?;

    let tasks = Tasks::new();
    let node = Node {
        pool: database::pool(&settings.database_url, settings.request_connections)?,
        publisher: Publisher::giving_up_after(settings.cluster(), "api", GIVE_UP)
            .context("no kafka producer")?,
        redis: Redis::connect(&settings.redis_urls, settings.redis_cluster, settings.redis_authority()?)
            .context("redis_urls can't be used")?,
        projection_pool,
        tracer: Tracer::from_env("api", &registry)?,
        registry,
    };
    let within = Duration::from_millis(settings.publish_within_ms);
    let admission =
        Arc::new(Admission::new(node.redis.clone(), node.pool.clone(), node.publisher.clone(), within));
    admission.start(&settings.cluster(), &tasks.background, &tasks.end);
    let catalogue = node.catalogue()?;
    let (consumers, failed) = node.consume(&settings, &tasks, &admission, &catalogue)?;
    let wakeups = node.wake(&settings, &tasks);
    let intake = node.take_orders(&settings, &tasks)?;
    tasks.background.spawn(keys.clone().watch(settings.keys_file.clone(), expected, tasks.end.clone()));
    // A connection of its own: streams neither take one from requests nor wait for one behind them.
    let live_pool = service_kit::database::pool(&settings.database_url, "api-live", 1)?;
    tasks.background.spawn(orders::follow::read(wakeups.clone(), live_pool, tasks.end.clone()));
    tasks.background.spawn(orders::requests::forget_unanswered(node.pool.clone(), tasks.end.clone()));

    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("the public port {} can't be used", settings.listen))?;
    let public = listener.local_addr()?;
    let seen = consumers.clone();
    let readiness = Arc::new(move || match consumers_missing(&seen) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(missing.join("; ")),
    });
    let admin =
        service_kit::admin::serve(settings.admin_listen, node.registry.clone(), readiness, tasks.end.clone())
            .await
            .with_context(|| format!("the admin port {} can't be used", settings.admin_listen))?;
    tracing::info!(%public, %admin, "api listens");
    let _nobody_asks = addresses.send(Addresses { public, admin });

    let stop = shutdown.child_token();
    let app = App::new(Shared {
        live: Live::new(settings.live, stop.clone(), &node.registry)?,
        pool: node.pool.clone(),
        probe: database::Probe::new(node.pool.clone(), DATABASE_WITHIN),
        publisher: node.publisher.clone(),
        keys,
        intake,
        wakeups,
        admission,
        catalogue,
        consumers,
    });
    let metrics = HttpMetrics::register(&node.registry)?;
    let edge = Edge::new(settings.edge.clone(), &node.registry)?;
    let router = router(app, metrics, &edge, node.tracer.clone());
    let served = serve(listener, router, edge, stop, failed).await;
    tasks.finish().await;
    if let Some(tracer) = &node.tracer {
        tracer.close().await;
    }
    served
}

/// Serves until `stop`, or until a consumer failed for good; then waits for the requests under way.
async fn serve(
    listener: TcpListener,
    router: axum::Router,
    edge: Edge,
    stop: CancellationToken,
    mut failed: mpsc::Receiver<anyhow::Error>,
) -> anyhow::Result<()> {
    let mut serving = tokio::spawn(edge::serve(listener, router, edge, stop.clone()));
    let failure = tokio::select! {
        ended = &mut serving => return Ok(ended?),
        () = stop.cancelled() => None,
        error = failed.recv() => error,
    };
    stop.cancel();
    match tokio::time::timeout(DRAIN, &mut serving).await {
        Ok(ended) => ended?,
        Err(_elapsed) => {
            tracing::warn!("requests were still under way at the end of the shutdown");
            serving.abort();
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Tasks, by the order in which they end.
struct Tasks {
    /// Publications of orders that were taken.
    intake: TaskTracker,
    intake_end: CancellationToken,
    /// Everything else.
    background: TaskTracker,
    end: CancellationToken,
}

impl Tasks {
    fn new() -> Self {
        Self {
            intake: TaskTracker::new(),
            intake_end: CancellationToken::new(),
            background: TaskTracker::new(),
            end: CancellationToken::new(),
        }
    }

    /// First what has been taken is published, then the rest ends.
    async fn finish(&self) {
        self.intake_end.cancel();
        self.intake.close();
        if tokio::time::timeout(DRAIN, self.intake.wait()).await.is_err() {
            tracing::warn!(
                "orders were not acknowledged before the shutdown; they are published again later"
            );
        }
        self.end.cancel();
        self.background.close();
        self.background.wait().await;
    }
}

impl Drop for Tasks {
    /// A node that is dropped instead of shut down leaves nothing running either.
    fn drop(&mut self) {
        self.intake_end.cancel();
        self.end.cancel();
    }
}

/// What the parts of a node are made of.
struct Node {
    pool: PgPool,
    projection_pool: PgPool,
    publisher: Publisher,
    redis: Redis,
    tracer: Option<Tracer>,
    registry: Registry,
}

type Consumers = Vec<(&'static str, Status)>;

impl Node {
    fn catalogue(&self) -> anyhow::Result<Catalogue> {
        Ok(Catalogue::new(self.pool.clone(), self.redis.clone(), &self.registry)?)
    }

    /// Starts the projection. An error in the channel: a consumer ended for good.
    fn consume(
        &self,
        settings: &Settings,
        tasks: &Tasks,
        admission: &Admission,
        catalogue: &Catalogue,
    ) -> anyhow::Result<(Consumers, mpsc::Receiver<anyhow::Error>)> {
        let metrics = Metrics::register(&self.registry)?;
        let cache = catalogue.write_through();
        tasks.background.spawn(cache.clone().run(tasks.end.clone()));
        let (failed, failures) = mpsc::channel(1);
        let mut start = Start { node: self, settings, tasks, metrics, failed, consumers: Vec::new() };
        // A read model competes with the sagas for the same machine, and may be a little behind them. The larger a batch, the more of it are
        // changes of the same row, which is written once.
        let large = Limits { batch_records: 4_000, batch_bytes: 4 << 20, ..Limits::default() };
        start.consumer(
            Topic::OrderEvents,
            Orders,
            Limits { pace_burst: 2, pace_per_second: 50, rest: 4, ..large.clone() },
        );
        start.consumer(
            Topic::StockLevels,
            StockLevels { cache },
            Limits { gather: Duration::from_millis(50), rest: 9, ..large },
        );
        start.consumer(Topic::StockEvents, StockChanges, Limits::default());
        start.door(admission)?;
        if let Some(mail) = &settings.mail {
            let mailer = Arc::new(Mailer::new(mail, &self.registry).context("mail can't be sent")?);
            start.notices(mailer)?;
        }
        Ok((start.consumers, failures))
    }

    /// Starts the tail that wakes waiting requests.
    fn wake(&self, settings: &Settings, tasks: &Tasks) -> Wakeups {
        let wakeups = Wakeups::default();
        let (seen, end, cluster) = (wakeups.clone(), tasks.end.clone(), settings.cluster());
        tasks.background.spawn(async move {
            let tail = messaging::tail(
                &cluster,
                Topic::OrderEvents.name(),
                TailFrom::End,
                Duration::ZERO,
                end,
                move |record| {
                    seen.seen(&record);
                },
            );
            if let Err(error) = tail.await {
                tracing::error!(%error, "answers are no longer waited for, only looked for");
            }
        });
        wakeups
    }

    /// Starts the intake, with what looks after its rows.
    fn take_orders(&self, settings: &Settings, tasks: &Tasks) -> anyhow::Result<Intake> {
        let (noted, notes) = mpsc::channel(acknowledged::WAITING_NOTES);
        let means = Means {
            pool: self.pool.clone(),
            publisher: self.publisher.clone(),
            policy: settings.policy,
            saga_definition: settings.saga_definition,
            publish_within: Duration::from_millis(settings.publish_within_ms),
            acknowledged: noted,
            tells_by_mail: settings.mail.is_some(),
            metrics: IntakeMetrics::register(&self.registry)?,
        };
        tasks.background.spawn(acknowledged::note(self.pool.clone(), notes, tasks.end.clone()));
        let after = Duration::from_millis(settings.republish_after_ms);
        let sweep = repeat::sweep(self.pool.clone(), self.publisher.clone(), after, tasks.end.clone());
        tasks.background.spawn(sweep);
        Ok(Intake::start(means, &tasks.intake, tasks.intake_end.clone()))
    }
}

/// Starts consumers one after the other.
struct Start<'a> {
    node: &'a Node,
    settings: &'a Settings,
    tasks: &'a Tasks,
    metrics: Metrics,
    failed: mpsc::Sender<anyhow::Error>,
    consumers: Consumers,
}

impl Start<'_> {
    fn consumer(&mut self, topic: Topic, factory: impl HandlerFactory, limits: Limits) {
        let status = Status::default();
        self.consumers.push((topic.name(), status.clone()));
        let metrics = self.metrics.clone();
        self.start(topic.name(), topic, factory, limits, (status, metrics));
    }

    /// The door's own reading of `order-events`. It waits for Redis, which a node is ready without. Its counts may be a
    /// moment behind: the stock worker decides.
    fn door(&mut self, admission: &Admission) -> anyhow::Result<()> {
        let gather = Duration::from_millis(50);
        let limits = Limits { pace_burst: 2, pace_per_second: 20, gather, ..Limits::default() };
        // Its figures would be taken for the projection's: they are labelled by topic.
        let unseen = (Status::default(), Metrics::register(&Registry::new())?);
        self.start("admission", Topic::OrderEvents, admission.settlements(), limits, unseen);
        Ok(())
    }

    /// Tells customers by mail. Nothing waits for it.
    fn notices(&mut self, mailer: Arc<Mailer>) -> anyhow::Result<()> {
        let gather = Duration::from_millis(100);
        let limits = Limits { pace_burst: 4, pace_per_second: 20, rest: 4, gather, ..Limits::default() };
        // As the door's.
        let unseen = (Status::default(), Metrics::register(&Registry::new())?);
        self.start("notices", Topic::OrderEvents, Notices { mailer }, limits, unseen);
        Ok(())
    }

    fn start(
        &mut self,
        name: &'static str,
        topic: Topic,
        factory: impl HandlerFactory,
        limits: Limits,
        (status, metrics): (Status, Metrics),
    ) {
        let group = format!("{}-{name}", self.settings.consumer_group);
        let pool = self.node.projection_pool.clone();
        let mut config = ConsumerConfig::new(self.settings.cluster(), &group, topic.name(), pool);
        config.instance_id.clone_from(&self.settings.instance_id);
        config.limits = Limits { parked_records: self.settings.parked_records, ..limits };
        config.tracer.clone_from(&self.node.tracer);
        let running = messaging::run(
            config,
            factory,
            self.node.publisher.clone(),
            metrics,
            status,
            self.tasks.end.clone(),
        );
        let failed = self.failed.clone();
        self.tasks.background.spawn(async move {
            if let Err(error) = running.await {
                let error = anyhow::Error::new(error)
                    .context(format!("the consumer {name} of {} ended", topic.name()));
                let _told_once = failed.try_send(error);
            }
        });
    }
}
