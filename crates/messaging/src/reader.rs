//! Reading without a consumer group: what a log holds, its end, its identity.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain_types::Timestamp;
use kafka_cluster::Cluster;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::limits::{consumer_options, report};
use crate::{Offset, Record};

/// How long a single question to the broker may take.
const ASK: Duration = Duration::from_secs(5);

/// How long the broker holds a question back that was asked at the end of a log. The next partition to be read waits for its answer:
/// half a second, a consumer's, made a short log with six partitions take three.
const AT_THE_END: Duration = Duration::from_millis(10);

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailFrom {
    /// At the oldest record.
    Beginning,
    /// With what is appended from now on.
    End,
}

/// Stands for headers that the client library can't read.
pub(crate) const UNREADABLE_HEADERS: &str = "unreadable-headers";

/// The headers. The client library panics on a name that is not UTF-8, which anybody may write: such a record must be
/// parked, not end the thread.
fn headers(message: &BorrowedMessage<'_>) -> crate::Headers {
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
                .collect()
        })
    }));
    read.unwrap_or_else(|_panic| vec![(UNREADABLE_HEADERS.to_owned(), Vec::new())])
}

pub(crate) fn to_record(topic: &Arc<str>, message: &BorrowedMessage<'_>) -> Record {
    Record {
        topic: Arc::clone(topic),
        partition: message.partition(),
        offset: Offset(message.offset()),
        time: Timestamp::from_millis(message.timestamp().to_millis().unwrap_or(0)),
        key: message.key().map(<[u8]>::to_vec),
        headers: headers(message),
        value: message.payload().unwrap_or_default().to_vec(),
    }
}

/// A consumer without a group, for questions about a log. Its calls block: use them on threads that may.
pub struct LogReader {
    consumer: BaseConsumer<Quiet>,
}

/// Errors of the connection show as answers that do not come; they need no line each in the log.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        report("reader", &error, reason);
    }
}

impl ConsumerContext for Quiet {}

impl LogReader {
    /// Makes the client; connects when asked something.
    ///
    /// # Errors
    /// If the client can't be made.
    pub fn new(cluster: impl Into<Cluster>) -> Result<Self, KafkaError> {
        Self::gathering(&cluster.into(), AT_THE_END)
    }

    fn gathering(cluster: &Cluster, gather: Duration) -> Result<Self, KafkaError> {
        let mut options = consumer_options(cluster, "log-reader", gather);
        options.set("group.id", "log-reader");
        Ok(Self { consumer: options.create_with_context(Quiet)? })
    }

    /// The cluster's id.
    ///
    /// # Errors
    /// If no broker answers.
    pub fn cluster_id(&self) -> Result<String, KafkaError> {
        let id = self.consumer.client().fetch_cluster_id(ASK);
        id.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure))
    }

    /// The number of partitions of a topic.
    ///
    /// # Errors
    /// If no broker answers, or there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<i32, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(topic), ASK)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found {
            Some(found) if found.error().is_none() && !found.partitions().is_empty() => {
                Ok(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX))
            }
            _ => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)),
        }
    }

    /// First offset, and one past the last.
    ///
    /// # Errors
    /// If no broker answers, or there is no such partition.
    pub fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), KafkaError> {
        self.consumer.fetch_watermarks(topic, partition, ASK)
    }

    /// The offset of the first record that was appended at `time` or later; the end of the log if there is none.
    ///
    /// # Errors
    /// If no broker answers, or there is no such partition.
    pub fn offset_at(&self, topic: &str, partition: i32, time: Timestamp) -> Result<i64, KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, KafkaOffset::Offset(time.as_millis().max(0)))?;
        let found = self.consumer.offsets_for_times(list, ASK)?;
        let offset = found.find_partition(topic, partition).and_then(|found| found.offset().to_raw());
        match offset.filter(|offset| *offset >= 0) {
            Some(offset) => Ok(offset),
            None => Ok(self.bounds(topic, partition)?.1),
        }
    }

    /// Reads the records `from..to` of a partition, as far as they exist.
    ///
    /// # Errors
    /// If the broker does not answer for a while.
    pub fn read(
        &self,
        topic: &str,
        partition: i32,
        from: i64,
        to: i64,
        mut each: impl FnMut(Record),
    ) -> Result<(), KafkaError> {
        if from >= to {
            return Ok(());
        }
        let name: Arc<str> = topic.into();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, KafkaOffset::Offset(from))?;
        self.consumer.assign(&list)?;
        let mut last_answer = Instant::now();
        loop {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    last_answer = Instant::now();
                    if message.offset() < to {
                        each(to_record(&name, &message));
                    }
                    if message.offset() + 1 >= to {
                        break;
                    }
                }
                Some(Err(KafkaError::MessageConsumption(code))) if !is_passing(code) => {
                    self.consumer.unassign()?;
                    return Err(KafkaError::MessageConsumption(code));
                }
                Some(Err(_)) | None => {
                    // A compacted log may lack its last offsets: ask where the reader stands.
                    let positions = self.consumer.position()?;
                    let stands = positions.find_partition(topic, partition);
                    let reached = stands.and_then(|position| position.offset().to_raw()).unwrap_or(from);
                    if reached >= to {
                        break;
                    }
                    if last_answer.elapsed() > ASK {
                        self.consumer.unassign()?;
                        return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
                    }
                }
            }
        }
        self.consumer.unassign()
    }

    /// Who a log with these bounds is: the time and content of its first record. A topic that is made anew has another one, and no
    /// record of ours is ever deleted. `None` while the log is empty.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub fn log_id(
        &self,
        topic: &str,
        partition: i32,
        low: i64,
        high: i64,
    ) -> Result<Option<String>, KafkaError> {
        if low != 0 || high == 0 {
            return Ok(None);
        }
        let mut id = None;
        self.read(topic, partition, 0, 1, |record| {
            id = Some(crate::rules::log_id(&record));
        })?;
        Ok(id)
    }
}

pub(crate) fn is_passing(code: RDKafkaErrorCode) -> bool {
    !matches!(
        code,
        RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed
    )
}

/// Follows every partition of a topic, without a group, until `shutdown`; each record is handed to `each` on a thread
/// of its own. For wake-ups and caches: nothing is remembered. `gather` is [`crate::Limits::gather`].
///
/// # Errors
/// If the client can't be made, or the topic is not there.
pub async fn tail(
    cluster: impl Into<Cluster>,
    topic: &str,
    from: TailFrom,
    gather: Duration,
    shutdown: CancellationToken,
    mut each: impl FnMut(Record) + Send + 'static,
) -> Result<(), KafkaError> {
    let (cluster, topic) = (cluster.into(), topic.to_owned());
    let task = tokio::task::spawn_blocking(move || {
        let reader = LogReader::gathering(&cluster, gather)?;
        let Some(partitions) = wait_for(&shutdown, || reader.partitions(&topic)) else { return Ok(()) };
        let name: Arc<str> = topic.as_str().into();
        let mut next: HashMap<i32, i64> = HashMap::new();
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            let Some((low, high)) = wait_for(&shutdown, || reader.bounds(&topic, partition)) else {
                return Ok(());
            };
            let start = if from == TailFrom::End { high } else { low };
            next.insert(partition, start);
            list.add_partition_offset(&topic, partition, KafkaOffset::Offset(start))?;
        }
        reader.consumer.assign(&list)?;
        while !shutdown.is_cancelled() {
            match reader.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => each(to_record(&name, &message)),
                Some(Err(error)) => tracing::debug!(%error, topic, "tail waits for the broker"),
                None => {}
            }
        }
        Ok(())
    });
    match task.await {
        Ok(result) => result,
        Err(error) => Err(KafkaError::ClientCreation(error.to_string())),
    }
}

/// Asks until there is an answer; `None` when shut down first.
fn wait_for<T>(shutdown: &CancellationToken, mut ask: impl FnMut() -> Result<T, KafkaError>) -> Option<T> {
    loop {
        if shutdown.is_cancelled() {
            return None;
        }
        match ask() {
            Ok(answer) => return Some(answer),
            Err(error) => {
                tracing::debug!(%error, "tail waits for the broker");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}
