//! `dead-letters redrive` and `discard`: control records on the topic and partition of the records they are about, applied by
//! the owner in its turn.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use domain_types::MessageId;
use messaging::{Output, ParkedRecord, wall_clock};
use schemas::{
    ControlMessage, DiscardParked, Envelope, Message, OrderEvent, OrderSagaMessage, PaymentCommand,
    RedriveParked, ReplaceParked, StockCommand, StockEvent, Topic,
};
use serde::Serialize;
use uuid::Uuid;

use super::corrections::{self, Corrections};
use super::partitioner::key_for;
use super::{Found, Key, Meant, by_key, find, place_of};
use crate::cli::Settle;
use crate::failure::{Failure, Verdict, in_full};
use crate::servers::Servers;
use crate::steer::operator;
use crate::terminal::{Terminal, Tone, plain};

/// How long an owner may take without settling anything more.
const ANSWER: Duration = Duration::from_secs(10);
/// Offsets that one control record names: it has to fit in one.
const OFFSETS_PER_RECORD: usize = 10_000;

/// What is to be done with parked records.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Redrive,
    /// Apply the value in this file instead.
    Replace(PathBuf),
    /// Apply the values of this file's lines instead, and what is between them as it is.
    ReplaceMany(PathBuf),
    Discard,
}

#[derive(Serialize)]
struct Settled {
    dry_run: bool,
    keys: usize,
    outcomes: BTreeMap<&'static str, usize>,
    /// The records that stay parked, or would be meant.
    records: Vec<String>,
}

/// Reads a value with this build's schema of the topic; the type of its message.
pub(super) fn check_value(topic: &str, value: &[u8]) -> Result<String, String> {
    fn decode<M: Message>(value: &[u8]) -> Result<String, String> {
        let decoded = Envelope::<M>::decode(value).map_err(|error| in_full(&error));
        decoded.map(|envelope| envelope.message.type_name().to_owned())
    }
    match Topic::by_name(topic) {
        Some(Topic::OrderSaga) => decode::<OrderSagaMessage>(value),
        Some(Topic::StockCommands) => decode::<StockCommand>(value),
        Some(Topic::PaymentCommands) => decode::<PaymentCommand>(value),
        Some(Topic::OrderEvents) => decode::<OrderEvent>(value),
        Some(Topic::StockEvents) => decode::<StockEvent>(value),
        Some(Topic::StockLevels | Topic::DeadLetters) | None => Err(format!("{topic} has no parked records")),
    }
}

pub(super) async fn run(
    servers: &Servers,
    act: &Act,
    options: &Settle,
    terminal: &Terminal,
) -> Result<Verdict, Failure> {
    let operator = operator(options.write.operator.as_ref())?;
    let meant = Meant::new(options.which.as_deref(), options.group.as_ref(), None);
    let mut keys = by_key(find(servers, &meant).await?);
    if let Some(cause) = &options.cause {
        keys.retain(|key| key.records.first().is_some_and(|first| first.cause == *cause));
    }
    let records: Vec<String> = keys.iter().flat_map(|key| &key.records).map(place_of).collect();
    if records.is_empty() {
        return Err(Failure::found("no such record is parked (sagactl dead-letters list shows what is)"));
    }
    let corrections = match act {
        Act::Replace(file) => corrections::one(file, &keys)?,
        Act::ReplaceMany(file) => corrections::many(file, &keys)?,
        Act::Redrive | Act::Discard => Corrections::new(),
    };
    if options.write.dry_run {
        let outcomes = BTreeMap::from([("would_be_sent", records.len())]);
        return say(&Settled { dry_run: true, keys: keys.len(), outcomes, records }, terminal);
    }
    if !options.write.yes {
        let what = if matches!(act, Act::Discard) { "Discard" } else { "Redrive" };
        let question = format!("{what} {} records under {} keys?", records.len(), keys.len());
        if !Terminal::can_ask() {
            return Err(Failure::usage(format!("{question} say --yes, or look first with --dry-run")));
        }
        if !Terminal::ask(&question) {
            return Err(Failure::found("nothing was sent"));
        }
    }
    let who = Who { operator: &operator, reason: &options.write.reason };
    let ends = publish(servers, act, &keys, &corrections, &who, options.rate).await?;
    wait(servers, &meant, &keys, &ends, matches!(act, Act::Discard), terminal).await
}

struct Who<'a> {
    operator: &'a str,
    reason: &'a str,
}

/// Sends the control records; returns where each partition ended afterwards.
async fn publish(
    servers: &Servers,
    act: &Act,
    keys: &[Key],
    corrections: &Corrections,
    who: &Who<'_>,
    rate: u32,
) -> Result<HashMap<(String, i32), i64>, Failure> {
    let publisher = servers.publisher().await?;
    let reader = servers.log()?;
    let mut partitions: HashMap<String, i32> = HashMap::new();
    for key in keys {
        if !partitions.contains_key(&key.topic) {
            partitions.insert(key.topic.clone(), reader.partitions(&key.topic)?);
        }
    }
    let began = Instant::now();
    let mut sent = 0_u32;
    for key in keys {
        let count = partitions.get(&key.topic).copied().unwrap_or(1);
        for (records, value) in steps(&key.records, corrections) {
            let output = control(act, key, records, value, who, count);
            publisher.publish(&[output]).await.map_err(|error| {
                Failure::away(format!("{error}; what was sent before is in the log and will be applied"))
            })?;
            sent = sent.saturating_add(u32::try_from(records.len()).unwrap_or(u32::MAX));
            let due = Duration::from_secs_f64(f64::from(sent) / f64::from(rate));
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
    }
    let mut ends = HashMap::new();
    for key in keys {
        let (_, end) = reader.bounds(&key.topic, key.partition)?;
        ends.insert((key.topic.clone(), key.partition), end);
    }
    Ok(ends)
}

/// The records in their order, each corrected one alone with its value, the others together.
fn steps<'a>(
    records: &'a [ParkedRecord],
    corrections: &'a Corrections,
) -> Vec<(&'a [ParkedRecord], Option<&'a str>)> {
    let value = |parked: &ParkedRecord| corrections.get(&place_of(parked)).map(String::as_str);
    let runs = records.chunk_by(|one, next| value(one).is_none() && value(next).is_none());
    let bounded = runs.flat_map(|run| run.chunks(OFFSETS_PER_RECORD));
    bounded.map(|run| (run, run.first().and_then(value))).collect()
}

fn control(
    act: &Act,
    key: &Key,
    records: &[ParkedRecord],
    value: Option<&str>,
    who: &Who<'_>,
    partitions: i32,
) -> Output {
    let (consumer_group, parking_key) = (key.group.clone(), key.key.0.clone());
    let offsets: Vec<i64> = records.iter().map(|parked| parked.record.offset.0).collect();
    let (operator, reason) = (who.operator.to_owned(), who.reason.to_owned());
    let message: ControlMessage = match (act, value) {
        (Act::Discard, _) => DiscardParked { consumer_group, parking_key, offsets, operator, reason }.into(),
        (Act::Replace(_) | Act::ReplaceMany(_), Some(value)) => {
            let (offset, value) = (offsets.first().copied().unwrap_or(0), value.to_owned());
            ReplaceParked { consumer_group, parking_key, offset, value, operator, reason }.into()
        }
        (Act::Redrive | Act::Replace(_) | Act::ReplaceMany(_), _) => {
            RedriveParked { consumer_group, parking_key, offsets, operator, reason }.into()
        }
    };
    let kind = message.type_name();
    let envelope = Envelope {
        message_id: MessageId(Uuid::new_v4()),
        order_id: None,
        causation_id: None,
        occurred_at: wall_clock(),
        message,
    };
    let own = records.first().and_then(|parked| parked.record.key.as_deref());
    let record_key = key_for(own, key.partition, partitions);
    Output::raw(key.topic.clone(), "", envelope.encode())
        .with_key(record_key)
        .control(kind)
        .parking_key(&key.key)
}

/// Waits until each owner has come past the control records; what is parked then stays parked.
async fn wait(
    servers: &Servers,
    meant: &Meant,
    keys: &[Key],
    ends: &HashMap<(String, i32), i64>,
    discarded: bool,
    terminal: &Terminal,
) -> Result<Verdict, Failure> {
    let total: usize = keys.iter().map(|key| key.records.len()).sum();
    let wanted: Vec<String> = keys.iter().flat_map(|key| &key.records).map(place_of).collect();
    let wanted: std::collections::HashSet<String> = wanted.into_iter().collect();
    let mut left = total;
    let mut deadline = Instant::now() + ANSWER;
    let (parked, behind) = loop {
        let behind = behind(servers, keys, ends).await?;
        let parked: Vec<Found> = find(servers, meant).await?;
        let parked: Vec<String> = parked
            .iter()
            .map(|found| place_of(&found.parked))
            .filter(|place| wanted.contains(place))
            .collect();
        if behind.is_none() || Instant::now() > deadline {
            break (parked, behind);
        }
        if parked.len() < left {
            left = parked.len();
            deadline = Instant::now() + ANSWER;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let done = if discarded { "discarded" } else { "redriven" };
    let undone = if behind.is_some() { "unanswered" } else { "still_parked" };
    let mut outcomes = BTreeMap::from([(done, total - parked.len())]);
    if !parked.is_empty() {
        outcomes.insert(undone, parked.len());
    }
    let verdict = say(&Settled { dry_run: false, keys: keys.len(), outcomes, records: parked }, terminal)?;
    match behind {
        Some(who) => Err(Failure::away(format!(
            "{who} has not come to it within {} s: the control records are in the log, and are applied once it does",
            ANSWER.as_secs()
        ))),
        None => Ok(verdict),
    }
}

/// A group that has not come past its control records.
async fn behind(
    servers: &Servers,
    keys: &[Key],
    ends: &HashMap<(String, i32), i64>,
) -> Result<Option<String>, Failure> {
    let mut services: Vec<&'static str> = keys.iter().map(|key| key.service).collect();
    services.sort_unstable();
    services.dedup();
    let mut positions = Vec::new();
    for service in services {
        positions.extend(servers.positions(service).await?);
    }
    let is_past = |key: &Key| {
        let end = ends.get(&(key.topic.clone(), key.partition)).copied().unwrap_or(0);
        let position = positions.iter().find(|position| {
            (&position.group, &position.topic, position.partition) == (&key.group, &key.topic, key.partition)
        });
        position.is_some_and(|position| position.next.0 >= end)
    };
    Ok(keys
        .iter()
        .find(|key| !is_past(key))
        .map(|key| format!("{} on {}/{}", key.group, key.topic, key.partition)))
}

fn say(settled: &Settled, terminal: &Terminal) -> Result<Verdict, Failure> {
    if terminal.json {
        terminal.json(settled)?;
    } else {
        for record in settled.records.iter().take(20) {
            terminal.line(format!("  {}", plain(record)));
        }
        if settled.records.len() > 20 {
            terminal.line(format!("  and {} more", settled.records.len() - 20));
        }
        let sums: Vec<String> =
            settled.outcomes.iter().map(|(outcome, n)| format!("{n} {outcome}")).collect();
        let text = format!("{} under {} keys", sums.join(", "), settled.keys);
        terminal.line(terminal.toned(Tone::Bold, &text));
        if settled.dry_run {
            terminal.line("dry run: nothing was sent");
        }
    }
    Ok(Verdict::found_if(settled.outcomes.contains_key("still_parked")))
}
