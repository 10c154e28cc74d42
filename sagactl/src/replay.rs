//! `replay`: the log folded through this build, compared with what is stored. Nothing can be caused: there is no producer, and
//! the databases are read-only.
//!
//! Three things are compared for each order: its state, its history (every fact, with the input behind it), and its effects
//! (every message that its inputs lead to, byte for byte, with what the topics hold).

mod checkpoint;
mod compare;
mod fold;
mod progress;

pub(crate) use fold::{Chain, hash, unpublished};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use domain_types::{OrderId, Timestamp};
use messaging::{Cluster, LogReader, RecordedParkings};
use order_orchestrator::SagaReader;
use saga::{Decision, Saga};
use schemas::{OrderSagaMessage, OrderState, Topic};
use serde::{Deserialize, Serialize};

use self::checkpoint::{Checkpoint, Of};
use self::progress::{Progress, peak_memory};
use crate::cli::Replay;
use crate::failure::{Failure, Verdict};
use crate::log::recorded_parkings;
use crate::servers::Servers;
use crate::show;
use crate::terminal::{Terminal, Tone, plain};

/// The rules to fold with: a build's `saga::decide`.
pub type Rules = Arc<dyn Fn(Option<&Saga>, &OrderSagaMessage, Timestamp) -> Decision + Send + Sync>;

/// What a saga, what is expected of it and what is stored of it take in memory, as measured.
const BYTES_PER_ORDER: u64 = 2_500;

/// Which orders, and how.
#[derive(Debug, Clone)]
pub struct Selection {
    /// One order; `None`: all.
    pub order: Option<OrderId>,
    /// Only those placed since then.
    pub since: Option<Timestamp>,
    /// Only those stored in one of these states; empty: in any.
    pub states: Vec<OrderState>,
    /// The most drifts that are described; all are counted and named.
    pub describe: usize,
    /// Memory for sagas, bytes: with more orders than fit the log is read several times.
    pub memory: u64,
    /// Say on standard error how far it is.
    pub progress: bool,
}

/// How stored and replayed differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// Stored, but the log does not lead to it.
    NotInLog,
    /// The log leads to it, but it is not stored.
    NotStored,
    /// Another history.
    History,
    /// The same history leads to another state.
    State,
    /// Other messages than were published, or some that were not.
    Effects,
}

/// One order that this build would have treated otherwise, or that is not stored as it was decided.
#[derive(Debug, Clone, Serialize)]
pub struct Drift {
    /// The order.
    pub order_id: OrderId,
    /// What differs.
    pub kinds: BTreeSet<DriftKind>,
    /// The first input at which they part.
    pub at: Option<DriftAt>,
    /// What is stored.
    pub stored: String,
    /// What this build makes of it.
    pub replayed: String,
}

/// An input.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct DriftAt {
    /// Partition of `order-saga`.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The rule that decided: the input's message type.
    pub rule: String,
}

/// What a replay found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Replayed {
    /// Orders compared.
    pub orders: u64,
    /// Inputs folded.
    pub inputs: u64,
    /// Messages compared with the topics.
    pub effects: u64,
    /// How long it took.
    pub seconds: f64,
    /// `inputs / seconds`.
    pub inputs_per_second: f64,
    /// The process's largest memory so far, bytes.
    pub peak_memory_bytes: u64,
    /// How often the log was read.
    pub passes: u64,
    /// The position that each partition of `order-saga` was replayed up to.
    pub positions: BTreeMap<i32, i64>,
    /// Orders with drift.
    pub drifted: u64,
    /// How many, by kind.
    pub kinds: BTreeMap<DriftKind, u64>,
    /// Every order with drift.
    pub affected: BTreeSet<OrderId>,
    /// The first of them, described.
    pub drifts: Vec<Drift>,
}

/// Where to read.
pub(crate) struct Place {
    pub(crate) cluster: Cluster,
    /// From and to, by partition of `order-saga`.
    pub(crate) spans: BTreeMap<i32, (i64, i64)>,
    /// Nothing before it is of interest in other topics.
    pub(crate) since: Option<Timestamp>,
    pub(crate) recorded: HashMap<i32, RecordedParkings>,
}

/// Replays orders from the log of `cluster` and compares them with the snapshots.
///
/// # Errors
/// If Kafka or a database does not answer.
pub async fn replay(
    cluster: &Cluster,
    snapshots: Vec<SagaReader>,
    rules: Rules,
    selection: &Selection,
) -> Result<Replayed, Failure> {
    resuming(cluster, snapshots, rules, selection, None).await
}

/// The same; what is done is kept in `file`, and what it says is done already is not done again.
async fn resuming(
    cluster: &Cluster,
    mut snapshots: Vec<SagaReader>,
    rules: Rules,
    selection: &Selection,
    file: Option<&Path>,
) -> Result<Replayed, Failure> {
    let began = Instant::now();
    let mut replayed = Replayed::default();
    let mut spans = BTreeMap::new();
    let mut stored = 0;
    for snapshot in &mut snapshots {
        for position in snapshot.positions().await? {
            replayed.positions.insert(position.partition, position.next.0);
            spans.insert(position.partition, (0, position.next.0));
        }
        stored += snapshot.count().await?;
    }
    let place = place(cluster, spans, selection, &mut snapshots).await?;
    let passes = match selection.order {
        Some(_) => 1,
        None => (stored * BYTES_PER_ORDER).div_ceil(selection.memory.max(1)).max(1),
    };
    let total: i64 = place.spans.values().map(|(from, to)| to - from).sum();
    let total = u64::try_from(total).unwrap_or(0);
    let mut checkpoint = match file {
        Some(file) => {
            let of = Of::this(cluster, place.spans.keys().copied().collect(), selection).await?;
            Some(Checkpoint::open(file, of, passes)?)
        }
        None => None,
    };
    let passes = checkpoint.as_ref().map_or(passes, Checkpoint::shares);
    let done = checkpoint.as_ref().map_or(0, Checkpoint::done);
    let before = checkpoint.as_ref().map_or(0.0, Checkpoint::seconds);
    let progress = Progress::start(selection.progress, total * passes, total * done);
    let place = Arc::new(place);
    let restored = checkpoint.as_ref().map(|checkpoint| checkpoint.restore(&mut replayed));
    let mut kinds: BTreeMap<OrderId, BTreeSet<DriftKind>> = restored.unwrap_or_default();
    for pass in done..passes {
        let wanted = match selection.order {
            Some(order) => fold::Wanted::One(order),
            None => fold::Wanted::Share { pass, passes },
        };
        let folded = fold::all(&place, &wanted, &rules, &progress.inputs).await?;
        replayed.inputs += folded.inputs;
        replayed.effects += folded.effects;
        compare::with_stored(&mut snapshots, folded, &wanted, selection, &mut replayed.orders, &mut kinds)
            .await?;
        if let Some(checkpoint) = &mut checkpoint {
            checkpoint.share_done(&replayed, &kinds, before + began.elapsed().as_secs_f64())?;
        }
    }
    drop(progress);
    let described: Vec<OrderId> = kinds.keys().take(selection.describe).copied().collect();
    replayed.drifts = compare::describe(&mut snapshots, &place, &rules, &described, &kinds).await?;
    replayed.drifted = kinds.len() as u64;
    for kind in kinds.values().flatten() {
        *replayed.kinds.entry(*kind).or_default() += 1;
    }
    replayed.affected = kinds.into_keys().collect();
    replayed.passes = passes;
    replayed.seconds = before + began.elapsed().as_secs_f64();
    replayed.inputs_per_second = replayed.inputs as f64 / replayed.seconds.max(0.001);
    replayed.peak_memory_bytes = peak_memory();
    checkpoint.map(Checkpoint::remove).transpose()?;
    Ok(replayed)
}

/// Where the wanted orders are in the log.
async fn place(
    cluster: &Cluster,
    mut spans: BTreeMap<i32, (i64, i64)>,
    selection: &Selection,
    snapshots: &mut [SagaReader],
) -> Result<Place, Failure> {
    let mut since = selection.since;
    if let Some(order) = selection.order {
        let mut found = None;
        for snapshot in snapshots {
            if let Some(present) = snapshot.find(order).await? {
                let history = snapshot.history(present.partition, order).await?;
                let first = history.iter().map(|entry| entry.offset).min().unwrap_or(0);
                since = Some(present.saga.ordered_at);
                found = Some((present.partition, first));
            }
        }
        let (partition, first) =
            found.ok_or_else(|| Failure::found(format!("there is no saga of order {order}")))?;
        spans.retain(|other, _| *other == partition);
        for span in spans.values_mut() {
            span.0 = first;
        }
    }
    let cluster = cluster.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let reader = LogReader::new(&cluster)?;
        let topic = Topic::OrderSaga.name();
        for (partition, span) in &mut spans {
            let (low, high) = reader.bounds(topic, *partition)?;
            if low > 0 {
                return Err(Failure::found(format!(
                    "the beginning of {topic}/{partition} is gone: it starts at offset {low}. A replay needs the whole log; its \
                     retention must be -1"
                )));
            }
            if span.1 > high {
                return Err(Failure::found(format!(
                    "{topic}/{partition} ends at offset {high}, but the database has applied everything up to {}: the log was \
                     truncated, or this is another cluster",
                    span.1
                )));
            }
            if let Some(since) = since.filter(|_| span.0 == 0) {
                span.0 = reader.offset_at(topic, *partition, since)?.min(span.1);
            }
        }
        let recorded = recorded_parkings(&reader)?;
        Ok(Place { cluster, spans, since, recorded })
    });
    looked.await.map_err(|error| Failure::away(error.to_string()))?
}

pub(crate) async fn run(
    servers: &Servers,
    options: &Replay,
    terminal: &Terminal,
) -> Result<Verdict, Failure> {
    let selection = Selection {
        order: options.order,
        since: options.since,
        states: options.state.clone(),
        describe: options.limit,
        memory: options.memory.saturating_mul(1 << 20),
        progress: !terminal.json,
    };
    if let Some(order) = options.order {
        // Says what to do if there is none.
        show::find(servers, order).await?;
    }
    let cluster = servers.cluster()?;
    drop(servers.log()?);
    let snapshots = servers.sagas().await?;
    let resume = options.resume.as_deref();
    let replaying = resuming(&cluster, snapshots, Arc::new(saga::decide), &selection, resume);
    let replayed = match resume {
        Some(file) => tokio::select! {
            replayed = replaying => replayed?,
            _signal = tokio::signal::ctrl_c() => return Err(checkpoint::interrupted(file)),
        },
        None => replaying.await?,
    };
    if terminal.json {
        terminal.json(&replayed)?;
    } else {
        print(&replayed, terminal);
    }
    Ok(Verdict::found_if(replayed.drifted > 0))
}

fn print(replayed: &Replayed, terminal: &Terminal) {
    for drift in &replayed.drifts {
        let kinds: Vec<String> = drift.kinds.iter().map(crate::describe::word).collect();
        let head = format!("order {}: {}", drift.order_id, kinds.join(", "));
        terminal.line(terminal.toned(Tone::Bad, &head));
        if let Some(at) = &drift.at {
            terminal.line(format!("  at {} (order-saga/{}@{})", plain(&at.rule), at.partition, at.offset));
        }
        terminal.line(format!("  stored:     {}", plain(&drift.stored)));
        terminal.line(format!("  this build: {}", plain(&drift.replayed)));
    }
    if replayed.drifted > replayed.drifts.len() as u64 {
        let more = replayed.drifted - replayed.drifts.len() as u64;
        terminal.line(format!("and {more} more orders; --limit describes them, --json names them"));
    }
    for (kind, orders) in &replayed.kinds {
        terminal.line(format!("{}: {orders} orders", crate::describe::word(kind)));
    }
    let verdict = match replayed.drifted {
        0 => terminal.toned(Tone::Good, "no drift"),
        drifted => terminal.toned(Tone::Bad, &format!("{drifted} orders drift")),
    };
    terminal.line(format!(
        "{verdict}: {} orders, {} inputs and {} effects in {:.1} s ({:.0} inputs/s), peak memory {} MiB",
        replayed.orders,
        replayed.inputs,
        replayed.effects,
        replayed.seconds,
        replayed.inputs_per_second,
        replayed.peak_memory_bytes >> 20
    ));
}
