//! Topics of one's own, and the barest producer and consumer: what the floor is measured with.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use kafka_cluster::Cluster;
use local_stack::topics::{self, TopicSpec};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};
use uuid::Uuid;

/// How long the broker may take for what is not measured.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Topics that nobody else uses, with names that begin with `load-test-`.
pub(crate) struct OwnTopics {
    cluster: Cluster,
    names: Vec<String>,
}

impl OwnTopics {
    /// Makes one for each name.
    pub(crate) async fn make(cluster: &Cluster, names: &[&str], partitions: i32) -> anyhow::Result<Self> {
        let run = Uuid::new_v4().simple().to_string();
        let names: Vec<String> = names.iter().map(|name| format!("load-test-{name}-{run}")).collect();
        let spec = |name: &String| TopicSpec { name: name.clone(), is_compacted: false };
        let specs: Vec<TopicSpec> = names.iter().map(spec).collect();
        topics::create(cluster, &specs, partitions).await?;
        Ok(Self { cluster: cluster.clone(), names })
    }

    /// The full name of the one that was asked for as the `number`th.
    pub(crate) fn name(&self, number: usize) -> anyhow::Result<&str> {
        self.names.get(number).map(String::as_str).context("no such topic was made")
    }

    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.cluster.client("load-test").create()?;
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        admin.delete_topics(&names, &AdminOptions::new().request_timeout(Some(TIMEOUT))).await?;
        Ok(())
    }
}

/// A record to produce; its partition is its number modulo those there are.
pub(crate) struct Produced<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) payload: &'a [u8],
}

/// A producer that waits for the acknowledgement of all it was given, with the product's own options.
pub(crate) struct Producer(ThreadedProducer<Delivered>);

struct Delivered;

/// How many are not acknowledged yet, and what went wrong first.
type Open = (usize, Option<KafkaError>);

struct Batch {
    open: Mutex<Open>,
    settled: Condvar,
}

fn lock(batch: &Batch) -> MutexGuard<'_, Open> {
    batch.open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = Arc<Batch>;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<Batch>) {
        let mut open = lock(&batch);
        open.0 -= 1;
        if let Err((error, _)) = result {
            open.1.get_or_insert_with(|| error.clone());
        }
        if open.0 == 0 {
            batch.settled.notify_all();
        }
    }
}

impl Producer {
    pub(crate) fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut options = cluster.client("load-test");
        options
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "262144")
            .set("compression.type", "none");
        Ok(Self(options.create_with_context(Delivered)?))
    }

    /// Produces all; blocks until each is acknowledged.
    pub(crate) fn produce(&self, records: &[Produced<'_>]) -> Result<(), KafkaError> {
        let batch = Arc::new(Batch { open: Mutex::new((records.len(), None)), settled: Condvar::new() });
        for Produced { topic, partition, payload } in records {
            let record: BaseRecord<'_, (), [u8], Arc<Batch>> =
                BaseRecord::with_opaque_to(topic, Arc::clone(&batch)).partition(*partition).payload(payload);
            self.0.send(record).map_err(|(error, _)| error)?;
        }
        let mut open = lock(&batch);
        while open.0 > 0 {
            open = batch.settled.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        open.1.take().map_or(Ok(()), Err)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.0.purge(rdkafka::producer::PurgeConfig::default().queue());
    }
}

/// Reads partitions of a topic, with the product's own options.
pub(crate) struct Reader(BaseConsumer);

impl Reader {
    /// From that offset on.
    pub(crate) fn at(
        cluster: &Cluster,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
        from: Offset,
    ) -> anyhow::Result<Self> {
        let mut options = cluster.client("load-test");
        options
            .set("group.id", "load-test")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "500")
            .set("fetch.queue.backoff.ms", "5");
        let consumer: BaseConsumer = options.create()?;
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(topic, partition, from)?;
        }
        consumer.assign(&list)?;
        Ok(Self(consumer))
    }

    /// What has arrived, at most `most`; waits up to `wait` for the first. Partition, offset and payload of each.
    pub(crate) fn take(&self, most: usize, wait: Duration) -> Result<Vec<(i32, i64, Vec<u8>)>, KafkaError> {
        let (mut taken, mut wait) = (Vec::new(), wait);
        while taken.len() < most {
            match self.0.poll(wait) {
                Some(Ok(record)) => {
                    let payload = record.payload().unwrap_or_default().to_vec();
                    taken.push((record.partition(), record.offset(), payload));
                }
                // Just made: the broker does not know it yet.
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::LeaderNotAvailable,
                ))) => {}
                Some(Err(error)) => return Err(error),
                None => break,
            }
            wait = Duration::ZERO;
        }
        Ok(taken)
    }
}
