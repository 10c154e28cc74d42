//! The log, folded.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain_types::{OrderId, Timestamp};
use messaging::{LogReader, Output, Record};
use order_orchestrator::{SagaInput, output};
use saga::{Event, Saga, evolve};
use schemas::{Envelope, Message, OrderEvent, PaymentCommand, StockCommand, Topic};
use serde::Deserialize;
use uuid::Uuid;

use super::{Place, Rules};
use crate::failure::Failure;
use crate::log::Walk;

/// How long published messages may lag behind the positions before they count as missing.
const LAG: Duration = Duration::from_secs(5);
const OUTPUT_TOPICS: [Topic; 3] = [Topic::StockCommands, Topic::PaymentCommands, Topic::OrderEvents];

/// Which orders a pass looks at.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    One(OrderId),
    These(std::collections::BTreeSet<OrderId>),
    /// One of so many shares of all.
    Share {
        pass: u64,
        passes: u64,
    },
}

impl Wanted {
    pub(super) fn has(&self, order_id: OrderId) -> bool {
        match self {
            Self::One(wanted) => *wanted == order_id,
            Self::These(wanted) => wanted.contains(&order_id),
            Self::Share { passes: 1, .. } => true,
            Self::Share { pass, passes } => hash(&order_id) % passes == *pass,
        }
    }
}

/// A value as one number.
pub(crate) fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A history as one number: equal histories have equal ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    hash: u64,
    pub(crate) entries: u32,
}

impl Chain {
    pub(crate) fn push(&mut self, offset: i64, rule: &str, now: Timestamp, events: &[Event]) {
        let facts = serde_json::to_vec(events).unwrap_or_default();
        self.hash = hash(&(self.hash, offset, rule, now.as_millis(), facts));
        self.entries += 1;
    }
}

/// An order, as this build makes it of the log.
#[derive(Debug, Default)]
pub(super) struct Order {
    pub(super) saga: Option<Saga>,
    pub(super) chain: Chain,
}

/// A message that an input led to, until it is found.
#[derive(Debug, Clone, Copy)]
struct Expected {
    hash: u32,
    order_id: OrderId,
}

/// What came of a pass over the log.
#[derive(Debug, Default)]
pub(super) struct Folded {
    pub(super) orders: HashMap<OrderId, Order>,
    /// By the first half of the message's id.
    expected: HashMap<u64, Expected>,
    pub(super) inputs: u64,
    pub(super) effects: u64,
    /// Orders whose messages are others, or missing.
    pub(super) other_effects: Vec<OrderId>,
    /// Messages that are in no topic, by the first half of their ids.
    missing: HashMap<u64, OrderId>,
}

fn half(id: Uuid) -> u64 {
    (id.as_u128() >> 64) as u64
}

#[expect(clippy::cast_possible_truncation, reason = "a part of a hash")]
fn message_hash(topic: &str, key: Option<&[u8]>, value: &[u8]) -> u32 {
    hash(&(topic, key, value)) as u32
}

/// Whether a record may say something about a wanted order. One without an order's id as its key may hold back others.
fn is_wanted(record: &Record, wanted: &Wanted) -> bool {
    let id = record.key_str().and_then(|key| Uuid::try_parse(key).ok());
    id.is_none_or(|id| wanted.has(OrderId(id)))
}

/// Folds every partition, each on a thread of its own, then looks for what that should have published.
pub(super) async fn all(
    place: &Arc<Place>,
    wanted: &Wanted,
    rules: &Rules,
    progress: &Arc<AtomicU64>,
) -> Result<Folded, Failure> {
    let mut folding = Vec::new();
    for partition in place.spans.keys().copied() {
        let (place, wanted, rules) = (Arc::clone(place), wanted.clone(), Arc::clone(rules));
        let progress = Arc::clone(progress);
        folding.push(tokio::task::spawn_blocking(move || {
            let mut folded = Folded::default();
            each_input(&place, partition, &wanted, &progress, |record, input| {
                folded.apply(&rules, &record, &input);
            })?;
            Ok::<_, Failure>(folded)
        }));
    }
    let mut all = Folded::default();
    for part in folding {
        let part = part.await.map_err(|error| Failure::away(error.to_string()))??;
        all.inputs += part.inputs;
        all.orders.extend(part.orders);
        all.expected.extend(part.expected);
    }
    all.effects = all.expected.len() as u64;
    let place = Arc::clone(place);
    let found = tokio::task::spawn_blocking(move || all.find_effects(&place).map(|()| all));
    found.await.map_err(|error| Failure::away(error.to_string()))?
}

/// Hands out every applied input of the wanted orders of a partition.
pub(super) fn each_input(
    place: &Place,
    partition: i32,
    wanted: &Wanted,
    progress: &AtomicU64,
    mut each: impl FnMut(Record, SagaInput),
) -> Result<(), Failure> {
    let (from, to) = place.spans.get(&partition).copied().unwrap_or_default();
    let reader = LogReader::new(&place.cluster)?;
    let mut walk = Walk::of_sagas(place.recorded.get(&partition).cloned().unwrap_or_default());
    reader.read(Topic::OrderSaga.name(), partition, from, to, |record| {
        progress.fetch_add(1, Ordering::Relaxed);
        if is_wanted(&record, wanted) {
            walk.next(record, &mut each);
        }
    })?;
    Ok(())
}

/// What inputs led to and no topic holds, by partition of `order-saga`, in order.
pub(crate) async fn unpublished(place: &Arc<Place>) -> Result<HashMap<i32, Vec<Output>>, Failure> {
    let rules: Rules = Arc::new(saga::decide);
    let whole = Wanted::Share { pass: 0, passes: 1 };
    let missing = all(place, &whole, &rules, &Arc::new(AtomicU64::new(0))).await?.missing;
    let mut outputs: HashMap<i32, Vec<Output>> = HashMap::new();
    if missing.is_empty() {
        return Ok(outputs);
    }
    let these = Wanted::These(missing.values().copied().collect());
    let place = Arc::clone(place);
    let collecting = tokio::task::spawn_blocking(move || {
        let mut sagas: HashMap<OrderId, Option<Saga>> = HashMap::new();
        for partition in place.spans.keys().copied() {
            each_input(&place, partition, &these, &AtomicU64::new(0), |record, input| {
                let known = sagas.entry(input.order_id).or_default();
                let (after, decision) = saga::fold(known.take(), &input.message, record.time);
                *known = after;
                let effects = decision.into_advance().map(|advance| advance.effects).unwrap_or_default();
                for (index, effect) in (0u32..).zip(effects) {
                    let id = domain_types::MessageId::caused_by(input.message_id, index).uuid();
                    if missing.contains_key(&half(id)) {
                        outputs.entry(partition).or_default().push(output(&input, &record, index, effect));
                    }
                }
            })?;
        }
        Ok::<_, Failure>(outputs)
    });
    collecting.await.map_err(|error| Failure::away(error.to_string()))?
}

/// The part of an envelope that names the message.
#[derive(Deserialize)]
struct Named {
    message_id: Uuid,
}

impl Folded {
    fn apply(&mut self, rules: &Rules, record: &Record, input: &SagaInput) {
        self.inputs += 1;
        let order = self.orders.entry(input.order_id).or_default();
        let decision = rules(order.saga.as_ref(), &input.message, record.time);
        let Some(advance) = decision.into_advance() else { return };
        order.saga =
            advance.events.iter().fold(order.saga.take(), |saga, event| evolve(saga, advance.now, event));
        order.chain.push(record.offset.0, input.message.type_name(), advance.now, &advance.events);
        for (index, effect) in (0u32..).zip(advance.effects) {
            let id = domain_types::MessageId::caused_by(input.message_id, index).uuid();
            let output = output(input, record, index, effect);
            let hash = message_hash(output.topic(), output.key(), output.value());
            self.expected.insert(half(id), Expected { hash, order_id: input.order_id });
        }
    }

    /// Compares with what the topics hold; what is missing at first may be on its way.
    fn find_effects(&mut self, place: &Place) -> Result<(), Failure> {
        let reader = LogReader::new(&place.cluster)?;
        let mut from: HashMap<(&str, i32), i64> = HashMap::new();
        let deadline = Instant::now() + LAG;
        loop {
            for topic in OUTPUT_TOPICS.map(Topic::name) {
                for partition in 0..reader.partitions(topic)? {
                    let (low, high) = reader.bounds(topic, partition)?;
                    let begin = match (from.get(&(topic, partition)), place.since) {
                        (Some(offset), _) => *offset,
                        (None, Some(since)) => reader.offset_at(topic, partition, since)?,
                        (None, None) => low,
                    };
                    reader.read(topic, partition, begin, high, |record| self.found(&record))?;
                    from.insert((topic, partition), high.max(begin));
                }
            }
            if self.expected.is_empty() || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let missing = std::mem::take(&mut self.expected);
        self.missing = missing.into_iter().map(|(id, expected)| (id, expected.order_id)).collect();
        self.other_effects.extend(self.missing.values());
        Ok(())
    }

    fn found(&mut self, record: &Record) {
        let Ok(named) = serde_json::from_slice::<Named>(&record.value) else { return };
        // The first one counts: a repeat says the same.
        let Some(expected) = self.expected.remove(&half(named.message_id)) else { return };
        let key = record.key.as_deref();
        let is_same = |value: &[u8]| message_hash(&record.topic, key, value) == expected.hash;
        // Another build may have written the same message in other words.
        if !is_same(&record.value) && !rewritten(record).is_some_and(|value| is_same(&value)) {
            self.other_effects.push(expected.order_id);
        }
    }
}

/// A record's value as this build writes it.
fn rewritten(record: &Record) -> Option<Vec<u8>> {
    fn again<M: Message>(value: &[u8]) -> Option<Vec<u8>> {
        Envelope::<M>::decode(value).ok().map(|envelope| envelope.encode())
    }
    match Topic::by_name(&record.topic)? {
        Topic::StockCommands => again::<StockCommand>(&record.value),
        Topic::PaymentCommands => again::<PaymentCommand>(&record.value),
        Topic::OrderEvents => again::<OrderEvent>(&record.value),
        Topic::OrderSaga | Topic::StockEvents | Topic::StockLevels | Topic::DeadLetters => None,
    }
}
