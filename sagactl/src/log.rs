//! A topic as its owner applies it: in the order of the log, records that are parked set aside until they are redriven.

use std::collections::{BTreeMap, HashMap};

use messaging::{LogReader, Offset, ParkingKey, Record, RecordedParkings, record_parking};
use order_orchestrator::SagaInput;
use schemas::{ControlMessage, Envelope, Topic};

use crate::failure::Failure;

/// What dead letters say about `order-saga`, by partition.
pub(crate) fn recorded_parkings(reader: &LogReader) -> Result<HashMap<i32, RecordedParkings>, Failure> {
    parkings_of(reader, order_orchestrator::CONSUMER_GROUP, Topic::OrderSaga)
}

/// What a group's dead letters say about a topic, by partition.
pub(crate) fn parkings_of(
    reader: &LogReader,
    group: &str,
    topic: Topic,
) -> Result<HashMap<i32, RecordedParkings>, Failure> {
    let letters = Topic::DeadLetters.name();
    let mut recorded = HashMap::new();
    for partition in 0..reader.partitions(letters)? {
        let (low, high) = reader.bounds(letters, partition)?;
        reader.read(letters, partition, low, high, |letter| {
            record_parking(&mut recorded, &letter, group, topic.name());
        })?;
    }
    Ok(recorded)
}

/// Walks one partition.
pub(crate) struct Walk<I> {
    group: String,
    decode: fn(&Record) -> Option<I>,
    recorded: RecordedParkings,
    parked: HashMap<ParkingKey, BTreeMap<Offset, Record>>,
}

impl Walk<SagaInput> {
    /// Of `order-saga`.
    pub(crate) fn of_sagas(recorded: RecordedParkings) -> Self {
        let decode = |record: &Record| order_orchestrator::decode(record).ok();
        Self::new(order_orchestrator::CONSUMER_GROUP, recorded, decode)
    }
}

impl<I> Walk<I> {
    pub(crate) fn new(group: &str, recorded: RecordedParkings, decode: fn(&Record) -> Option<I>) -> Self {
        Self { group: group.to_owned(), decode, recorded, parked: HashMap::new() }
    }

    /// What is set aside at the end.
    pub(crate) fn into_parked(self) -> impl Iterator<Item = (ParkingKey, Record)> {
        let keys = self.parked.into_iter();
        keys.flat_map(|(key, records)| records.into_values().map(move |record| (key.clone(), record)))
    }

    /// Takes the next record; hands out the inputs that are applied with it, in their order.
    pub(crate) fn next(&mut self, record: Record, mut apply: impl FnMut(Record, I)) {
        if record.is_control() {
            if let Ok(Envelope { message, .. }) = Envelope::<ControlMessage>::decode(&record.value) {
                self.control(&message, apply);
            }
            return;
        }
        if let Some(key) = self.recorded.get(&record.offset) {
            self.parked.entry(key.clone()).or_default().insert(record.offset, record);
            return;
        }
        let key = record.parking_key();
        if self.parked.contains_key(&key) {
            self.parked.entry(key).or_default().insert(record.offset, record);
            return;
        }
        match (self.decode)(&record) {
            Some(input) => apply(record, input),
            None => {
                self.parked.entry(key).or_default().insert(record.offset, record);
            }
        }
    }

    fn control(&mut self, message: &ControlMessage, mut apply: impl FnMut(Record, I)) {
        match message {
            ControlMessage::RedriveParked(redrive) if redrive.consumer_group == self.group => {
                self.redrive(&redrive.parking_key, &redrive.offsets, None, &mut apply);
            }
            ControlMessage::ReplaceParked(replace) if replace.consumer_group == self.group => {
                self.redrive(&replace.parking_key, &[replace.offset], Some(&replace.value), &mut apply);
            }
            ControlMessage::DiscardParked(discard) if discard.consumer_group == self.group => {
                let key = ParkingKey(discard.parking_key.clone());
                if let Some(parked) = self.parked.get_mut(&key) {
                    parked.retain(|offset, _| !discard.offsets.contains(&offset.0));
                }
                self.forget_empty(&key);
            }
            ControlMessage::RedriveParked(_)
            | ControlMessage::ReplaceParked(_)
            | ControlMessage::DiscardParked(_) => {}
        }
    }

    /// The first records of the key, as far as they are named and can be read.
    fn redrive(
        &mut self,
        key: &str,
        offsets: &[i64],
        replacement: Option<&str>,
        apply: &mut impl FnMut(Record, I),
    ) {
        let key = ParkingKey(key.to_owned());
        while let Some(entry) = self.parked.get_mut(&key).and_then(BTreeMap::first_entry) {
            if !offsets.contains(&entry.key().0) {
                break;
            }
            let record = match replacement {
                Some(value) => Record { value: value.as_bytes().to_vec(), ..entry.get().clone() },
                None => entry.get().clone(),
            };
            let Some(input) = (self.decode)(&record) else { break };
            entry.remove();
            apply(record, input);
        }
        self.forget_empty(&key);
    }

    fn forget_empty(&mut self, key: &ParkingKey) {
        if self.parked.get(key).is_some_and(BTreeMap::is_empty) {
            self.parked.remove(key);
        }
    }
}
