//! The thread that polls Kafka: a member of the consumer group that hands one vector of records per partition and
//! poll to the partitions' inboxes.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as thread_mpsc};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::Offset as KafkaOffset;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{Notify, mpsc};

use crate::limits::report;
use crate::reader::{is_passing, to_record};
use crate::{NextOffset, Record};

/// How long the thread waits for records before it looks at its orders. Not shorter: the client library spins through the
/// last millisecond of each wait.
const POLL: Duration = Duration::from_millis(100);
/// How many records, and about how many bytes, one round of polling takes at most.
const ROUND: Room = Room { records: 5_000, bytes: 16 << 20 };

/// One reading of a partition, from one assignment with an offset to the next. Records of an earlier reading must never reach an owner that
/// has asked for a later one: there may be a gap between its position and them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reading(pub(crate) u64);

/// How much there may be of something that is made of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

/// Records on their way to the owner of one partition.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    records: Mutex<(Reading, VecDeque<Record>)>,
    length: AtomicUsize,
    bytes: AtomicUsize,
    high_watermark: Mutex<Option<i64>>,
    pub(crate) arrived: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// Takes records of that reading until `room` is full; at least one, if there is room for any.
    pub(crate) fn take(&self, reading: Reading, room: Room) -> Vec<Record> {
        let mut inbox = lock(&self.records);
        let (present, records) = &mut *inbox;
        if *present != reading {
            return Vec::new();
        }
        let mut bytes = 0;
        let fitting = records.iter().take(room.records).take_while(|record| {
            let fits = bytes < room.bytes;
            bytes += record.size_bytes();
            fits
        });
        let count = fitting.count();
        let taken: Vec<Record> = records.drain(..count).collect();
        self.length.store(records.len(), Ordering::Relaxed);
        self.bytes.fetch_sub(size_bytes(&taken), Ordering::Relaxed);
        taken
    }

    pub(crate) fn len(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    pub(crate) fn high_watermark(&self) -> Option<i64> {
        *lock(&self.high_watermark)
    }

    /// Whether there is more than `part` (1: all) of `room`.
    fn exceeds(&self, room: Room, part: usize) -> bool {
        self.len() > room.records / part || self.bytes.load(Ordering::Relaxed) > room.bytes / part
    }

    fn put(&self, arrived: Vec<Record>) {
        self.bytes.fetch_add(size_bytes(&arrived), Ordering::Relaxed);
        let mut inbox = lock(&self.records);
        inbox.1.extend(arrived);
        self.length.store(inbox.1.len(), Ordering::Relaxed);
        drop(inbox);
        self.arrived.notify_one();
    }

    /// From now on records of `reading` arrive.
    fn begin(&self, reading: Reading) {
        *lock(&self.records) = (reading, VecDeque::new());
        self.length.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }
}

fn size_bytes(records: &[Record]) -> usize {
    records.iter().map(Record::size_bytes).sum()
}

/// Orders to the thread.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    /// Read a partition from here on.
    Read(i32, NextOffset, Reading),
    /// Leave the group and end.
    Stop,
}

/// What the thread tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// Partitions that are ours from now on.
    Assigned(Vec<(i32, Arc<Inbox>)>),
    /// Partitions that are not ours any more.
    Revoked(Vec<i32>),
    /// The log does not hold what was asked for.
    LogLost,
}

pub(crate) struct GroupContext {
    topic: String,
    told: mpsc::Sender<Told>,
    inboxes: Mutex<HashMap<i32, Arc<Inbox>>>,
}

impl ClientContext for GroupContext {
    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        let inboxes = lock(&self.inboxes);
        for (partition, numbers) in &topic.partitions {
            if let Some(inbox) = inboxes.get(partition)
                && numbers.hi_offset >= 0
            {
                *lock(&inbox.high_watermark) = Some(numbers.hi_offset);
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report("consumer", &error, reason);
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assigned(consumer, list, &partitions);
        } else {
            self.revoked(consumer, list, partitions);
        }
    }
}

impl GroupContext {
    /// Nothing is read before the partition is taken over: until then it is paused, and what arrives is dropped.
    ///
    /// At an offset, whichever: to stand at the end, the client would have to ask where that is, and an answer that comes
    /// late is taken for where to go on, also by the assignment that has begun meanwhile. Of a compacted log nobody
    /// would miss what it skips.
    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList, partitions: &[i32]) {
        for partition in partitions {
            log_error(list.set_partition_offset(&self.topic, *partition, KafkaOffset::Offset(0)), "assign");
        }
        log_error(consumer.incremental_assign(list), "assign");
        log_error(consumer.pause(list), "pause");
        let mut inboxes = lock(&self.inboxes);
        let fresh: Vec<_> =
            partitions.iter().map(|partition| (*partition, Arc::new(Inbox::default()))).collect();
        inboxes.extend(fresh.iter().map(|(partition, inbox)| (*partition, Arc::clone(inbox))));
        drop(inboxes);
        let _runtime_gone = self.told.blocking_send(Told::Assigned(fresh));
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList, partitions: Vec<i32>) {
        lock(&self.inboxes).retain(|partition, _| !partitions.contains(partition));
        let _runtime_gone = self.told.blocking_send(Told::Revoked(partitions));
        log_error(consumer.incremental_unassign(list), "unassign");
    }
}

fn log_error(result: Result<(), KafkaError>, what: &str) {
    if let Err(error) = result {
        tracing::error!(%error, what, "kafka consumer refused");
    }
}

/// The polling thread's own state.
pub(crate) struct Poller {
    consumer: BaseConsumer<GroupContext>,
    topic: Arc<str>,
    orders: thread_mpsc::Receiver<Order>,
    /// Readings to begin; tried again until the client is ready for it.
    to_read: HashMap<i32, (NextOffset, Reading)>,
    /// Paused because their inbox is full.
    full: Vec<i32>,
    inbox_room: Room,
    options: rdkafka::ClientConfig,
}

/// How long a consumer that met a fatal error waits before it joins the group again.
const REJOIN_AFTER: Duration = Duration::from_secs(1);

impl Poller {
    /// Joins the group.
    pub(crate) fn subscribe(
        options: &rdkafka::ClientConfig,
        topic: &Arc<str>,
        told: mpsc::Sender<Told>,
        orders: thread_mpsc::Receiver<Order>,
        inbox_room: Room,
    ) -> Result<Self, KafkaError> {
        let context = GroupContext { topic: topic.to_string(), told, inboxes: Mutex::default() };
        let consumer: BaseConsumer<GroupContext> = options.create_with_context(context)?;
        consumer.subscribe(&[topic.as_ref()])?;
        Ok(Self {
            consumer,
            topic: Arc::clone(topic),
            orders,
            to_read: HashMap::new(),
            full: Vec::new(),
            inbox_room,
            options: options.clone(),
        })
    }

    /// A client that met a fatal error hears nothing from then on: another one joins the group. A broker that stood still for a session
    /// may answer a join twice, and the second one fences the member of the first, which is the same.
    fn join_again(&mut self, why: &str) -> Result<(), KafkaError> {
        tracing::warn!(why, topic = %self.topic, "kafka consumer met a fatal error and joins anew");
        std::thread::sleep(REJOIN_AFTER);
        let context = self.consumer.context();
        let (told, mut lost) = (context.told.clone(), Vec::new());
        lost.extend(lock(&context.inboxes).drain().map(|(partition, _)| partition));
        let fresh = GroupContext { topic: self.topic.to_string(), told, inboxes: Mutex::default() };
        let fresh: BaseConsumer<GroupContext> = self.options.create_with_context(fresh)?;
        // The former one is gone, with all that it has to tell, before the new one gets partitions.
        drop(std::mem::replace(&mut self.consumer, fresh));
        self.to_read.clear();
        self.full.clear();
        let _runtime_gone = self.consumer.context().told.blocking_send(Told::Revoked(lost));
        self.consumer.subscribe(&[self.topic.as_ref()])
    }

    /// Polls until told to stop; then leaves the group.
    pub(crate) fn run(mut self) {
        loop {
            loop {
                match self.orders.try_recv() {
                    Ok(Order::Read(partition, next, reading)) => {
                        self.to_read.insert(partition, (next, reading));
                    }
                    Err(thread_mpsc::TryRecvError::Empty) => break,
                    Ok(Order::Stop) | Err(thread_mpsc::TryRecvError::Disconnected) => {
                        self.consumer.unsubscribe();
                        return;
                    }
                }
            }
            if let Some((_, why)) = self.consumer.client().fatal_error()
                && let Err(error) = self.join_again(&why)
            {
                tracing::error!(%error, topic = %self.topic, "the kafka client can't be made anew");
                return;
            }
            self.begin_readings();
            self.resume_drained();
            self.round();
        }
    }

    fn inbox(&self, partition: i32) -> Option<Arc<Inbox>> {
        lock(&self.consumer.context().inboxes).get(&partition).cloned()
    }

    fn one(&self, partition: i32, offset: KafkaOffset) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, offset)?;
        Ok(list)
    }

    /// Stops or goes on with fetching; what was fetched and not polled yet is fetched again.
    fn set_paused(&self, partition: i32, paused: bool) {
        let done = self
            .one(partition, KafkaOffset::Invalid)
            .and_then(|one| if paused { self.consumer.pause(&one) } else { self.consumer.resume(&one) });
        log_error(done, if paused { "pause" } else { "resume" });
    }

    /// Begins a reading: the partition is assigned anew, with the offset, and goes on if it was paused.
    fn begin_readings(&mut self) {
        for (partition, (next, reading)) in std::mem::take(&mut self.to_read) {
            let Some(inbox) = self.inbox(partition) else { continue };
            let one = self.one(partition, KafkaOffset::Offset(next.0));
            let begun = one.and_then(|one| {
                self.consumer.incremental_unassign(&one)?;
                self.consumer.incremental_assign(&one)?;
                // It may have been paused because its inbox was full.
                self.consumer.resume(&one)
            });
            if let Err(error) = begun {
                tracing::warn!(%error, partition, topic = %self.topic, "reading is tried again");
                self.to_read.insert(partition, (next, reading));
                continue;
            }
            inbox.begin(reading);
            self.full.retain(|full| *full != partition);
        }
    }

    fn resume_drained(&mut self) {
        for partition in std::mem::take(&mut self.full) {
            match self.inbox(partition) {
                Some(inbox) if inbox.exceeds(self.inbox_room, 4) => self.full.push(partition),
                Some(_) => self.set_paused(partition, false),
                None => {}
            }
        }
    }

    /// Takes everything that has arrived and hands on one vector per partition.
    fn round(&mut self) {
        let mut arrived: HashMap<i32, Vec<Record>> = HashMap::new();
        let mut wait = POLL;
        let mut bytes = 0;
        for _ in 0..ROUND.records {
            if bytes > ROUND.bytes {
                break;
            }
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    bytes += message.payload_len();
                    arrived.entry(message.partition()).or_default().push(to_record(&self.topic, &message));
                }
                Some(Err(error)) => self.poll_failed(&error),
                None => break,
            }
            wait = Duration::ZERO;
        }
        for (partition, records) in arrived {
            let Some(inbox) = self.inbox(partition) else { continue };
            inbox.put(records);
            if inbox.exceeds(self.inbox_room, 1) && !self.full.contains(&partition) {
                self.set_paused(partition, true);
                self.full.push(partition);
            }
        }
    }

    fn poll_failed(&self, error: &KafkaError) {
        tracing::debug!(%error, topic = %self.topic, "kafka poll failed");
        let lost = match error {
            KafkaError::MessageConsumption(code) | KafkaError::MessageConsumptionFatal(code) => {
                !is_passing(*code)
            }
            _ => false,
        };
        if lost {
            let _runtime_gone = self.consumer.context().told.blocking_send(Told::LogLost);
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use domain_types::Timestamp;

    use super::*;
    use crate::Offset;

    fn record(offset: i64, bytes: usize) -> Record {
        Record {
            topic: "t".into(),
            partition: 0,
            offset: Offset(offset),
            time: Timestamp::from_millis(0),
            key: None,
            headers: Vec::new(),
            value: vec![0; bytes],
        }
    }

    #[test]
    fn few_large_records_fill_an_inbox_as_well_as_many_small_ones() {
        let (room, inbox) = (Room { records: 100, bytes: 1_000 }, Inbox::default());
        inbox.put((0..3).map(|offset| record(offset, 400)).collect());
        assert!(inbox.exceeds(room, 1), "1,200 bytes of 1,000");
        let taken = inbox.take(Reading::default(), Room { records: 100, bytes: 500 });
        assert_eq!(taken.len(), 2, "until the room is full");
        assert!(!inbox.exceeds(room, 1));
        let taken = inbox.take(Reading::default(), Room { records: 100, bytes: 1 });
        assert_eq!(taken[0].offset, Offset(2), "one larger than the room still passes");
        inbox.put((3..200).map(|offset| record(offset, 0)).collect());
        assert!(inbox.exceeds(room, 1), "197 records of 100");
    }
}
