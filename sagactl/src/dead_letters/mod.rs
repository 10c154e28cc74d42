//! `dead-letters`: records that a service could not apply, and all behind them with the same parking key.

mod corrections;
mod partitioner;
mod preview;
mod settle;

pub(crate) use partitioner::partition_of;

use std::collections::BTreeMap;

use domain_types::Timestamp;
use messaging::{ParkedRecord, ParkingKey, dead_letter, wall_clock};
use serde::Serialize;

use crate::cli::{DeadLetters, Parked};
use crate::failure::{Failure, Verdict};
use crate::servers::Servers;
use crate::terminal::{Terminal, Tone, plain, span};

/// Which parked records are meant.
#[derive(Debug, Clone, Default)]
struct Meant {
    key: Option<ParkingKey>,
    place: Option<(String, i32, i64)>,
    group: Option<String>,
    cause: Option<String>,
}

impl Meant {
    fn new(which: Option<&str>, group: Option<&String>, cause: Option<&String>) -> Self {
        let place = which.and_then(place);
        let key = which.filter(|_| place.is_none()).map(|key| ParkingKey(key.to_owned()));
        Self { key, place, group: group.cloned(), cause: cause.cloned() }
    }

    fn has(&self, parked: &ParkedRecord) -> bool {
        let record = &parked.record;
        let here = |(topic, partition, offset): &(String, i32, i64)| {
            (topic.as_str(), *partition, *offset) == (&*record.topic, record.partition, record.offset.0)
        };
        self.place.as_ref().is_none_or(here)
            && self.group.as_ref().is_none_or(|group| *group == parked.group)
            && self.cause.as_ref().is_none_or(|cause| *cause == parked.cause)
    }
}

/// `TOPIC/PARTITION@OFFSET`.
fn place(text: &str) -> Option<(String, i32, i64)> {
    let (topic, rest) = text.split_once('/')?;
    let (partition, offset) = rest.split_once('@')?;
    Some((topic.to_owned(), partition.parse().ok()?, offset.parse().ok()?))
}

fn place_of(parked: &ParkedRecord) -> String {
    format!("{}/{}@{}", parked.record.topic, parked.record.partition, parked.record.offset.0)
}

/// A parked record and whose database it is in.
struct Found {
    service: &'static str,
    parked: ParkedRecord,
}

async fn find(servers: &Servers, meant: &Meant) -> Result<Vec<Found>, Failure> {
    let parked = servers.parked(meant.key.as_ref()).await?.into_iter();
    let found = parked.filter(|(_, parked)| meant.has(parked));
    Ok(found.map(|(service, parked)| Found { service, parked }).collect())
}

/// The records of one parking key, in their order.
struct Key {
    service: &'static str,
    group: String,
    topic: String,
    partition: i32,
    key: ParkingKey,
    records: Vec<ParkedRecord>,
}

fn by_key(found: Vec<Found>) -> Vec<Key> {
    let mut keys: BTreeMap<(String, String, i32, ParkingKey), Key> = BTreeMap::new();
    for Found { service, parked } in found {
        let (topic, partition) = (parked.record.topic.to_string(), parked.record.partition);
        let id = (parked.group.clone(), topic.clone(), partition, parked.key.clone());
        let key = keys.entry(id).or_insert_with(|| Key {
            service,
            group: parked.group.clone(),
            topic,
            partition,
            key: parked.key.clone(),
            records: Vec::new(),
        });
        key.records.push(parked);
    }
    keys.into_values().collect()
}

pub(crate) async fn run(
    servers: &Servers,
    command: &DeadLetters,
    terminal: &Terminal,
) -> Result<Verdict, Failure> {
    match command {
        DeadLetters::List(options) => list(servers, options, terminal).await,
        DeadLetters::Show(options) => show(servers, options, terminal).await,
        DeadLetters::Preview(options) => preview::run(servers, options, terminal).await,
        DeadLetters::Redrive(options) => {
            let act = match (&options.value, &options.values) {
                (Some(file), _) => settle::Act::Replace(file.clone()),
                (None, Some(file)) => settle::Act::ReplaceMany(file.clone()),
                (None, None) => settle::Act::Redrive,
            };
            settle::run(servers, &act, &options.settle, terminal).await
        }
        DeadLetters::Discard(options) => settle::run(servers, &settle::Act::Discard, options, terminal).await,
    }
}

#[derive(Serialize)]
struct KeyView {
    key: String,
    group: String,
    topic: String,
    partition: i32,
    records: usize,
    first_offset: i64,
    cause: String,
    detail: String,
    since: Timestamp,
}

#[derive(Serialize)]
struct Listed {
    records: usize,
    keys: usize,
    parked: Vec<KeyView>,
}

async fn list(servers: &Servers, options: &Parked, terminal: &Terminal) -> Result<Verdict, Failure> {
    let meant = Meant::new(options.which.as_deref(), options.group.as_ref(), options.cause.as_ref());
    let keys = by_key(find(servers, &meant).await?);
    let records = keys.iter().map(|key| key.records.len()).sum();
    let views = keys.iter().take(options.limit).filter_map(|key| {
        let first = key.records.first()?;
        Some(KeyView {
            key: key.key.0.clone(),
            group: key.group.clone(),
            topic: key.topic.clone(),
            partition: key.partition,
            records: key.records.len(),
            first_offset: first.record.offset.0,
            cause: first.cause.clone(),
            detail: first.detail.clone(),
            since: first.parked_at,
        })
    });
    let listed = Listed { records, keys: keys.len(), parked: views.collect() };
    if terminal.json {
        terminal.json(&listed)?;
        return Ok(Verdict::Fine);
    }
    if listed.parked.is_empty() {
        terminal.line("nothing is parked");
        return Ok(Verdict::Fine);
    }
    let now = wall_clock();
    let row = |view: &KeyView| {
        let first = format!("{}/{}@{}", view.topic, view.partition, view.first_offset);
        let mut why = plain(&format!("{}: {}", view.cause, view.detail));
        why.truncate(why.floor_char_boundary(100));
        let since = span(now.since(view.since));
        vec![plain(&view.key), view.group.clone(), view.records.to_string(), plain(&first), since, why]
    };
    let rows: Vec<Vec<String>> = listed.parked.iter().map(row).collect();
    terminal.table(&["KEY", "GROUP", "RECORDS", "FIRST", "SINCE", "WHY"], &rows);
    terminal.line(format!("{records} records under {} keys", keys.len()));
    Ok(Verdict::Fine)
}

#[derive(Serialize)]
struct RecordView {
    group: String,
    topic: String,
    partition: i32,
    offset: i64,
    at: Timestamp,
    parking_key: String,
    cause: String,
    detail: String,
    parked_at: Timestamp,
    key: Option<String>,
    headers: BTreeMap<String, String>,
    /// As text; what is no UTF-8 is replaced.
    value: String,
}

impl RecordView {
    fn new(parked: &ParkedRecord) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let record = &parked.record;
        Self {
            group: parked.group.clone(),
            topic: record.topic.to_string(),
            partition: record.partition,
            offset: record.offset.0,
            at: record.time,
            parking_key: parked.key.0.clone(),
            cause: parked.cause.clone(),
            detail: parked.detail.clone(),
            parked_at: parked.parked_at,
            key: record.key.as_deref().map(text),
            headers: record.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            value: text(&record.value),
        }
    }
}

async fn show(servers: &Servers, options: &Parked, terminal: &Terminal) -> Result<Verdict, Failure> {
    let meant = Meant::new(options.which.as_deref(), options.group.as_ref(), options.cause.as_ref());
    let found = find(servers, &meant).await?;
    if found.is_empty() {
        return Err(Failure::found("no such record is parked (sagactl dead-letters list shows what is)"));
    }
    let views: Vec<RecordView> =
        found.iter().take(options.limit).map(|found| RecordView::new(&found.parked)).collect();
    if terminal.json {
        terminal.json(&views)?;
        return Ok(Verdict::Fine);
    }
    for view in &views {
        let head = format!("{}/{}@{}, parked by {}", view.topic, view.partition, view.offset, view.group);
        terminal.line(terminal.toned(Tone::Bold, &plain(&head)));
        terminal.line(format!("  why          {}: {}", plain(&view.cause), plain(&view.detail)));
        terminal.line(format!("  parking key  {}", plain(&view.parking_key)));
        terminal.line(format!(
            "  appended     {}, parked {}",
            terminal.time(view.at),
            terminal.time(view.parked_at)
        ));
        terminal
            .line(format!("  key          {}", view.key.as_deref().map_or_else(|| "none".to_owned(), plain)));
        for (name, value) in view.headers.iter().filter(|(name, _)| !name.starts_with(dead_letter::PREFIX)) {
            terminal.line(format!("  header       {}: {}", plain(name), plain(value)));
        }
        terminal.line(format!("  value        {}", plain(&view.value)));
    }
    if found.len() > views.len() {
        terminal.line(format!("{} of {}; --limit shows more", views.len(), found.len()));
    }
    Ok(Verdict::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_from_a_key() {
        assert_eq!(place("order-saga/1@4711"), Some(("order-saga".to_owned(), 1, 4711)));
        for key in ["0199f0a1-7c3e-7cc1-b7a6-1c0d5c0a9a11", "A/B", "A@1", "order-saga/x@1", ""] {
            assert_eq!(place(key), None, "{key}");
        }
    }
}
