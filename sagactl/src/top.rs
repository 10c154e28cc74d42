//! `top`: the whole system on one screen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use domain_types::{OrderId, Timestamp};
use messaging::{GroupPosition, LogReader, wall_clock};
use serde::Serialize;

use crate::cli::Top;
use crate::failure::{Failure, Verdict};
use crate::filter::{Clause, Filter};
use crate::list;
use crate::servers::{SERVICES, Servers};
use crate::terminal::{Terminal, Tone, plain, span};
use crate::view::waits;

#[derive(Debug, Serialize)]
struct Consumer {
    group: String,
    topic: String,
    partition: i32,
    position: i64,
    lag: i64,
    /// Records a second since the last sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_second: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Oldest {
    order_id: OrderId,
    state: &'static str,
    idle_ms: u64,
    waits_for: String,
}

#[derive(Debug, Serialize)]
struct Sample {
    at: Timestamp,
    /// Sagas that are not final, by state.
    states: BTreeMap<&'static str, u64>,
    needs_operator: u64,
    paused: u64,
    /// The one that has waited longest for an answer or an operator.
    oldest: Option<Oldest>,
    parked_records: usize,
    parked_keys: usize,
    consumers: Vec<Consumer>,
}

type Key = (String, String, i32);

pub(crate) async fn run(servers: &Servers, options: &Top, terminal: &Terminal) -> Result<Verdict, Failure> {
    let mut last: Option<(Instant, HashMap<Key, i64>)> = None;
    loop {
        let taken = Instant::now();
        let mut sample = sample(servers).await?;
        let positions: HashMap<Key, i64> = sample
            .consumers
            .iter()
            .map(|consumer| {
                ((consumer.group.clone(), consumer.topic.clone(), consumer.partition), consumer.position)
            })
            .collect();
        if let Some((then, before)) = &last {
            for consumer in &mut sample.consumers {
                let key = (consumer.group.clone(), consumer.topic.clone(), consumer.partition);
                let passed = then.elapsed().as_secs_f64().max(0.001);
                consumer.per_second = before.get(&key).map(|was| (consumer.position - was) as f64 / passed);
            }
        }
        last = Some((taken, positions));
        if terminal.json {
            terminal.json(&sample)?;
            return Ok(Verdict::Fine);
        }
        if !options.once {
            terminal.clear();
        }
        print(&sample, terminal);
        if options.once {
            return Ok(Verdict::Fine);
        }
        tokio::select! {
            () = tokio::time::sleep(options.every) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Verdict::Fine),
        }
    }
}

async fn sample(servers: &Servers) -> Result<Sample, Failure> {
    let at = wall_clock();
    let (mut states, mut needs_operator, mut paused) = (BTreeMap::new(), 0, 0);
    let mut oldest: Option<(Timestamp, Oldest)> = None;
    list::each(servers, &Filter(vec![Clause::NotFinal]), |present| {
        let saga = &present.saga;
        *states.entry(saga.state.as_str()).or_default() += 1;
        needs_operator += u64::from(saga.needs_operator());
        paused += u64::from(saga.paused);
        let is_older = oldest.as_ref().is_none_or(|(since, _)| saga.now < *since);
        if !saga.awaited().is_empty() && is_older {
            let waits_for = waits(saga)
                .first()
                .map(|waiting| list::short(waiting, |at| at.to_string()))
                .unwrap_or_default();
            let idle_ms = u64::try_from(at.since(saga.now).as_millis()).unwrap_or(u64::MAX);
            let (order_id, state) = (present.order_id, saga.state.as_str());
            oldest = Some((saga.now, Oldest { order_id, state, idle_ms, waits_for }));
        }
    })
    .await?;
    let mut positions = Vec::new();
    for service in SERVICES {
        positions.extend(servers.positions(service).await?);
    }
    let parked = servers.parked(None).await?;
    let parked_records = parked.len();
    let parked_keys: HashSet<_> = parked.into_iter().map(|(_, parked)| (parked.group, parked.key)).collect();
    let reader = servers.log()?;
    let consumers = tokio::task::spawn_blocking(move || consumers(&reader, positions)).await;
    let consumers = consumers.map_err(|error| Failure::away(error.to_string()))??;
    let (oldest, parked_keys) = (oldest.map(|(_, oldest)| oldest), parked_keys.len());
    Ok(Sample { at, states, needs_operator, paused, oldest, parked_records, parked_keys, consumers })
}

fn consumers(reader: &LogReader, positions: Vec<GroupPosition>) -> Result<Vec<Consumer>, Failure> {
    let mut ends: HashMap<(String, i32), i64> = HashMap::new();
    let mut consumers = Vec::new();
    for GroupPosition { group, topic, partition, next, .. } in positions {
        let end = match ends.get(&(topic.clone(), partition)) {
            Some(end) => *end,
            None => {
                let (_, end) = reader.bounds(&topic, partition)?;
                ends.insert((topic.clone(), partition), end);
                end
            }
        };
        let lag = (end - next.0).max(0);
        consumers.push(Consumer { group, topic, partition, position: next.0, lag, per_second: None });
    }
    Ok(consumers)
}

fn print(sample: &Sample, terminal: &Terminal) {
    let states: Vec<String> = sample.states.iter().map(|(state, sagas)| format!("{sagas} {state}")).collect();
    let states = if states.is_empty() { "no saga is under way".to_owned() } else { states.join(", ") };
    terminal.line(format!("{}  {states}", terminal.time(sample.at)));
    let tone = if sample.needs_operator + sample.parked_records as u64 > 0 { Tone::Bad } else { Tone::Good };
    let trouble = format!(
        "{} need an operator, {} paused, {} records parked under {} keys",
        sample.needs_operator, sample.paused, sample.parked_records, sample.parked_keys
    );
    terminal.line(terminal.toned(tone, &trouble));
    if let Some(oldest) = &sample.oldest {
        let idle = span(Duration::from_millis(oldest.idle_ms));
        terminal.line(format!(
            "longest waiting: {} {} for {idle}: {}",
            oldest.order_id,
            oldest.state,
            plain(&oldest.waits_for)
        ));
    }
    let row = |consumer: &Consumer| {
        let rate = consumer.per_second.map(|rate| format!("{rate:.0}/s")).unwrap_or_default();
        let place = format!("{}/{}", consumer.topic, consumer.partition);
        vec![consumer.group.clone(), place, consumer.position.to_string(), consumer.lag.to_string(), rate]
    };
    let rows: Vec<Vec<String>> = sample.consumers.iter().map(row).collect();
    terminal.table(&["GROUP", "TOPIC", "POSITION", "LAG", "RATE"], &rows);
}
