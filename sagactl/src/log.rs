//! `order-saga` as its owner applies it: in the order of the log, records that are parked set aside until they are redriven.

use std::collections::{BTreeMap, HashMap};

use messaging::{LogReader, Offset, ParkingKey, Record, RecordedParkings, record_parking};
use order_orchestrator::{CONSUMER_GROUP, SagaInput, decode};
use schemas::{ControlMessage, Envelope, Topic};

use crate::failure::Failure;

/// What dead letters say about `order-saga`, by partition.
pub(crate) fn recorded_parkings(reader: &LogReader) -> Result<HashMap<i32, RecordedParkings>, Failure> {
    let letters = Topic::DeadLetters.name();
    let mut recorded = HashMap::new();
    for partition in 0..reader.partitions(letters)? {
        let (low, high) = reader.bounds(letters, partition)?;
        reader.read(letters, partition, low, high, |letter| {
            record_parking(&mut recorded, &letter, CONSUMER_GROUP, Topic::OrderSaga.name());
        })?;
    }
    Ok(recorded)
}

/// Walks one partition.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    recorded: RecordedParkings,
    parked: HashMap<ParkingKey, BTreeMap<Offset, Record>>,
}

impl Walk {
    pub(crate) fn new(recorded: RecordedParkings) -> Self {
        Self { recorded, parked: HashMap::new() }
    }

    /// Takes the next record; hands out the inputs that are applied with it, in their order.
    pub(crate) fn next(&mut self, record: Record, mut apply: impl FnMut(&Record, &SagaInput)) {
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
        match decode(&record) {
            Ok(input) => apply(&record, &input),
            Err(_unreadable) => {
                self.parked.entry(key).or_default().insert(record.offset, record);
            }
        }
    }

    fn control(&mut self, message: &ControlMessage, mut apply: impl FnMut(&Record, &SagaInput)) {
        match message {
            ControlMessage::RedriveParked(redrive) if redrive.consumer_group == CONSUMER_GROUP => {
                self.redrive(&redrive.parking_key, &redrive.offsets, None, &mut apply);
            }
            ControlMessage::ReplaceParked(replace) if replace.consumer_group == CONSUMER_GROUP => {
                self.redrive(&replace.parking_key, &[replace.offset], Some(&replace.value), &mut apply);
            }
            ControlMessage::DiscardParked(discard) if discard.consumer_group == CONSUMER_GROUP => {
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
        apply: &mut impl FnMut(&Record, &SagaInput),
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
            let Ok(input) = decode(&record) else { break };
            apply(&record, &input);
            entry.remove();
        }
        self.forget_empty(&key);
    }

    fn forget_empty(&mut self, key: &ParkingKey) {
        if self.parked.get(key).is_some_and(BTreeMap::is_empty) {
            self.parked.remove(key);
        }
    }
}
