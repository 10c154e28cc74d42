//! What all processes share: time, the log, the network in front of it, chance, and the story of the schedule.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain_types::Timestamp;
use messaging::{Offset, Output, Record};
use schemas::{Envelope, OrderEvent, StockLevelMessage, Topic};

use crate::network::Lane;
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

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) mix: Mix,
    /// True time.
    pub(crate) now_ms: i64,
    /// How far the broker's clock is off.
    pub(crate) broker_off_ms: i64,
    pub(crate) logs: BTreeMap<(Topic, i32), Partition>,
    pub(crate) lanes: Vec<Lane>,
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
