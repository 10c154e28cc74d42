//! The network in front of the broker: what is on its way arrives in order, late, twice, or not at all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use messaging::{Output, Record};
use schemas::Topic;

use crate::world::{World, content_of, partition_of};

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

impl World {
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
