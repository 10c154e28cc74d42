//! What all processes share: time, the log, the network in front of it, chance, and the story of the schedule.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain_types::Timestamp;
use messaging::{Offset, Output, Record};
use schemas::{Envelope, OrderEvent, StockLevelMessage, Topic};

use crate::planted::Planted;
use crate::provider::Book;
use crate::rng::Rng;

/// Partitions of every topic.
pub(crate) const PARTITIONS: i32 = 2;
/// When a schedule begins, milliseconds since 1970.
pub(crate) const EPOCH_MS: i64 = 1_795_237_200_000;

pub(crate) type Shared<T> = Arc<Mutex<T>>;

pub(crate) fn shared<T>(value: T) -> Shared<T> {
    Arc::new(Mutex::new(value))
}

pub(crate) fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static CLOCK: Cell<i64> = const { Cell::new(EPOCH_MS) };
}

/// The clock of the machine whose code runs just now.
pub(crate) fn wall_clock() -> Timestamp {
    Timestamp::from_millis(CLOCK.get())
}

/// From now on code of a machine runs whose clock says this.
pub(crate) fn set_wall_clock(now_ms: i64) {
    CLOCK.set(now_ms);
}

pub(crate) fn fingerprint(parts: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        part.hash(&mut hasher);
    }
    hasher.finish()
}

/// The partition of a key.
pub(crate) fn partition_of(key: &[u8]) -> i32 {
    i32::try_from(fingerprint(&[key]) % u64::from(PARTITIONS.unsigned_abs())).unwrap_or(0)
}

/// What goes wrong, in so many of 1,000 cases. Each schedule has its own mix; all zero once it calms down.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mix {
    pub(crate) transient: u32,
    pub(crate) commit_lost: u32,
    pub(crate) publish_fails: u32,
    pub(crate) record_missing: u32,
    pub(crate) handler_fails: u32,
    pub(crate) kill: u32,
    pub(crate) freeze: u32,
    pub(crate) rebalance: u32,
    pub(crate) clock: u32,
    pub(crate) restore: u32,
    pub(crate) poison: u32,
    pub(crate) requests: u32,
    pub(crate) duplicates: u32,
    pub(crate) provider_unknown: u32,
    pub(crate) provider_late: u32,
    pub(crate) retake: u32,
    pub(crate) slow_network: u32,
}

/// One partition of a topic.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub(crate) records: Vec<Record>,
}

impl Partition {
    pub(crate) fn end(&self) -> i64 {
        i64::try_from(self.records.len()).unwrap_or(i64::MAX)
    }

    /// The log's identity, once it has a record.
    pub(crate) fn id(&self) -> Option<String> {
        self.records.first().map(messaging::rules::log_id)
    }

    pub(crate) fn get(&self, offset: i64) -> Option<&Record> {
        self.records.get(usize::try_from(offset).ok()?)
    }
}

/// A record on its way to the broker.
pub(crate) struct Sent {
    output: Output,
    acknowledged: Arc<AtomicBool>,
}

/// What one producer has on its way to one partition: arrives in order, if it arrives.
pub(crate) struct Lane {
    producer: u64,
    topic: Topic,
    partition: i32,
    queue: VecDeque<Sent>,
    /// Its process is dead: what is still here was sent before.
    orphaned: bool,
    /// Nothing of it arrives before.
    not_before_ms: i64,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) mix: Mix,
    /// True time.
    pub(crate) now_ms: i64,
    /// How far the broker's clock is off.
    pub(crate) broker_off_ms: i64,
    pub(crate) logs: BTreeMap<(Topic, i32), Partition>,
    lanes: Vec<Lane>,
    pub(crate) book: Book,
    pub(crate) planted: Option<Planted>,
    pub(crate) violations: Vec<String>,
    pub(crate) story: Option<Vec<String>>,
    /// Content of each version that readers may have seen.
    versions: HashMap<(String, i64), u64>,
    next_id: u64,
    /// Fingerprints of records that a service has published, by where they are.
    pub(crate) published: HashMap<u64, (i32, i64)>,
    /// Records whose handling fails until somebody mends it.
    pub(crate) cursed: BTreeSet<(Topic, i32, i64)>,
    /// All that were ever so.
    pub(crate) once_cursed: BTreeSet<(Topic, i32, i64)>,
    /// Good records that an operator dropped all the same.
    pub(crate) discarded: BTreeSet<(Topic, i32, i64)>,
    /// Records that nobody can read.
    pub(crate) poison: BTreeSet<(Topic, i32, i64)>,
}

impl World {
    pub(crate) fn new(seed: u64, planted: Option<Planted>, with_story: bool) -> Self {
        let topics = Topic::ALL.into_iter();
        let logs = topics
            .flat_map(|topic| {
                (0..PARTITIONS).map(move |partition| ((topic, partition), Partition::default()))
            })
            .collect();
        Self {
            seed,
            rng: Rng::new(seed),
            mix: Mix::default(),
            now_ms: EPOCH_MS,
            broker_off_ms: 0,
            logs,
            lanes: Vec::new(),
            book: Book::default(),
            planted,
            violations: Vec::new(),
            story: with_story.then(Vec::new),
            versions: HashMap::new(),
            next_id: 0,
            published: HashMap::new(),
            cursed: BTreeSet::new(),
            once_cursed: BTreeSet::new(),
            discarded: BTreeSet::new(),
            poison: BTreeSet::new(),
        }
    }

    /// Adds a line to the story, if anybody reads it.
    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>9} ms  {}", self.now_ms - EPOCH_MS, line()));
        }
    }

    /// Something that must never be.
    pub(crate) fn violate(&mut self, what: String) {
        self.tell(|| format!("VIOLATION {what}"));
        self.violations.push(what);
    }

    pub(crate) fn is_planted(&self, bug: Planted) -> bool {
        self.planted == Some(bug)
    }

    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn end(&self, topic: Topic, partition: i32) -> i64 {
        self.logs.get(&(topic, partition)).map_or(0, Partition::end)
    }

    pub(crate) fn record(&self, topic: Topic, partition: i32, offset: i64) -> Option<&Record> {
        self.logs.get(&(topic, partition)).and_then(|log| log.get(offset))
    }

    /// Appends a record, with the broker's time. Returns where it is.
    pub(crate) fn append(&mut self, output: &Output) -> (i32, i64) {
        let Some(topic) = Topic::by_name(output.topic()) else {
            self.violate(format!("there is no topic {}", output.topic()));
            return (0, 0);
        };
        let partition = output.key().map_or(0, partition_of);
        self.check_version(topic, output);
        let time = Timestamp::from_millis(self.now_ms + self.broker_off_ms);
        let log = self.logs.entry((topic, partition)).or_default();
        let offset = log.end();
        log.records.push(Record {
            topic: topic.name().into(),
            partition,
            offset: Offset(offset),
            time,
            key: output.key().map(<[u8]>::to_vec),
            headers: output.headers().clone(),
            value: output.value().to_vec(),
        });
        self.tell(|| {
            format!("the broker appends {topic:?}/{partition}@{offset}: {}", summary(output.value()))
        });
        (partition, offset)
    }

    /// A version that readers may have seen never comes with another content.
    fn check_version(&mut self, topic: Topic, output: &Output) {
        let version = match topic {
            Topic::OrderEvents => Envelope::<OrderEvent>::decode(output.value()).ok().map(|envelope| {
                let order = envelope.order_id.map(|order| order.to_string()).unwrap_or_default();
                match envelope.message {
                    OrderEvent::OrderPlaced(event) => (order, event.version),
                    OrderEvent::OrderChanged(event) => (order, event.version),
                }
            }),
            Topic::StockLevels => {
                Envelope::<StockLevelMessage>::decode(output.value()).ok().map(|envelope| {
                    let StockLevelMessage::StockLevel(level) = envelope.message;
                    (level.sku.to_string(), level.version)
                })
            }
            Topic::OrderSaga
            | Topic::StockCommands
            | Topic::PaymentCommands
            | Topic::StockEvents
            | Topic::DeadLetters => None,
        };
        let Some(key) = version else { return };
        let content = fingerprint(&[output.value()]);
        if *self.versions.entry(key.clone()).or_insert(content) != content {
            self.violate(format!("version {} of {} was published with two contents", key.1, key.0));
        }
    }

    /// Hands outputs to the network. Each is acknowledged once it is appended.
    pub(crate) fn send(&mut self, producer: u64, outputs: &[Output]) -> Vec<Arc<AtomicBool>> {
        let mut acknowledgements = Vec::with_capacity(outputs.len());
        for output in outputs {
            let Some(topic) = Topic::by_name(output.topic()) else {
                self.violate(format!("there is no topic {}", output.topic()));
                continue;
            };
            let partition = output.key().map_or(0, partition_of);
            let acknowledged = Arc::new(AtomicBool::new(false));
            acknowledgements.push(Arc::clone(&acknowledged));
            let sent = Sent { output: output.clone(), acknowledged };
            let lane = self.lanes.iter_mut().find(|lane| {
                lane.producer == producer
                    && lane.topic == topic
                    && lane.partition == partition
                    && !lane.orphaned
            });
            match lane {
                Some(lane) => lane.queue.push_back(sent),
                None => self.lanes.push(Lane {
                    producer,
                    topic,
                    partition,
                    queue: VecDeque::from([sent]),
                    orphaned: false,
                    not_before_ms: 0,
                }),
            }
        }
        acknowledgements
    }

    /// A producer is gone: of what it had sent, the first few may still arrive.
    pub(crate) fn orphan(&mut self, producer: u64) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.producer == producer) {
            lane.orphaned = true;
            if self.mix.slow_network > 0 {
                lane.not_before_ms = self.now_ms + self.rng.between(0, 4_000);
            }
            let keep = self.rng.below(lane.queue.len() + 1);
            lane.queue.truncate(keep);
        }
        self.lanes.retain(|lane| !lane.queue.is_empty());
    }

    /// When what is on its way late arrives; mostly soon, sometimes after all deadlines.
    fn some_time_later(&mut self) -> i64 {
        let most = if self.rng.per_mille(300) { 30_000 } else { 3_000 };
        self.now_ms + self.rng.between(0, most)
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.lanes.is_empty()
    }

    /// When the next record can arrive.
    pub(crate) fn next_arrival_ms(&self) -> Option<i64> {
        self.lanes.iter().map(|lane| lane.not_before_ms).min()
    }

    /// Some records arrive, of any producer.
    pub(crate) fn deliver(&mut self) {
        if self.lanes.is_empty() {
            return;
        }
        let now_ms = self.now_ms;
        let chosen = self.rng.below(self.lanes.len());
        let how_many = 1 + self.rng.below(8);
        let Some(lane) = self.lanes.get_mut(chosen).filter(|lane| lane.not_before_ms <= now_ms) else {
            return;
        };
        let arriving: Vec<Sent> = (0..how_many).map_while(|_| lane.queue.pop_front()).collect();
        let orphaned = lane.orphaned;
        let mut repeats = Vec::new();
        for sent in arriving {
            if orphaned {
                self.tell(|| "what a dead process had sent arrives late".to_owned());
            }
            let place = self.append(&sent.output);
            self.published.entry(content_of(&sent.output)).or_insert(place);
            sent.acknowledged.store(true, Ordering::Relaxed);
            if !orphaned && self.rng.per_mille(self.mix.duplicates) {
                repeats.push(sent.output);
            }
        }
        self.lanes.retain(|lane| !lane.queue.is_empty());
        for output in repeats {
            self.repeat(output);
        }
    }

    /// An owner that was stopped for long publishes again what it had published: any record of old.
    pub(crate) fn repeat_any(&mut self) {
        let topics = [
            Topic::StockCommands,
            Topic::PaymentCommands,
            Topic::OrderSaga,
            Topic::OrderEvents,
            Topic::StockLevels,
        ];
        let Some(topic) = self.rng.pick(&topics).copied() else { return };
        let partition = i32::try_from(self.rng.below(2)).unwrap_or(0);
        let records =
            self.logs.get(&(topic, partition)).map(|log| log.records.as_slice()).unwrap_or_default();
        let Some(record) = self.rng.pick(records).cloned() else { return };
        if !self.poison.contains(&(topic, partition, record.offset.0)) {
            self.repeat_record(topic, &record);
        }
    }

    /// See [`World::repeat_any`].
    pub(crate) fn repeat_record(&mut self, topic: Topic, record: &Record) {
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        let output = Output::raw(topic.name(), key, record.value.clone());
        let output =
            record.headers.iter().fold(output, |output, (name, value)| output.header(name, value.clone()));
        self.repeat(output);
    }

    /// An output is published a second time: at once, or much later, as by an owner that was stopped for a while.
    fn repeat(&mut self, output: Output) {
        if self.rng.per_mille(400) {
            self.tell(|| "and once more".to_owned());
            self.append(&output);
            return;
        }
        let (Some(topic), partition) = (Topic::by_name(output.topic()), output.key().map_or(0, partition_of))
        else {
            return;
        };
        let queue = VecDeque::from([Sent { output, acknowledged: Arc::new(AtomicBool::new(false)) }]);
        let producer = self.new_id();
        let not_before_ms = self.some_time_later();
        self.lanes.push(Lane { producer, topic, partition, queue, orphaned: true, not_before_ms });
    }
}

/// What makes an output the same as another one.
pub(crate) fn content_of(output: &Output) -> u64 {
    fingerprint(&[output.topic().as_bytes(), output.key().unwrap_or_default(), output.value()])
}

/// A record's value in a few words.
pub(crate) fn summary(value: &[u8]) -> String {
    #[derive(Default)]
    struct Seen(String);
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(value) else {
        return String::from_utf8_lossy(value).chars().take(40).collect();
    };
    let mut seen = Seen::default();
    let text =
        |name: &str| value.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    seen.0.push_str(&text("type"));
    let order = text("order_id");
    if !order.is_empty() {
        seen.0.push_str(" of order ");
        seen.0.push_str(&order.chars().take(8).collect::<String>());
    }
    if let Some(data) = value.get("data") {
        for name in [
            "line", "attempt", "version", "state", "reason", "sku", "units", "code", "command", "timer",
            "step",
        ] {
            match data.get(name) {
                Some(serde_json::Value::String(text)) => seen.0.push_str(&format!(", {name} {text}")),
                Some(serde_json::Value::Number(number)) => seen.0.push_str(&format!(", {name} {number}")),
                _ => {}
            }
        }
    }
    seen.0
}
