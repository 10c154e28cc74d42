//! Publishing: idempotent producer, all acknowledgements, one counter per batch instead of a future per record.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_cluster::Cluster;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use tokio::sync::{oneshot, watch};

use crate::limits::{producer_options, report};
use crate::{BrokerAway, Output, PublishError};

/// How often the broker is asked whether it is there.
const PROBE_EVERY: Duration = Duration::from_millis(1_000);
/// The same while it does not answer.
const PROBE_AGAIN: Duration = Duration::from_millis(300);
/// However many errors there are.
const PROBE_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// How long it may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_millis(900);
/// How long the thread that takes acknowledgements waits for one. rdkafka's own thread for that waits 100 ms, and rdkafka spins through the
/// last of them (0.39: what is left is rounded down to 0 ms): the idle producers of four services took 4 % of a core.
const POLL: Duration = Duration::from_secs(1);
/// How long to wait when the producer's queue is full.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broker {
    Up,
    Suspect,
    Down,
}

/// Publishes records. Cheap to clone; clones share one producer.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: Cluster,
    client_id: String,
    give_up: Duration,
    producer: Mutex<Arc<BaseProducer<Context>>>,
    context: Context,
}

#[derive(Clone)]
struct Context {
    broker: watch::Sender<Broker>,
    /// Has the broker asked at once.
    suspect: SyncSender<()>,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        report("producer", &error, reason);
        self.broker.send_if_modified(|broker| {
            let was_up = *broker == Broker::Up;
            if was_up {
                *broker = Broker::Suspect;
            }
            was_up
        });
        let _asked_already = self.suspect.try_send(());
    }
}

/// Acknowledgements that a batch still waits for.
struct Pending {
    open: AtomicUsize,
    error: Mutex<Option<KafkaError>>,
    done: Mutex<Option<oneshot::Sender<Option<KafkaError>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pending {
    fn settle(&self, error: Option<KafkaError>) {
        if let Some(error) = error {
            lock(&self.error).get_or_insert(error);
        }
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(done) = lock(&self.done).take()
        {
            let _nobody_waits = done.send(lock(&self.error).take());
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Arc<Pending>) {
        pending.settle(result.as_ref().err().map(|(error, _)| error.clone()));
    }
}

impl Publisher {
    /// A producer for a cluster that never gives a record up while the broker is away: of two records of
    /// a key the second is never appended without the first. Makes no connection yet.
    ///
    /// # Errors
    /// If the client can't be made: a setting is wrong.
    pub fn new(cluster: impl Into<Cluster>, client_id: &str) -> Result<Self, KafkaError> {
        Self::giving_up_after(cluster, client_id, Duration::ZERO)
    }

    /// The same, but a record that no broker acknowledged within `give_up` (not zero) is dropped, as far as it is not
    /// under way: for requests whose client went away long ago.
    ///
    /// # Errors
    /// If the client can't be made: a setting is wrong.
    pub fn giving_up_after(
        cluster: impl Into<Cluster>,
        client_id: &str,
        give_up: Duration,
    ) -> Result<Self, KafkaError> {
        let cluster = cluster.into();
        let (suspect, suspected) = sync_channel(1);
        let context = Context { broker: watch::Sender::new(Broker::Suspect), suspect };
        let producer = make_producer(&cluster, client_id, give_up, &context)?;
        let shared = Arc::new(Shared {
            cluster,
            client_id: client_id.to_owned(),
            give_up,
            producer: Mutex::new(producer),
            context,
        });
        let watched = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("broker-probe".to_owned())
            .spawn(move || {
                while let Some(shared) = watched.upgrade() {
                    let answered = shared.probe();
                    drop(shared);
                    let pause = if answered { PROBE_EVERY } else { PROBE_AGAIN };
                    if suspected.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                        return;
                    }
                    std::thread::sleep(PROBE_AT_MOST_EVERY);
                }
            })
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { shared })
    }

    /// Publishes `outputs` in order and waits for every acknowledgement.
    ///
    /// `Ok`: all are durable on all in-sync replicas. After an error each of them may or may not have been
    /// appended. Cancel safe in this sense: records handed over before a cancellation may still be appended, at any
    /// time before the publisher gives them up.
    ///
    /// # Errors
    /// [`PublishError::NotAcknowledged`] when the broker refused a record, or the publisher gave one up.
    pub async fn publish(&self, outputs: &[Output]) -> Result<(), PublishError> {
        if outputs.is_empty() {
            return Ok(());
        }
        let producer = Arc::clone(&lock(&self.shared.producer));
        let (done, acknowledged) = oneshot::channel();
        let pending = Arc::new(Pending {
            open: AtomicUsize::new(outputs.len()),
            error: Mutex::new(None),
            done: Mutex::new(Some(done)),
        });
        for output in outputs {
            enqueue(&producer, output, &pending).await;
        }
        drop(pending);
        match acknowledged.await {
            Ok(None) => Ok(()),
            Ok(Some(error)) => {
                self.shared.replace_if_fatal(&producer);
                Err(PublishError::NotAcknowledged(error))
            }
            Err(_sender_gone) => Err(PublishError::Closed),
        }
    }

    /// Whether a broker answers: from what was seen within the last second, else by asking, at most for a second.
    ///
    /// # Errors
    /// [`BrokerAway`] if none does.
    pub async fn reachable(&self) -> Result<(), BrokerAway> {
        let mut broker = self.shared.context.broker.subscribe();
        let known = broker.wait_for(|broker| *broker != Broker::Suspect);
        match tokio::time::timeout(Duration::from_secs(1), known).await {
            Ok(Ok(broker)) if *broker == Broker::Up => Ok(()),
            _ => Err(BrokerAway),
        }
    }
}

impl Shared {
    /// Asks the broker for metadata.
    fn probe(&self) -> bool {
        let producer = Arc::clone(&lock(&self.producer));
        let answered = producer.client().fetch_metadata(Some("order-saga"), PROBE_TIMEOUT).is_ok();
        let now = if answered { Broker::Up } else { Broker::Down };
        let mut before = now;
        self.context.broker.send_if_modified(|broker| {
            before = std::mem::replace(broker, now);
            before != now
        });
        if before != now {
            tracing::info!(reachable = answered, "kafka broker state changed");
        }
        answered
    }

    /// A producer that met a fatal error refuses everything from then on: make a new one.
    fn replace_if_fatal(&self, producer: &Arc<BaseProducer<Context>>) {
        if producer.client().fatal_error().is_none() {
            return;
        }
        let mut current = lock(&self.producer);
        if !Arc::ptr_eq(&current, producer) {
            return;
        }
        match make_producer(&self.cluster, &self.client_id, self.give_up, &self.context) {
            Ok(fresh) => {
                tracing::warn!("kafka producer met a fatal error and was replaced");
                *current = fresh;
            }
            Err(error) => tracing::error!(%error, "kafka producer can't be replaced"),
        }
    }
}

fn make_producer(
    cluster: &Cluster,
    client_id: &str,
    give_up: Duration,
    context: &Context,
) -> Result<Arc<BaseProducer<Context>>, KafkaError> {
    let options = producer_options(cluster, client_id, give_up);
    let producer: Arc<BaseProducer<Context>> = Arc::new(options.create_with_context(context.clone())?);
    let polled = Arc::downgrade(&producer);
    std::thread::Builder::new()
        .name("producer-poll".to_owned())
        .spawn(move || {
            while let Some(producer) = polled.upgrade() {
                producer.poll(POLL);
            }
        })
        .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
    Ok(producer)
}

/// Hands one record to the producer; waits while its queue is full. A refusal is settled as an answer.
async fn enqueue(producer: &BaseProducer<Context>, output: &Output, pending: &Arc<Pending>) {
    loop {
        let Err(error) = try_enqueue(producer, output, pending) else { return };
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
            tokio::time::sleep(QUEUE_FULL_WAIT).await;
        } else {
            pending.settle(Some(error));
            return;
        }
    }
}

fn try_enqueue(
    producer: &BaseProducer<Context>,
    output: &Output,
    pending: &Arc<Pending>,
) -> Result<(), KafkaError> {
    let mut record: BaseRecord<'_, [u8], [u8], Arc<Pending>> =
        BaseRecord::with_opaque_to(&output.topic, Arc::clone(pending)).payload(&output.value);
    if let Some(key) = &output.key {
        record = record.key(key);
    }
    if !output.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(output.headers.len());
        record = record.headers(
            output
                .headers
                .iter()
                .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) })),
        );
    }
    producer.send(record).map_err(|(error, _record)| error)
}
