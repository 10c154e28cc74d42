//! Parking: which records are set aside, and what is written about them. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemas::{ControlMessage, DecodeError, Envelope};

use crate::{Offset, Output, ParkingKey, Record};

/// Dead letter headers: where the original record is, who parked it, and why.
pub mod dead_letter {
    /// What all of them begin with.
    pub const PREFIX: &str = "dl-";
    /// Consumer group that parked the record.
    pub const GROUP: &str = "dl-group";
    /// Topic of the original record.
    pub const TOPIC: &str = "dl-topic";
    /// Partition of the original record.
    pub const PARTITION: &str = "dl-partition";
    /// Offset of the original record.
    pub const OFFSET: &str = "dl-offset";
    /// Log time of the original record, milliseconds since 1970.
    pub const TIME_MS: &str = "dl-time-ms";
    /// What it is parked together with.
    pub const PARKING_KEY: &str = "dl-parking-key";
    /// One word for why, see [`super::ParkCause`].
    pub const CAUSE: &str = "dl-cause";
    /// The error.
    pub const DETAIL: &str = "dl-detail";
    /// Set when the value was too large to be repeated here; the original record has it.
    pub const TRUNCATED: &str = "dl-truncated";
}

/// Why a record is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParkCause {
    /// Its value can't be read.
    Malformed,
    /// A message or version this build does not know; a later build may.
    Unknown,
    /// Handling it failed, as `Permanent` or `Bug`.
    Failed,
    /// A record before it with the same parking key is parked.
    Behind,
    /// A dead letter says that it was parked before.
    Recorded,
}

impl ParkCause {
    /// The word in the database and in dead letters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::Behind => "behind",
            Self::Recorded => "recorded",
        }
    }
}

/// What a record says to the runtime.
#[derive(Debug, Clone)]
pub enum Parsed<I> {
    /// For the handler.
    Input(I),
    /// For the runtime.
    Control(ControlMessage),
    /// For nobody: it will be parked.
    Unreadable {
        /// Why.
        cause: ParkCause,
        /// The error.
        detail: String,
    },
}

impl<I> Parsed<I> {
    pub(crate) fn unreadable(error: &DecodeError) -> Self {
        let cause = match error {
            DecodeError::Malformed { .. } => ParkCause::Malformed,
            DecodeError::Unknown { .. } | DecodeError::UnknownDefinition { .. } => ParkCause::Unknown,
        };
        let detail = match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        Self::Unreadable { cause, detail }
    }
}

/// Reads a control record.
pub(crate) fn parse_control<I>(record: &Record) -> Parsed<I> {
    match Envelope::<ControlMessage>::decode(&record.value) {
        Ok(envelope) => Parsed::Control(envelope.message),
        Err(error) => Parsed::unreadable(&error),
    }
}

/// A record that is set aside, and why.
#[derive(Debug, Clone)]
pub struct Parking {
    /// The record, as it was read.
    pub record: Record,
    /// What it is parked together with.
    pub key: ParkingKey,
    /// Why.
    pub cause: ParkCause,
    /// The error.
    pub detail: String,
}

impl Parking {
    /// The dead letter: the original record with headers that say where it was and why it is here. If that would not fit
    /// in `limit_bytes`, only those headers are left; the record stays in its own topic.
    pub(crate) fn dead_letter(&self, topic: &str, group: &str, limit_bytes: usize) -> Output {
        let record = &self.record;
        let mut detail = self.detail.clone();
        detail.truncate(detail.floor_char_boundary(2_000));
        let mut output = Output {
            topic: topic.to_owned().into(),
            key: record.key.clone(),
            headers: record.headers.clone(),
            value: record.value.clone(),
        }
        .header(dead_letter::GROUP, group)
        .header(dead_letter::TOPIC, record.topic.as_bytes())
        .header(dead_letter::PARTITION, record.partition.to_string())
        .header(dead_letter::OFFSET, record.offset.0.to_string())
        .header(dead_letter::TIME_MS, record.time.as_millis().to_string())
        .header(dead_letter::PARKING_KEY, self.key.0.as_bytes())
        .header(dead_letter::CAUSE, self.cause.as_str())
        .header(dead_letter::DETAIL, detail);
        if output.size_bytes() > limit_bytes {
            output.value.clear();
            // Its own headers and key may be what is too large.
            output.headers.drain(..record.headers.len());
            output.headers.retain(|(_, value)| value.len() <= 4_096);
            output.key = output.key.filter(|key| key.len() <= 4_096);
            output = output.header(dead_letter::TRUNCATED, "true");
        }
        output
    }
}

/// The parked records of a partition, by key, in offset order.
#[derive(Debug, Clone, Default)]
pub(crate) struct ParkedKeys {
    keys: BTreeMap<ParkingKey, BTreeSet<Offset>>,
    records: usize,
}

impl ParkedKeys {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// How many records they are.
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    pub(crate) fn contains(&self, key: &ParkingKey) -> bool {
        self.keys.contains_key(key)
    }

    pub(crate) fn add(&mut self, key: ParkingKey, offset: Offset) {
        self.records += usize::from(self.keys.entry(key).or_default().insert(offset));
    }

    pub(crate) fn remove(&mut self, key: &ParkingKey, offsets: &[Offset]) {
        if let Some(parked) = self.keys.get_mut(key) {
            let before = parked.len();
            parked.retain(|offset| !offsets.contains(offset));
            self.records -= before - parked.len();
            if parked.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    /// The named records that are still parked, if they are the first ones under their key: applying a later one
    /// before an earlier one would break the order.
    pub(crate) fn first_of(&self, key: &ParkingKey, named: &[i64]) -> Vec<Offset> {
        let Some(parked) = self.keys.get(key) else { return Vec::new() };
        parked.iter().copied().take_while(|offset| named.contains(&offset.0)).collect()
    }

    /// The named records that are still parked.
    pub(crate) fn any_of(&self, key: &ParkingKey, named: &[i64]) -> Vec<Offset> {
        let Some(parked) = self.keys.get(key) else { return Vec::new() };
        parked.iter().copied().filter(|offset| named.contains(&offset.0)).collect()
    }

    /// The first parked record of each key.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (&ParkingKey, Offset, Vec<i64>)> {
        self.keys.iter().filter_map(|(key, offsets)| {
            let first = offsets.first()?;
            Some((key, *first, offsets.iter().map(|offset| offset.0).collect()))
        })
    }
}

/// Records that dead letters name, of one partition: what was parked once is parked again, when a database was
/// restored from an older backup.
pub type RecordedParkings = BTreeMap<Offset, ParkingKey>;

/// Takes note of a dead letter, if it is one of `group` and `topic`.
pub fn record_parking(
    recorded: &mut HashMap<i32, RecordedParkings>,
    letter: &Record,
    group: &str,
    topic: &str,
) {
    let text = |name| letter.header(name).and_then(|value| std::str::from_utf8(value).ok());
    if text(dead_letter::GROUP) != Some(group) || text(dead_letter::TOPIC) != Some(topic) {
        return;
    }
    let partition = text(dead_letter::PARTITION).and_then(|text| text.parse().ok());
    let offset = text(dead_letter::OFFSET).and_then(|text| text.parse().ok());
    let key = text(dead_letter::PARKING_KEY);
    if let (Some(partition), Some(offset), Some(key)) = (partition, offset, key) {
        recorded.entry(partition).or_default().insert(Offset(offset), ParkingKey(key.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_always_fits() {
        let huge = vec![b'x'; 600_000];
        let parking = Parking {
            record: Record {
                topic: "t".into(),
                partition: 0,
                offset: Offset(7),
                time: domain_types::Timestamp::from_millis(0),
                key: Some(huge.clone()),
                headers: vec![("mine".into(), huge.clone())],
                value: huge.clone(),
            },
            key: ParkingKey(String::from_utf8(huge).unwrap()),
            cause: ParkCause::Malformed,
            detail: "broken".into(),
        };
        let letter = parking.dead_letter("dead", "group", 1_000_000);
        assert!(letter.size_bytes() < 10_000, "{}", letter.size_bytes());
        assert!(letter.headers.iter().any(|(name, value)| name == dead_letter::OFFSET && value == b"7"));
    }

    fn key(text: &str) -> ParkingKey {
        ParkingKey(text.to_owned())
    }

    #[test]
    fn a_later_record_is_not_redriven_before_an_earlier_one() {
        let mut parked = ParkedKeys::default();
        for offset in [3, 5, 9] {
            parked.add(key("a"), Offset(offset));
        }
        assert_eq!(parked.first_of(&key("a"), &[3, 5]), [Offset(3), Offset(5)]);
        assert_eq!(parked.first_of(&key("a"), &[5, 9]), []);
        assert_eq!(parked.first_of(&key("b"), &[3]), []);
        parked.remove(&key("a"), &[Offset(3), Offset(5)]);
        assert!(parked.contains(&key("a")), "9 is still parked");
        parked.remove(&key("a"), &[Offset(9)]);
        assert!(parked.is_empty());
        assert_eq!(parked.records(), 0);
    }
}
