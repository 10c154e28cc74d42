//! The owner's ports on the virtual log and database.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use domain_types::Timestamp;
use messaging::owner::{Failure, Observed, Ports, TakenOver, Transaction, Work};
use messaging::rules::{self, House, LogFacts};
use messaging::{
    ErrorClass, Handler, HandlerError, NextOffset, Offset, Output, ParkCause, ParkingKey, Parsed, Record,
    RecordedParkings, Waker,
};
use schemas::Topic;

use crate::database::{Database, Tx};
use crate::member::Control;
use crate::planted::{self, Planted};
use crate::world::{PARTITIONS, Shared, World, lock};

/// The only cluster there is.
const CLUSTER: &str = "virtual";
const LIMIT_BYTES: usize = 1_000_000;

/// A service: its handler, tables and topic.
pub(crate) trait Service: Send + Sized + 'static {
    /// Its tables.
    type Tables: Clone + Default + Send + 'static;
    /// Its real handler.
    type Handler: Handler<Tx<Self::Tables>>;
    /// What the owners of a process share.
    type Process: Clone + Send + Sync + 'static;

    const TOPIC: Topic;
    const GROUP: &'static str;

    /// What its processes follow beside their partitions.
    const TAIL: Option<Topic> = None;

    /// Makes a process.
    fn process(world: &Shared<World>) -> Self::Process;

    /// A process sees a record of [`Service::TAIL`].
    fn observe(_process: &Self::Process, _record: &Record) {}

    /// Makes the handler of a partition that was taken over.
    fn begin(
        process: &Self::Process,
        tx: &mut Tx<Self::Tables>,
        partition: i32,
        epoch: i64,
        waker: &Waker,
    ) -> impl Future<Output = Result<Self::Handler, HandlerError>> + Send;
}

pub(crate) struct VirtualPorts<S: Service> {
    pub(crate) world: Shared<World>,
    pub(crate) database: Shared<Database<S::Tables>>,
    pub(crate) process: S::Process,
    pub(crate) partition: i32,
    pub(crate) control: Arc<Control>,
    pub(crate) waker: Waker,
    pub(crate) producer: u64,
    pub(crate) recorded: Arc<Vec<RecordedParkings>>,
    /// This process's build reads the newest version of messages.
    pub(crate) is_new_build: bool,
    pub(crate) name: String,
    handler: Option<S::Handler>,
    cursor: AtomicI64,
}

fn rolled_back(error: &HandlerError) -> Failure {
    Failure::RolledBack { class: error.class(), detail: error.to_string() }
}

fn transient() -> Failure {
    Failure::RolledBack { class: ErrorClass::Transient, detail: "the database is away".to_owned() }
}

/// How a transaction that was sent off ends.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Answered,
    /// Committed, and the answer is lost.
    LostCommitted,
    /// Not committed, and nobody says so.
    LostRolledBack,
}

impl<S: Service> VirtualPorts<S> {
    #[expect(clippy::too_many_arguments, reason = "what a process is made of")]
    pub(crate) fn new(
        world: &Shared<World>,
        database: &Shared<Database<S::Tables>>,
        process: S::Process,
        partition: i32,
        control: &Arc<Control>,
        waker: &Waker,
        producer: u64,
        recorded: &Arc<Vec<RecordedParkings>>,
        is_new_build: bool,
        name: String,
    ) -> Self {
        Self {
            world: world.clone(),
            database: database.clone(),
            process,
            partition,
            control: Arc::clone(control),
            waker: waker.clone(),
            producer,
            recorded: Arc::clone(recorded),
            is_new_build,
            name,
            handler: None,
            cursor: AtomicI64::new(0),
        }
    }

    pub(crate) fn cursor(&self) -> i64 {
        self.cursor.load(Ordering::Relaxed)
    }

    /// What has arrived since; now and then a record does not.
    pub(crate) fn fetch(&self) -> Vec<Record> {
        let mut world = lock(&self.world);
        let missing = world.mix.record_missing;
        if world.rng.per_mille(missing) {
            world.tell(|| format!("{} misses a record", self.name));
            self.cursor.fetch_add(1, Ordering::Relaxed);
        }
        let how_many = 1 + world.rng.below(8);
        let cursor = self.cursor();
        let Some(log) = world.logs.get(&(S::TOPIC, self.partition)) else { return Vec::new() };
        let start = usize::try_from(cursor).unwrap_or(usize::MAX);
        let records: Vec<Record> = log.records.iter().skip(start).take(how_many).cloned().collect();
        self.cursor.fetch_add(i64::try_from(records.len()).unwrap_or(0), Ordering::Relaxed);
        records
    }

    fn is_unlucky(&self, chance: impl FnOnce(&World) -> u32, what: &str) -> bool {
        let mut world = lock(&self.world);
        let chance = chance(&world);
        let unlucky = world.rng.per_mille(chance);
        if unlucky {
            world.tell(|| format!("{}: {what}", self.name));
        }
        unlucky
    }

    fn planted(&self) -> Option<Planted> {
        lock(&self.world).planted
    }

    fn log_facts(&self) -> LogFacts {
        let world = lock(&self.world);
        let log = world.logs.get(&(S::TOPIC, self.partition));
        LogFacts {
            cluster_id: CLUSTER.to_owned(),
            log_id: log.and_then(crate::world::Partition::id),
            low: 0,
            high: log.map_or(0, crate::world::Partition::end),
        }
    }

    /// A record whose handling fails, if there is one among these.
    fn cursed(&self, work: &Work<'_, <S::Handler as Handler<Tx<S::Tables>>>::Input>) -> Option<HandlerError> {
        let Work::Records(batch) = work else { return None };
        let world = lock(&self.world);
        let cursed = batch
            .iter()
            .find(|received| world.cursed.contains(&(S::TOPIC, self.partition, received.record.offset.0)))?;
        Some(HandlerError::bug(format!("the record at offset {} is cursed", cursed.record.offset.0)))
    }

    /// Commits, or not. The position and the state are one transaction.
    fn commit(
        &self,
        tx: Tx<S::Tables>,
        transaction: &Transaction<'_, <S::Handler as Handler<Tx<S::Tables>>>::Input>,
        outputs: &[Output],
    ) -> Result<(), Failure> {
        let planted = self.planted();
        let wrong = {
            let mut database = lock(&self.database);
            if database.advance(self.partition, transaction, outputs, planted).is_err() {
                drop(database);
                return Err(Failure::Fenced);
            }
            let records: Vec<(Offset, ParkingKey)> = match transaction.work {
                Work::Records(batch) => batch
                    .iter()
                    .map(|received| (received.record.offset, received.record.parking_key()))
                    .collect(),
                Work::Owner(_) | Work::Nothing => Vec::new(),
            };
            database.note_applied(self.partition, &records, transaction.unpark)
        };
        tx.commit();
        let mut world = lock(&self.world);
        if let Some(wrong) = wrong {
            world.violate(format!("{}: {wrong}", S::GROUP));
        }
        for parking in transaction.park {
            let place = (S::TOPIC, self.partition, parking.record.offset.0);
            let expected = match parking.cause {
                ParkCause::Malformed => world.poison.contains(&place),
                ParkCause::Failed => world.once_cursed.contains(&place) || world.poison.contains(&place),
                ParkCause::Unknown | ParkCause::Behind | ParkCause::Recorded => true,
            };
            if !expected {
                let detail = &parking.detail;
                world.violate(format!("{}: a good record was parked at {place:?}: {detail}", S::GROUP));
            }
        }
        world.tell(|| {
            let what = match transaction.work {
                Work::Records(batch) => format!("{} records", batch.len()),
                Work::Owner(_) => "its own work".to_owned(),
                Work::Nothing => "no work".to_owned(),
            };
            let parked = transaction.park.len();
            format!(
                "{} commits {what} up to offset {}, {} outputs, {parked} parked (epoch {}, row {})",
                self.name,
                transaction.next.0,
                outputs.len(),
                transaction.row.epoch,
                transaction.row.seq
            )
        });
        Ok(())
    }
}

impl<S: Service> Ports for VirtualPorts<S> {
    type Input = <S::Handler as Handler<Tx<S::Tables>>>::Input;

    async fn take_over(&mut self) -> Result<TakenOver, Failure> {
        self.handler = None;
        self.control.point().await;
        if self.is_unlucky(|world| world.mix.transient, "take-over fails") {
            return Err(transient());
        }
        let position = lock(&self.database).raise_epoch(self.partition, CLUSTER);
        lock(&self.world).tell(|| {
            format!(
                "{} takes over with epoch {} at offset {}",
                self.name, position.epoch, position.stored.next.0
            )
        });
        self.control.point().await;
        let facts = self.log_facts();
        rules::check_position(S::TOPIC.name(), self.partition, &position.stored, &facts)
            .map_err(Failure::Stop)?;
        if let (None, Some(log_id)) = (&position.stored.log_id, &facts.log_id) {
            lock(&self.database).set_log_id(self.partition, log_id);
        }
        self.control.point().await;
        let recorded = self.recorded.get(usize::try_from(self.partition).unwrap_or(0)).cloned();
        let recorded = recorded.unwrap_or_default().split_off(&Offset(position.stored.next.0));
        let mut taken = lock(&self.database).taken_over(self.partition, &position, recorded);
        match self.planted() {
            Some(Planted::PredecessorsOutboxForgotten) => taken.inherited.clear(),
            Some(Planted::ParkedKeyForgotten) => taken.parked.clear(),
            Some(_) | None => {}
        }
        Ok(taken)
    }

    async fn begin(&mut self, epoch: i64) -> Result<(), Failure> {
        self.control.point().await;
        if self.is_unlucky(|world| world.mix.transient, "beginning fails") {
            return Err(transient());
        }
        let mut tx = Tx::new(&self.database, &self.world, &self.control);
        let begun = S::begin(&self.process, &mut tx, self.partition, epoch, &self.waker).await;
        self.handler = Some(begun.map_err(|error| rolled_back(&error))?);
        Ok(())
    }

    fn read_from(&mut self, next: NextOffset) {
        self.cursor.store(next.0, Ordering::Relaxed);
    }

    async fn transact(&mut self, transaction: Transaction<'_, Self::Input>) -> Result<Vec<Output>, Failure> {
        self.control.point().await;
        if self.is_unlucky(|world| world.mix.transient, "the transaction can't begin") {
            return Err(transient());
        }
        let mut tx = Tx::new(&self.database, &self.world, &self.control);
        let house =
            House { group: S::GROUP, dead_letters: Topic::DeadLetters.name(), output_bytes: LIMIT_BYTES };
        let planted = self.planted();
        let handler = self.handler.as_mut().ok_or(Failure::Fenced)?;
        let outputs = rules::outputs_of(handler, &mut tx, &transaction, house).await;
        let fate = {
            let mut world = lock(&self.world);
            let chance = world.mix.commit_lost;
            match (world.rng.per_mille(chance), world.rng.per_mille(500)) {
                (false, _) => Fate::Answered,
                (true, true) => Fate::LostCommitted,
                (true, false) => Fate::LostRolledBack,
            }
        };
        let mut outputs = match (outputs, self.cursed(&transaction.work)) {
            (Err(error), _) => Err(rolled_back(&error)),
            (Ok(_), Some(error)) => Err(rolled_back(&error)),
            (Ok(outputs), None) => Ok(outputs),
        };
        if let (Ok(outputs), Some(bug)) = (&mut outputs, planted) {
            planted::twist_outputs(bug, outputs);
        }
        let result = match (outputs, fate) {
            (Err(failure), _) => {
                drop(tx);
                Err(failure)
            }
            (Ok(outputs), Fate::LostRolledBack) => {
                lock(&self.world).tell(|| format!("{}: a commit is lost, and rolled back", self.name));
                drop(tx);
                if planted == Some(Planted::LostCommitTakenAsCommitted) {
                    Ok(outputs)
                } else {
                    Err(Failure::Fenced)
                }
            }
            (Ok(outputs), fate) => match self.commit(tx, &transaction, &outputs) {
                Err(failure) => Err(failure),
                Ok(()) if fate == Fate::LostCommitted => {
                    lock(&self.world).tell(|| format!("{}: the answer to a commit is lost", self.name));
                    if planted == Some(Planted::LostCommitTakenAsAborted) {
                        Err(transient())
                    } else {
                        Err(Failure::Fenced)
                    }
                }
                Ok(()) => Ok(outputs),
            },
        };
        if planted == Some(Planted::PositionOutsideTransaction) && result.is_ok() {
            planted::lose_position(&self.database, self.partition, &transaction, &self.world);
        }
        // Between the commit and its answer a process can die, or be stopped.
        self.control.point().await;
        if let Some(handler) = self.handler.as_mut() {
            match &result {
                Ok(_) => handler.committed(),
                Err(_) if planted == Some(Planted::CacheKeptAfterRollback) => handler.committed(),
                Err(_) => handler.rolled_back(),
            }
        }
        result
    }

    async fn publish(&mut self, outputs: &[Output]) -> Result<(), Failure> {
        self.control.point().await;
        let acknowledgements = lock(&self.world).send(self.producer, outputs);
        loop {
            self.control.point().await;
            if acknowledgements.iter().all(|acknowledged| acknowledged.load(Ordering::Relaxed)) {
                return Ok(());
            }
            if self.is_unlucky(|world| world.mix.publish_fails, "outputs are not acknowledged in time") {
                return Err(transient());
            }
        }
    }

    async fn parked(&mut self, offsets: &[Offset]) -> Result<Vec<Record>, Failure> {
        self.control.point().await;
        Ok(lock(&self.database).parked_records(self.partition, offsets))
    }

    fn parse(&self, record: &Record) -> Parsed<Self::Input> {
        if !self.is_new_build && planted::is_of_newer_version(record) {
            let detail = "version 2 is unknown to this build".to_owned();
            return Parsed::Unreadable { cause: ParkCause::Unknown, detail };
        }
        match self.planted().and_then(|bug| planted::twisted_input(bug, record, &self.world)) {
            Some(twisted) => rules::parse(self.handler.as_ref(), &twisted),
            None => rules::parse(self.handler.as_ref(), record),
        }
    }

    fn next_work(&self) -> Option<Timestamp> {
        self.handler.as_ref().and_then(Handler::next_work)
    }

    fn is_contiguous(&self) -> bool {
        true
    }

    fn group(&self) -> &str {
        S::GROUP
    }

    fn observe(&self, event: Observed) {
        let mut world = lock(&self.world);
        match event {
            Observed::Fenced => world.tell(|| format!("{} is fenced", self.name)),
            Observed::ReadAgain => world.tell(|| format!("{} reads again", self.name)),
            Observed::ControlIgnored => world.tell(|| format!("{} ignores a control record", self.name)),
            Observed::TakenOver
            | Observed::Batch { .. }
            | Observed::Retry
            | Observed::ParkedKeys(_)
            | Observed::Unpublished(_)
            | Observed::Position(_) => {}
        }
    }
}

/// What dead letters say was parked before by this group, per partition: read when a process starts.
pub(crate) fn recorded_parkings(world: &World, group: &str, topic: Topic) -> Arc<Vec<RecordedParkings>> {
    let mut recorded = std::collections::HashMap::new();
    for partition in 0..PARTITIONS {
        if let Some(log) = world.logs.get(&(Topic::DeadLetters, partition)) {
            for letter in &log.records {
                messaging::record_parking(&mut recorded, letter, group, topic.name());
            }
        }
    }
    Arc::new((0..PARTITIONS).map(|partition| recorded.remove(&partition).unwrap_or_default()).collect())
}
