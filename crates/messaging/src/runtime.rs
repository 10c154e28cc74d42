//! The runtime: joins the group, and drives an owner for each assigned partition.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, mpsc as thread_mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use domain_types::Timestamp;
use kafka_cluster::Cluster;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::consumer::{Inbox, Order, Poller, Room, Told};
use crate::limits::group_options;
use crate::owner::{Now, Owner, Stepped};
use crate::parking::{RecordedParkings, record_parking};
use crate::ports::PgPorts;
use crate::reader::LogReader;
use crate::status::PartitionStatus;
use crate::store::PositionKey;
use crate::{Databases, HandlerFactory, Limits, Metrics, Publisher, RunError, Status, Waker, crash_point};

/// One consumer: a group on one topic, with each partition's position in one database.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// Which Kafka.
    pub cluster: Cluster,
    /// The consumer group; also part of the position's key.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// Where dead letters go, and where past parkings are read from.
    pub dead_letters: String,
    /// Static member id: a process that is restarted with the same one gets its partitions back at once, instead of
    /// after the session time-out (6 s).
    pub instance_id: Option<String>,
    /// The databases of positions and of the handler's state.
    pub databases: Databases,
    /// Limits.
    pub limits: Limits,
    /// Where spans of sampled records go.
    pub tracer: Option<traces::Tracer>,
}

impl ConsumerConfig {
    /// A consumer with default limits. A pool stands for one database for all partitions.
    pub fn new(
        cluster: impl Into<Cluster>,
        group: &str,
        topic: &str,
        databases: impl Into<Databases>,
    ) -> Self {
        Self {
            cluster: cluster.into(),
            group: group.to_owned(),
            topic: topic.to_owned(),
            dead_letters: schemas::Topic::DeadLetters.name().to_owned(),
            instance_id: None,
            databases: databases.into(),
            limits: Limits::default(),
            tracer: None,
        }
    }
}

/// What the owners of one consumer share.
pub(crate) struct Shared<F> {
    pub(crate) config: ConsumerConfig,
    pub(crate) topic: Arc<str>,
    pub(crate) factory: F,
    pub(crate) publisher: Publisher,
    pub(crate) metrics: Metrics,
    pub(crate) status: Status,
    /// Asked on blocking threads only.
    pub(crate) reader: Arc<Mutex<LogReader>>,
    pub(crate) cluster_id: String,
    pub(crate) recorded: HashMap<i32, RecordedParkings>,
    pub(crate) orders: Mutex<thread_mpsc::Sender<Order>>,
}

/// Runs a consumer until `shutdown`; then each partition ends the transaction in hand, publishes its outputs and
/// leaves the group. Waits for Kafka and PostgreSQL as long as it takes: both may come and go.
///
/// # Errors
/// Only what waiting can't mend: wrong settings, or a client that failed for good. A partition whose position does
/// not fit its log stops alone; [`Status::ready`] names it.
pub async fn run<F: HandlerFactory>(
    config: ConsumerConfig,
    factory: F,
    publisher: Publisher,
    metrics: Metrics,
    status: Status,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let reader = Arc::new(Mutex::new(LogReader::new(&config.cluster)?));
    let Some((cluster_id, recorded)) = ask_until_answered(&config, &reader, &shutdown).await else {
        return Ok(());
    };
    let (orders, order_receiver) = thread_mpsc::channel();
    let (told_sender, mut told) = mpsc::channel(64);
    let topic: Arc<str> = config.topic.as_str().into();
    let mut options = group_options(&config.cluster, &config.group, config.limits.gather);
    if let Some(instance_id) = &config.instance_id {
        options.set("group.instance.id", instance_id);
    }
    let poller = {
        let room = Room { records: config.limits.inbox_records, bytes: config.limits.inbox_bytes };
        Poller::subscribe(&options, &topic, told_sender, order_receiver, room)?
    };
    let thread = std::thread::Builder::new()
        .name(format!("poll-{topic}"))
        .spawn(move || poller.run())
        .map_err(|error| rdkafka::error::KafkaError::ClientCreation(error.to_string()))?;
    let shared = Arc::new(Shared {
        config,
        topic,
        factory,
        publisher,
        metrics,
        status,
        reader,
        cluster_id,
        recorded,
        orders: Mutex::new(orders.clone()),
    });
    let ended = supervise(&shared, &mut told, &shutdown).await;
    let _thread_gone = orders.send(Order::Stop);
    // The thread may be telling something: keep listening until it has ended.
    while told.recv().await.is_some() {}
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    if !matches!(joined, Ok(Ok(()))) {
        return Err(RunError::ConsumerEnded);
    }
    ended
}

/// One owner's task.
struct Running {
    /// Stops the task when dropped, too: with a `run` that is aborted its owners end.
    stop: DropGuard,
    retake: Arc<Notify>,
    task: JoinHandle<()>,
}

async fn supervise<F: HandlerFactory>(
    shared: &Arc<Shared<F>>,
    told: &mut mpsc::Receiver<Told>,
    shutdown: &CancellationToken,
) -> Result<(), RunError> {
    let mut running: HashMap<i32, Running> = HashMap::new();
    let mut leaving: HashMap<i32, JoinHandle<()>> = HashMap::new();
    let ended = loop {
        tokio::select! {
            () = shutdown.cancelled() => break Ok(()),
            told = told.recv() => match told {
                Some(Told::Assigned(partitions)) => {
                    shared.status.joined();
                    for (partition, inbox) in partitions {
                        let before = leaving.remove(&partition);
                        running.insert(partition, start(shared, partition, inbox, before));
                    }
                }
                Some(Told::Revoked(partitions)) => {
                    for partition in partitions {
                        if let Some(owner) = running.remove(&partition) {
                            drop(owner.stop);
                            // One that had stopped for good has ended already and would stay in the status.
                            if owner.task.is_finished() {
                                shared.status.released(&shared.topic, partition);
                            }
                            leaving.insert(partition, owner.task);
                        }
                    }
                }
                Some(Told::LogLost) => running.values().for_each(|owner| owner.retake.notify_one()),
                None => break Err(RunError::ConsumerEnded),
            }
        }
    };
    // Dropping the guards stops all owners at once.
    let tasks: Vec<_> = running.into_values().map(|owner| owner.task).chain(leaving.into_values()).collect();
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(%error, "partition owner ended abnormally");
        }
    }
    ended
}

fn start<F: HandlerFactory>(
    shared: &Arc<Shared<F>>,
    partition: i32,
    inbox: Arc<Inbox>,
    before: Option<JoinHandle<()>>,
) -> Running {
    let stop = CancellationToken::new();
    let retake = Arc::new(Notify::new());
    let (shared, stopped, retaken) = (Arc::clone(shared), stop.clone(), Arc::clone(&retake));
    let task = tokio::spawn(async move {
        if let Some(before) = before {
            let _ended_either_way = before.await;
        }
        let (topic, status) = (Arc::clone(&shared.topic), shared.status.clone());
        status.set(&topic, partition, PartitionStatus::TakingOver);
        let waker = Waker::default();
        let key =
            PositionKey { partition, group: shared.config.group.clone(), topic: shared.config.topic.clone() };
        let ports = PgPorts::new(Arc::clone(&shared), key, waker.clone());
        let mut owner = Owner::new(ports, shared.config.limits.clone());
        match own(&mut owner, &inbox, &waker, &retaken, &stopped, &shared).await {
            Ok(()) => status.released(&topic, partition),
            Err(stopped) => status.set(&topic, partition, PartitionStatus::Stopped(stopped)),
        }
    });
    Running { stop: stop.drop_guard(), retake, task }
}

/// Steps the owner until it is told to stop. `Err`: the partition can't go on, and why.
async fn own<F: HandlerFactory>(
    owner: &mut Owner<PgPorts<F>>,
    inbox: &Inbox,
    waker: &Waker,
    retake: &Notify,
    stop: &CancellationToken,
    shared: &Shared<F>,
) -> Result<(), String> {
    let start = Instant::now();
    let now = || Now { wall: wall_clock(), elapsed: start.elapsed() };
    let mut was_reading = false;
    let mut heard = Instant::now();
    loop {
        if stop.is_cancelled() {
            crash_point(&shared.config.group, "stopping");
            drain(owner, shared.config.limits.drain).await;
            return Ok(());
        }
        let reading = owner.is_reading();
        if reading != was_reading {
            was_reading = reading;
            let status = if reading { PartitionStatus::Owned } else { PartitionStatus::TakingOver };
            shared.status.set(&shared.topic, owner.ports.partition(), status);
        }
        if owner.queued() > 0 || inbox.len() > 0 {
            heard = Instant::now();
        } else if reading && heard.elapsed() >= shared.config.limits.liveness {
            heard = Instant::now();
            // A fetcher can stall without an error; then records wait in the log that never arrive.
            if owner.ports.end_of_log().await.is_some_and(|end| owner.is_behind(end)) && inbox.len() == 0 {
                owner.read_again();
            }
        }
        let room = Room {
            records: (2 * shared.config.limits.batch_records).saturating_sub(owner.queued()),
            bytes: (2 * shared.config.limits.batch_bytes).saturating_sub(owner.queued_bytes()),
        };
        if reading && room.records > 0 && room.bytes > 0 {
            let records = inbox.take(owner.ports.reading(), room);
            owner.offer(records);
        }
        owner.ports.observe_lag(inbox.high_watermark());
        let stepped = tokio::select! {
            stepped = owner.step(now()) => stepped,
            // While the broker is away, publishing takes as long as that.
            () = out_of_patience(stop, shared.config.limits.drain) => {
                tracing::warn!("outputs were not acknowledged before the shutdown; the next owner publishes them");
                return Ok(());
            }
        };
        let pause = match stepped {
            Stepped::Progress => continue,
            Stepped::Idle(wait) => {
                // More records may join a batch that waits for its pace; only an empty queue waits for arrivals.
                let arrivals = owner.queued() == 0;
                let wait = wait.unwrap_or(Duration::MAX).min(shared.config.limits.liveness);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = inbox.arrived.notified(), if arrivals => {}
                    () = waker.woken() => owner.wake(),
                    () = retake.notified() => owner.retake(),
                    () = stop.cancelled() => {}
                }
                continue;
            }
            Stepped::BackOff(pause) => pause,
            Stepped::Stopped(error) => {
                tracing::error!(%error, "partition stops");
                return Err(error.to_string());
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn out_of_patience(stop: &CancellationToken, limit: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(limit).await;
}

/// Publishes what is committed, as far as that is possible in time; the successor publishes the rest.
async fn drain<F: HandlerFactory>(owner: &mut Owner<PgPorts<F>>, limit: Duration) {
    let publishing = async {
        while owner.has_unpublished() {
            if let Stepped::BackOff(pause) = owner.publish().await {
                tokio::time::sleep(pause).await;
            }
        }
    };
    if tokio::time::timeout(limit, publishing).await.is_err() {
        tracing::warn!("outputs were not acknowledged before the shutdown; the next owner publishes them");
    }
}

/// This machine's clock.
pub fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Cluster id and past parkings, as soon as Kafka answers; `None` when shut down first.
async fn ask_until_answered(
    config: &ConsumerConfig,
    reader: &Arc<Mutex<LogReader>>,
    shutdown: &CancellationToken,
) -> Option<(String, HashMap<i32, RecordedParkings>)> {
    loop {
        let (reader, config) = (Arc::clone(reader), config.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            let cluster_id = reader.cluster_id()?;
            reader.partitions(&config.topic)?;
            let mut recorded = HashMap::new();
            for partition in 0..reader.partitions(&config.dead_letters)? {
                let (low, high) = reader.bounds(&config.dead_letters, partition)?;
                reader.read(&config.dead_letters, partition, low, high, |letter| {
                    record_parking(&mut recorded, &letter, &config.group, &config.topic);
                })?;
            }
            Ok::<_, rdkafka::error::KafkaError>((cluster_id, recorded))
        });
        match asked.await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::warn!(%error, "waiting for kafka and its topics"),
            Err(error) => tracing::error!(%error, "asking kafka failed"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}
