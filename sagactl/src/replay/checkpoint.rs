//! What an interrupted replay leaves behind, so that the next one goes on with what is missing.
//!
//! Orders are replayed in shares, each compared in a snapshot of its own; between two shares nothing is in memory but sums and
//! drifts. So a checkpoint is small however many orders there are, and holds no state that a rule has made: only which shares
//! are done and what was found in them. The databases may go on meanwhile: an order is compared as it is when its turn comes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use domain_types::{OrderId, Timestamp};
use messaging::{Cluster, LogReader};
use schemas::{OrderState, Topic};
use serde::{Deserialize, Serialize};

use super::{DriftKind, Replayed, Selection};
use crate::failure::Failure;

/// At least so many shares: an interruption costs at most the work of one. Each share reads the log from its beginning.
const SHARES: u64 = 8;
/// The file's own version.
const FORMAT: u32 = 1;

/// Which replay it is: shares of different ones do not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Of {
    build: Build,
    cluster_id: String,
    /// Who the log of each partition is, once it has a record.
    logs: BTreeMap<i32, Option<String>>,
    since: Option<Timestamp>,
    states: Vec<OrderState>,
}

/// This very program: two builds of a version may have different rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Build {
    version: String,
    sha256: String,
}

impl Build {
    fn this() -> io::Result<Self> {
        let mut program = File::open(std::env::current_exe()?)?;
        let (mut context, mut buffer) = (Context::new(&SHA256), vec![0; 1 << 20]);
        loop {
            let read = program.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            context.update(buffer.get(..read).unwrap_or_default());
        }
        let bytes = context.finish();
        let sha256 = bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { version: env!("CARGO_PKG_VERSION").to_owned(), sha256 })
    }

    fn short(&self) -> String {
        format!("{} {}", self.version, self.sha256.get(..12).unwrap_or_default())
    }
}

impl Of {
    /// A replay of these partitions by this program.
    pub(super) async fn this(
        cluster: &Cluster,
        partitions: Vec<i32>,
        selection: &Selection,
    ) -> Result<Self, Failure> {
        let (cluster, since, states) = (cluster.clone(), selection.since, selection.states.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let build = Build::this();
            let build =
                build.map_err(|error| Failure::usage(format!("sagactl can't read itself: {error}")))?;
            let reader = LogReader::new(&cluster)?;
            let topic = Topic::OrderSaga.name();
            let mut logs = BTreeMap::new();
            for partition in partitions {
                let (low, high) = reader.bounds(topic, partition)?;
                logs.insert(partition, reader.log_id(topic, partition, low, high)?);
            }
            Ok(Self { build, cluster_id: reader.cluster_id()?, logs, since, states })
        });
        looking.await.map_err(|error| Failure::away(error.to_string()))?
    }

    /// Why what was begun as `begun` can't go on as this one.
    fn refuses(&self, begun: &Self) -> Option<String> {
        if begun.build != self.build {
            return Some(format!(
                "another build began it ({}; this one is {}), and a report has to be of one. Go on with that build",
                begun.build.short(),
                self.build.short()
            ));
        }
        let other = begun.logs.iter().find(|(partition, log)| {
            // One that was empty then has added nothing.
            log.is_some() && self.logs.get(partition) != Some(log)
        });
        if begun.cluster_id != self.cluster_id || begun.logs.len() != self.logs.len() || other.is_some() {
            return Some(
                "it is of another log: the topic order-saga was made anew, or this is another cluster"
                    .to_owned(),
            );
        }
        ((&begun.since, &begun.states) != (&self.since, &self.states))
            .then(|| "it is of other orders. Give the same --state, and --since as the same time".to_owned())
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: u32,
    of: Of,
    shares: u64,
    done: u64,
    seconds: f64,
    orders: u64,
    inputs: u64,
    effects: u64,
    drifts: BTreeMap<OrderId, BTreeSet<DriftKind>>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Checkpoint {
    file: PathBuf,
    kept: Kept,
}

impl Checkpoint {
    /// What the file has of this replay; nothing is done yet if there is none.
    pub(super) fn open(file: &Path, of: Of, shares: u64) -> Result<Self, Failure> {
        let kept = match read(file)? {
            Some(kept) => {
                if let Some(why) = of.refuses(&kept.of) {
                    return Err(Failure::usage(format!(
                        "{} can't be resumed: {why}, or delete the file to begin anew",
                        file.display()
                    )));
                }
                Kept { of, ..kept }
            }
            None => Kept {
                format: FORMAT,
                of,
                shares: shares.max(SHARES),
                done: 0,
                seconds: 0.0,
                orders: 0,
                inputs: 0,
                effects: 0,
                drifts: BTreeMap::new(),
            },
        };
        let checkpoint = Self { file: file.to_owned(), kept };
        // Says at once if it can't be written, not after the first share.
        checkpoint.write()?;
        Ok(checkpoint)
    }

    pub(super) const fn shares(&self) -> u64 {
        self.kept.shares
    }

    pub(super) const fn done(&self) -> u64 {
        self.kept.done
    }

    pub(super) const fn seconds(&self) -> f64 {
        self.kept.seconds
    }

    /// Puts what was found before into the report; the drifts.
    pub(super) fn restore(&self, replayed: &mut Replayed) -> BTreeMap<OrderId, BTreeSet<DriftKind>> {
        (replayed.orders, replayed.inputs, replayed.effects) =
            (self.kept.orders, self.kept.inputs, self.kept.effects);
        self.kept.drifts.clone()
    }

    /// Keeps a share. Durable against a kill once this has returned.
    pub(super) fn share_done(
        &mut self,
        replayed: &Replayed,
        drifts: &BTreeMap<OrderId, BTreeSet<DriftKind>>,
        seconds: f64,
    ) -> Result<(), Failure> {
        let kept = &mut self.kept;
        kept.done += 1;
        (kept.orders, kept.inputs, kept.effects) = (replayed.orders, replayed.inputs, replayed.effects);
        (kept.drifts, kept.seconds) = (drifts.clone(), seconds);
        self.write()
    }

    /// In one step: whoever looks finds the old file or the new one.
    fn write(&self) -> Result<(), Failure> {
        let next = self.file.with_added_extension("next");
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("{} can't be written: {error}", self.file.display()))
        };
        let text = serde_json::to_vec_pretty(&self.kept).map_err(|error| wrong(&error))?;
        std::fs::write(&next, text).map_err(|error| wrong(&error))?;
        std::fs::rename(&next, &self.file).map_err(|error| wrong(&error))
    }

    /// The report is complete: nothing is left to resume.
    pub(super) fn remove(self) -> Result<(), Failure> {
        std::fs::remove_file(&self.file)
            .map_err(|error| Failure::usage(format!("{} can't be removed: {error}", self.file.display())))
    }
}

fn read(file: &Path) -> Result<Option<Kept>, Failure> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::usage(format!("{} can't be read: {error}", file.display()))),
    };
    let kept: Result<Kept, _> = serde_json::from_slice(&text);
    match kept {
        Ok(kept) if kept.format == FORMAT && kept.shares > 0 && kept.done <= kept.shares => Ok(Some(kept)),
        Ok(_) => Err(Failure::usage(format!("{} is no checkpoint that this build can read", file.display()))),
        Err(error) => {
            Err(Failure::usage(format!("{} is no checkpoint of a replay: {error}", file.display())))
        }
    }
}

/// What an operator who interrupts hears.
pub(super) fn interrupted(file: &Path) -> Failure {
    let place = file.display();
    match read(file) {
        Ok(Some(Kept { done, shares, .. })) => Failure::Interrupted(format!(
            "interrupted: {done} of {shares} shares are kept in {place}; the same command does the others"
        )),
        Ok(None) | Err(_) => Failure::Interrupted(format!("interrupted before anything was kept in {place}")),
    }
}
