//! The owner of one partition, as steps. Each step does one thing through [`Ports`] and leaves the owner in a state
//! from which a successor can go on: nothing here knows tokio, Kafka or PostgreSQL, so that a simulation can drive
//! the same steps over a virtual log, database and clock.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::time::Duration;

use domain_types::Timestamp;

use crate::pacing::{BackOff, Pace};
use crate::parking::{ParkCause, ParkedKeys, Parking, RecordedParkings};
use crate::{
    ErrorClass, Limits, NextOffset, Offset, Output, ParkingKey, Parsed, PositionError, Received, Record,
    rules,
};

mod control;
mod plan;

/// What an owner needs from outside.
pub trait Ports: Send {
    /// What a record says, once decoded.
    type Input: Send + Sync;

    /// Raises the epoch and reads, in a later statement with a snapshot of its own, what the predecessor left.
    fn take_over(&mut self) -> impl Future<Output = Result<TakenOver, Failure>> + Send;

    /// Makes the handler; the predecessor's outputs are published by now.
    fn begin(&mut self, epoch: i64) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Reads the log from `next` on.
    fn read_from(&mut self, next: NextOffset);

    /// Runs the handler, moves the position and keeps the outputs, all in one transaction.
    fn transact(
        &mut self,
        transaction: Transaction<'_, Self::Input>,
    ) -> impl Future<Output = Result<Vec<Output>, Failure>> + Send;

    /// Publishes and waits for every acknowledgement.
    fn publish(&mut self, outputs: &[Output]) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The parked records of these offsets, in order.
    fn parked(&mut self, offsets: &[Offset]) -> impl Future<Output = Result<Vec<Record>, Failure>> + Send;

    /// What a record says.
    fn parse(&self, record: &Record) -> Parsed<Self::Input>;

    /// When the handler wants to work next.
    fn next_work(&self) -> Option<Timestamp>;

    /// Whether the log has every offset. A compacted one has not; nor is anything of it parked: what can't be read
    /// becomes a dead letter, and the next record of its key supersedes it.
    fn is_contiguous(&self) -> bool;

    /// The consumer group.
    fn group(&self) -> &str;

    /// Something happened that operators count.
    fn observe(&self, event: Observed);
}

/// For metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// The partition was taken over.
    TakenOver,
    /// Another owner was found, or a commit's answer was lost.
    Fenced,
    /// A batch was committed.
    Batch {
        /// Records that the handler saw.
        records: usize,
    },
    /// Something failed and will be tried again.
    Retry,
    /// How many keys are parked.
    ParkedKeys(usize),
    /// Batches committed and not yet acknowledged.
    Unpublished(usize),
    /// The next record to read.
    Position(NextOffset),
    /// The log is read again from where records are missing.
    ReadAgain,
    /// A control record was skipped: it names another group, or nothing that is parked.
    ControlIgnored,
}

/// What a predecessor left.
#[derive(Debug)]
pub struct TakenOver {
    /// The epoch of this ownership.
    pub epoch: i64,
    /// Where to go on.
    pub next: NextOffset,
    /// Committed outputs that may not have been published.
    pub inherited: Vec<(OutboxRow, Vec<Output>)>,
    /// Parked records with their causes.
    pub parked: Vec<(ParkingKey, Offset, bool)>,
    /// Records from `next` on that dead letters name.
    pub recorded: RecordedParkings,
}

/// The key of an outbox row, in order of commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutboxRow {
    /// The ownership that committed it.
    pub epoch: i64,
    /// Its number within that.
    pub seq: i64,
}

/// One transaction of an owner.
#[derive(Debug)]
pub struct Transaction<'a, I> {
    /// The outbox row that the outputs go to, and the epoch that must still hold.
    pub row: OutboxRow,
    /// The position that must still hold.
    pub expected: NextOffset,
    /// The position afterwards.
    pub next: NextOffset,
    /// What the handler does.
    pub work: Work<'a, I>,
    /// Records that are set aside.
    pub park: &'a [Parking],
    /// Parked records that are settled.
    pub unpark: &'a [Offset],
    /// Outputs of the runtime itself.
    pub outputs: Vec<Output>,
    /// Outbox rows up to this one are published and can go.
    pub done: Option<OutboxRow>,
    /// The identity of the log, to be kept beside the position: its first record is in this transaction.
    pub log_id: Option<String>,
}

/// What the handler does in a transaction.
#[derive(Debug)]
pub enum Work<'a, I> {
    /// Apply records.
    Records(&'a [Received<I>]),
    /// All else that an owner does.
    Owner(Timestamp),
    /// Nothing.
    Nothing,
}

/// Why a step did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The partition has another owner, or the answer to a commit was lost: what is known here may be wrong.
    Fenced,
    /// Rolled back.
    RolledBack {
        /// What it asks for.
        class: ErrorClass,
        /// For people.
        detail: String,
    },
    /// Reading on would be wrong; the partition stops.
    Stop(PositionError),
}

/// What a step did.
#[derive(Debug)]
pub enum Stepped {
    /// Something; there may be more.
    Progress,
    /// Nothing to do until then, or until records arrive or the owner is woken.
    Idle(Option<Duration>),
    /// Something failed; step again after this time.
    BackOff(Duration),
    /// The partition can't go on.
    Stopped(PositionError),
}

/// The time, in both of its meanings.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// By the wall clock.
    pub wall: Timestamp,
    /// Since a fixed start, never going back.
    pub elapsed: Duration,
}

#[derive(Debug)]
struct Slot<I> {
    record: Record,
    parsed: Parsed<I>,
}

/// Ownership that holds, as far as is known.
#[derive(Debug)]
struct Owned {
    epoch: i64,
    next: NextOffset,
    next_seq: i64,
    begun: bool,
    parked: ParkedKeys,
    /// Parked keys to look at once: their first record may be known to this build.
    look_at: Vec<ParkingKey>,
    recorded: RecordedParkings,
    /// Committed and not acknowledged, in order.
    unpublished: VecDeque<(OutboxRow, Vec<Output>)>,
    /// Acknowledged, still in the table.
    done: Option<OutboxRow>,
}

/// The owner of one partition.
pub struct Owner<P: Ports> {
    /// What the owner works through.
    pub ports: P,
    limits: Limits,
    owned: Option<Owned>,
    queue: VecDeque<Slot<P::Input>>,
    /// Records that one transaction may hold just now: halved by a failure, doubled by a success.
    span: usize,
    /// Records that failed alone, and how: they are parked with the next transaction.
    culprits: BTreeMap<Offset, String>,
    pace: Pace,
    back_off: BackOff,
    woken: bool,
    last_was_batch: bool,
    last_transaction: Duration,
}

impl<P: Ports> Owner<P> {
    /// An owner that has yet to take its partition over.
    pub fn new(ports: P, limits: Limits) -> Self {
        let pace = Pace::new(limits.pace_burst, limits.pace_per_second, limits.rest);
        let back_off = BackOff::new(limits.back_off_min, limits.back_off_max);
        Self {
            ports,
            span: limits.batch_records,
            limits,
            owned: None,
            queue: VecDeque::new(),
            culprits: BTreeMap::new(),
            pace,
            back_off,
            woken: false,
            last_was_batch: false,
            last_transaction: Duration::ZERO,
        }
    }

    /// Whether records can be offered.
    pub fn is_reading(&self) -> bool {
        self.owned.as_ref().is_some_and(|owned| owned.begun)
    }

    /// Records that wait here.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Their bytes.
    pub fn queued_bytes(&self) -> usize {
        self.queue.iter().map(|slot| slot.record.size_bytes()).sum()
    }

    /// Whether there is as much here as one transaction takes.
    fn has_full_batch(&self) -> bool {
        self.queued() >= self.limits.batch_records || self.queued_bytes() >= self.limits.batch_bytes
    }

    /// Whether the log ends behind the last record that is here.
    pub fn is_behind(&self, end: i64) -> bool {
        self.queue.is_empty() && self.owned.as_ref().is_some_and(|owned| owned.begun && owned.next.0 < end)
    }

    /// Whether committed outputs wait to be published.
    pub fn has_unpublished(&self) -> bool {
        self.owned.as_ref().is_some_and(|owned| !owned.unpublished.is_empty())
    }

    /// The handler asked to work.
    pub fn wake(&mut self) {
        self.woken = true;
    }

    /// The log is not what it was: take over again, which checks it.
    pub fn retake(&mut self) {
        self.owned = None;
        self.queue.clear();
        self.culprits.clear();
    }

    /// Records in offset order. Those before the position are dropped; if there is a gap, what is missing is read again.
    pub fn offer(&mut self, records: impl IntoIterator<Item = Record>) {
        let Some(next) = self.owned.as_ref().filter(|owned| owned.begun).map(|owned| owned.next) else {
            return;
        };
        for record in records {
            let wanted = self.queue.back().map_or(next, |slot| slot.record.offset.next());
            if record.offset.0 > wanted.0 && self.ports.is_contiguous() {
                return self.read_again();
            }
            if record.offset.0 >= wanted.0 {
                let parsed = self.ports.parse(&record);
                self.queue.push_back(Slot { record, parsed });
            }
        }
    }

    /// Reads from the first record that is not here: records are missing, or none come although there are some.
    pub fn read_again(&mut self) {
        let Some(owned) = self.owned.as_ref().filter(|owned| owned.begun) else { return };
        let wanted = self.queue.back().map_or(owned.next, |slot| slot.record.offset.next());
        self.ports.observe(Observed::ReadAgain);
        self.ports.read_from(wanted);
    }

    /// Publishes what is committed. Part of [`Owner::step`], and all that a shutdown still does.
    pub async fn publish(&mut self) -> Stepped {
        let Some(owned) = self.owned.as_mut() else { return Stepped::Idle(None) };
        let Some((row, outputs)) = owned.unpublished.front() else { return Stepped::Idle(None) };
        match self.ports.publish(outputs).await {
            Ok(()) => {
                owned.done = Some(*row);
                owned.unpublished.pop_front();
                self.ports.observe(Observed::Unpublished(owned.unpublished.len()));
                self.back_off.succeed();
                Stepped::Progress
            }
            Err(failure) => self.failed(failure),
        }
    }

    /// Does the next thing there is to do.
    pub async fn step(&mut self, now: Now) -> Stepped {
        let Some(owned) = self.owned.as_ref() else { return self.take_over().await };
        if !owned.unpublished.is_empty() {
            return self.publish().await;
        }
        self.pace.ended(now.elapsed);
        if !owned.begun {
            return self.begin().await;
        }
        if !owned.look_at.is_empty() {
            return self.redrive_known().await;
        }
        let work_due = self.woken || self.ports.next_work().is_some_and(|due| due <= now.wall);
        if self.queue.is_empty() && !work_due {
            return self.idle(now).await;
        }
        let is_behind = self.limits.rest > 0 && self.has_full_batch();
        let wait = self.pace.wait(now.elapsed, is_behind);
        if !wait.is_zero() {
            return Stepped::Idle(Some(wait));
        }
        self.pace.spend(now.elapsed);
        self.last_transaction = now.elapsed;
        if work_due && (self.queue.is_empty() || self.last_was_batch) {
            self.last_was_batch = false;
            self.work(now.wall).await
        } else {
            self.last_was_batch = true;
            self.batch().await
        }
    }

    async fn take_over(&mut self) -> Stepped {
        match self.ports.take_over().await {
            Ok(taken) => {
                let mut parked = ParkedKeys::default();
                let mut look_at = Vec::new();
                for (key, offset, unknown) in taken.parked {
                    if unknown && !parked.contains(&key) {
                        look_at.push(key.clone());
                    }
                    parked.add(key, offset);
                }
                self.ports.observe(Observed::TakenOver);
                self.ports.observe(Observed::ParkedKeys(parked.len()));
                self.owned = Some(Owned {
                    epoch: taken.epoch,
                    next: taken.next,
                    next_seq: 0,
                    begun: false,
                    parked,
                    look_at,
                    recorded: taken.recorded,
                    unpublished: taken.inherited.into(),
                    done: None,
                });
                Stepped::Progress
            }
            Err(failure) => self.failed(failure),
        }
    }

    async fn begin(&mut self) -> Stepped {
        let Some(owned) = self.owned.as_mut() else { return Stepped::Progress };
        match self.ports.begin(owned.epoch).await {
            Ok(()) => {
                owned.begun = true;
                self.woken = true;
                self.queue.clear();
                self.ports.read_from(owned.next);
                self.back_off.succeed();
                Stepped::Progress
            }
            Err(failure) => self.failed(failure),
        }
    }

    async fn work(&mut self, wall: Timestamp) -> Stepped {
        self.woken = false;
        let Some(transaction) = self.transaction(Work::Owner(wall)) else { return Stepped::Progress };
        match self.ports.transact(transaction).await {
            Ok(outputs) => self.committed(outputs),
            Err(failure) => {
                self.woken = true;
                // There is no record to blame: what is in memory does not fit the database, as when another owner has been
                // here since. The same again would fail for ever, before it came to the fence.
                let is_final = matches!(
                    failure,
                    Failure::RolledBack { class: ErrorClass::Permanent | ErrorClass::Bug, .. }
                );
                let stepped = self.failed(failure);
                if is_final {
                    self.retake();
                }
                stepped
            }
        }
    }

    /// Deletes published outbox rows after some quiet, then says how long there is nothing to do.
    async fn idle(&mut self, now: Now) -> Stepped {
        let done = self.owned.as_ref().is_some_and(|owned| owned.done.is_some());
        let quiet = now.elapsed.saturating_sub(self.last_transaction);
        if done && quiet >= self.limits.outbox_quiet {
            self.last_transaction = now.elapsed;
            let Some(transaction) = self.transaction(Work::Nothing) else { return Stepped::Progress };
            return match self.ports.transact(transaction).await {
                Ok(outputs) => self.committed(outputs),
                Err(failure) => self.failed(failure),
            };
        }
        let clean_up = done.then(|| self.limits.outbox_quiet.saturating_sub(quiet));
        let work = self.ports.next_work().map(|due| due.since(now.wall));
        Stepped::Idle(match (clean_up, work) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        })
    }

    /// A transaction that leaves position and parked records as they are.
    fn transaction<'a>(&self, work: Work<'a, P::Input>) -> Option<Transaction<'a, P::Input>> {
        let owned = self.owned.as_ref()?;
        Some(Transaction {
            row: OutboxRow { epoch: owned.epoch, seq: owned.next_seq },
            expected: owned.next,
            next: owned.next,
            work,
            park: &[],
            unpark: &[],
            outputs: Vec::new(),
            done: owned.done,
            log_id: None,
        })
    }

    /// The identity of the log, if its first record comes next.
    fn log_id(&self) -> Option<String> {
        let first = self.queue.front().filter(|slot| slot.record.offset.0 == 0)?;
        self.ports.is_contiguous().then(|| rules::log_id(&first.record))
    }

    /// Takes note of a commit: `outputs` are published next.
    fn committed(&mut self, outputs: Vec<Output>) -> Stepped {
        self.back_off.succeed();
        if let Some(owned) = self.owned.as_mut() {
            owned.done = None;
            if !outputs.is_empty() {
                let row = OutboxRow { epoch: owned.epoch, seq: owned.next_seq };
                owned.next_seq += 1;
                owned.unpublished.push_back((row, outputs));
            }
        }
        Stepped::Progress
    }

    /// Takes note of a failure that no halving helps against.
    fn failed(&mut self, failure: Failure) -> Stepped {
        match failure {
            Failure::Fenced => {
                self.ports.observe(Observed::Fenced);
                self.retake();
                Stepped::BackOff(self.back_off.fail())
            }
            Failure::RolledBack { class, detail } => {
                self.ports.observe(Observed::Retry);
                tracing::warn!(?class, detail, "partition owner backs off");
                Stepped::BackOff(self.back_off.fail())
            }
            Failure::Stop(error) => Stepped::Stopped(error),
        }
    }

    fn park_cause(&self, slot: &Slot<P::Input>, parked: &ParkedKeys) -> Option<(ParkCause, String)> {
        let owned = self.owned.as_ref()?;
        if let Parsed::Unreadable { cause, detail } = &slot.parsed {
            return Some((*cause, detail.clone()));
        }
        if let Some(detail) = self.culprits.get(&slot.record.offset) {
            return Some((ParkCause::Failed, detail.clone()));
        }
        if self.ports.is_contiguous() && owned.recorded.contains_key(&slot.record.offset) {
            return Some((ParkCause::Recorded, "a dead letter says that it was parked before".to_owned()));
        }
        if owned.parked.is_empty() && parked.is_empty() {
            return None;
        }
        let key = slot.record.parking_key();
        (owned.parked.contains(&key) || parked.contains(&key))
            .then(|| (ParkCause::Behind, "a record before it with the same parking key is parked".to_owned()))
    }
}
