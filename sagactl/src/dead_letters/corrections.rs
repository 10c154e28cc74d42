//! Values that take the place of a parked record's own, each checked as its owner checks it.

use std::collections::HashMap;
use std::path::Path;

use messaging::ParkedRecord;
use serde::Deserialize;
use serde_json::Value;

use super::settle::check_value;
use super::{Key, place_of};
use crate::failure::{Failure, in_full};

/// The most bytes of one corrected value.
const VALUE_BYTES: u64 = 512 * 1_024;
/// The most bytes of a file with many.
const FILE_BYTES: u64 = 256 << 20;

/// Corrected values by the place of the record, `TOPIC/PARTITION@OFFSET`.
pub(super) type Corrections = HashMap<String, String>;

/// A line of a file with many.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    record: String,
    /// The text of the value, or the value as JSON.
    value: Value,
}

fn wrong(file: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("{}: {why}", file.display()))
}

fn read(file: &Path, most_bytes: u64) -> Result<String, Failure> {
    let size = std::fs::metadata(file).map_err(|error| wrong(file, error))?.len();
    if size > most_bytes {
        return Err(wrong(file, format!("it has {size} bytes, {most_bytes} are allowed")));
    }
    std::fs::read_to_string(file).map_err(|error| wrong(file, error))
}

/// The file is the value of the one record that is meant.
pub(super) fn one(file: &Path, keys: &[Key]) -> Result<Corrections, Failure> {
    let first = match keys {
        [key] => key.records.first(),
        _ => None,
    };
    let Some(parked) = first else {
        return Err(Failure::usage("a corrected value is for one record: name it as TOPIC/PARTITION@OFFSET"));
    };
    let value = read(file, VALUE_BYTES)?;
    check(parked, &value).map_err(|why| wrong(file, why))?;
    Ok(Corrections::from([(place_of(parked), value)]))
}

/// Each line of the file is a record's place and its value.
pub(super) fn many(file: &Path, keys: &[Key]) -> Result<Corrections, Failure> {
    let records = keys.iter().flat_map(|key| &key.records);
    let meant: HashMap<String, &ParkedRecord> = records.map(|parked| (place_of(parked), parked)).collect();
    let mut corrections = Corrections::new();
    for (number, line) in (1_u32..).zip(read(file, FILE_BYTES)?.lines()) {
        let wrong = |why: String| wrong(file, format!("line {number}: {why}"));
        if line.trim().is_empty() {
            continue;
        }
        let Line { record, value } = serde_json::from_str(line).map_err(|error| {
            wrong(format!("{error}; a line is {{\"record\": \"TOPIC/PARTITION@OFFSET\", \"value\": ..}}"))
        })?;
        let value = match value {
            Value::String(text) => text,
            json => json.to_string(),
        };
        let Some(parked) = meant.get(&record) else {
            return Err(wrong(format!("{record} is not parked, or not among the records that are meant")));
        };
        if value.len() as u64 > VALUE_BYTES {
            return Err(wrong(format!("it has {} bytes, {VALUE_BYTES} are allowed", value.len())));
        }
        check(parked, &value).map_err(wrong)?;
        if corrections.insert(record.clone(), value).is_some() {
            return Err(wrong(format!("{record} was corrected by an earlier line")));
        }
    }
    if corrections.is_empty() {
        return Err(wrong(file, "it corrects nothing"));
    }
    Ok(corrections)
}

/// The same checks as its owner's.
fn check(parked: &ParkedRecord, value: &str) -> Result<(), String> {
    let record = messaging::Record { value: value.as_bytes().to_vec(), ..parked.record.clone() };
    let checked = match parked.group.as_str() {
        order_orchestrator::CONSUMER_GROUP => order_orchestrator::decode(&record).map(drop),
        stock_worker::CONSUMER_GROUP => stock_worker::decode(&record).map(drop),
        payment_worker::CONSUMER_GROUP => payment_worker::decode(&record).map(drop),
        _ => return check_value(&record.topic, &record.value).map(drop),
    };
    checked.map_err(|error| format!("it is no message of {}: {}", record.topic, in_full(&error)))
}
