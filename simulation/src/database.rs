//! A database: a service's tables and the runtime's own, as PostgreSQL would keep them. A transaction's writes are made at
//! once, with no other code in between, and taken back should it roll back.

use std::collections::{BTreeMap, BTreeSet};

use messaging::owner::{OutboxRow, TakenOver, Transaction};
use messaging::rules::StoredPosition;
use messaging::{NextOffset, Offset, Output, ParkCause, Parking, ParkingKey, Record, RecordedParkings};

use crate::member::Control;
use crate::planted::Planted;
use crate::world::{Shared, World, content_of, fingerprint, lock};

#[derive(Debug, Clone)]
pub(crate) struct Position {
    pub(crate) epoch: i64,
    pub(crate) stored: StoredPosition,
}

/// What happened to the records of a partition: kept to be checked, not by any service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    pub(crate) offsets: BTreeSet<i64>,
    pub(crate) dropped: BTreeSet<i64>,
    last_of_key: BTreeMap<ParkingKey, i64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Database<T> {
    pub(crate) tables: T,
    pub(crate) positions: BTreeMap<i32, Position>,
    pub(crate) outbox: BTreeMap<(i32, i64, i64), Vec<Output>>,
    pub(crate) parked: BTreeMap<(i32, i64), Parking>,
    pub(crate) applied: BTreeMap<i32, Applied>,
    /// What committed transactions are to publish, in order: content, and who published to which topic.
    pub(crate) committed: Vec<(u64, u64)>,
    /// Restored from a backup so often.
    pub(crate) restored: u32,
}

impl<T: Default> Default for Database<T> {
    fn default() -> Self {
        Self {
            tables: T::default(),
            positions: BTreeMap::new(),
            outbox: BTreeMap::new(),
            parked: BTreeMap::new(),
            applied: BTreeMap::new(),
            committed: Vec::new(),
            restored: 0,
        }
    }
}

/// Why a transaction did not commit.
#[derive(Debug)]
pub(crate) struct Fenced;

impl<T> Database<T> {
    pub(crate) fn raise_epoch(&mut self, partition: i32, cluster_id: &str) -> Position {
        let position = self.positions.entry(partition).or_insert_with(|| Position {
            epoch: 0,
            stored: StoredPosition { next: NextOffset(0), cluster_id: cluster_id.to_owned(), log_id: None },
        });
        position.epoch += 1;
        position.clone()
    }

    pub(crate) fn set_log_id(&mut self, partition: i32, log_id: &str) {
        if let Some(position) = self.positions.get_mut(&partition) {
            position.stored.log_id.get_or_insert_with(|| log_id.to_owned());
        }
    }

    pub(crate) fn taken_over(
        &self,
        partition: i32,
        position: &Position,
        recorded: RecordedParkings,
    ) -> TakenOver {
        let of_partition =
            self.outbox.range((partition, i64::MIN, i64::MIN)..=(partition, i64::MAX, i64::MAX));
        TakenOver {
            epoch: position.epoch,
            next: position.stored.next,
            inherited: of_partition
                .map(|((_, epoch, seq), outputs)| (OutboxRow { epoch: *epoch, seq: *seq }, outputs.clone()))
                .collect(),
            parked: self
                .parked
                .range((partition, i64::MIN)..=(partition, i64::MAX))
                .map(|((_, offset), parking)| {
                    (parking.key.clone(), Offset(*offset), parking.cause == ParkCause::Unknown)
                })
                .collect(),
            recorded,
        }
    }

    pub(crate) fn parked_records(&self, partition: i32, offsets: &[Offset]) -> Vec<Record> {
        offsets
            .iter()
            .filter_map(|offset| self.parked.get(&(partition, offset.0)))
            .map(|parking| parking.record.clone())
            .collect()
    }

    /// The runtime's part of a transaction: park, unpark, move the position on condition that epoch and offset still
    /// hold, keep the outputs.
    pub(crate) fn advance<I>(
        &mut self,
        partition: i32,
        transaction: &Transaction<'_, I>,
        outputs: &[Output],
        planted: Option<Planted>,
    ) -> Result<(), Fenced> {
        let position = self.positions.get_mut(&partition).ok_or(Fenced)?;
        let epoch_holds = position.epoch == transaction.row.epoch || planted == Some(Planted::NoEpochCheck);
        let offset_holds = position.stored.next == transaction.expected
            || planted == Some(Planted::LostCommitTakenAsAborted);
        if !(epoch_holds && offset_holds) {
            return Err(Fenced);
        }
        position.stored.next = transaction.next;
        if let Some(log_id) =
            transaction.log_id.as_ref().filter(|_| planted != Some(Planted::FirstRecordForgotten))
        {
            position.stored.log_id.get_or_insert_with(|| log_id.clone());
        }
        for parking in transaction.park {
            self.parked.entry((partition, parking.record.offset.0)).or_insert_with(|| parking.clone());
        }
        for offset in transaction.unpark {
            self.parked.remove(&(partition, offset.0));
        }
        let row = transaction.row;
        if !outputs.is_empty() && planted != Some(Planted::OutboxDeletedBeforePublishing) {
            self.outbox.insert((partition, row.epoch, row.seq), outputs.to_vec());
        }
        if let Some(done) = transaction.done {
            let until = (partition, done.epoch, done.seq);
            self.outbox.retain(|key, _| key.0 != partition || *key > until);
        }
        let lane = |output: &Output| fingerprint(&[output.topic().as_bytes(), &partition.to_be_bytes()]);
        self.committed.extend(outputs.iter().map(|output| (content_of(output), lane(output))));
        Ok(())
    }

    /// Notes which records a committed transaction applied and dropped. Says what is wrong with that.
    pub(crate) fn note_applied(
        &mut self,
        partition: i32,
        records: &[(Offset, ParkingKey)],
        unparked: &[Offset],
    ) -> Option<String> {
        let applied = self.applied.entry(partition).or_default();
        let mut wrong = None;
        for (offset, key) in records {
            if !applied.offsets.insert(offset.0) {
                wrong = Some(format!("the record at {partition}@{} was applied twice", offset.0));
            }
            if let Some(last) = applied.last_of_key.insert(key.clone(), offset.0)
                && last > offset.0
            {
                wrong = Some(format!(
                    "the records of {key} were applied out of order: {} behind {last}",
                    offset.0
                ));
            }
        }
        for offset in unparked {
            if !records.iter().any(|(applied, _)| applied == offset) {
                applied.dropped.insert(offset.0);
            }
        }
        wrong
    }
}

type Undo<T> = Box<dyn FnOnce(&mut T) + Send>;

/// An open transaction.
pub(crate) struct Tx<T> {
    pub(crate) database: Shared<Database<T>>,
    pub(crate) world: Shared<World>,
    pub(crate) control: std::sync::Arc<Control>,
    undo: Vec<Undo<T>>,
}

impl<T> Tx<T> {
    pub(crate) fn new(
        database: &Shared<Database<T>>,
        world: &Shared<World>,
        control: &std::sync::Arc<Control>,
    ) -> Self {
        Self {
            database: database.clone(),
            world: world.clone(),
            control: std::sync::Arc::clone(control),
            undo: Vec::new(),
        }
    }

    pub(crate) fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&lock(&self.database).tables)
    }

    /// Writes; `write` returns how to take it back.
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut T) -> Undo<T>) {
        let undo = write(&mut lock(&self.database).tables);
        self.undo.push(undo);
    }

    pub(crate) fn planted(&self) -> Option<Planted> {
        lock(&self.world).planted
    }

    pub(crate) fn commit(mut self) {
        self.undo.clear();
    }
}

impl<T> Drop for Tx<T> {
    fn drop(&mut self) {
        let mut database = lock(&self.database);
        for undo in self.undo.drain(..).rev() {
            undo(&mut database.tables);
        }
    }
}
