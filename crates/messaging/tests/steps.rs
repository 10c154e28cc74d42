//! The owner's steps over a virtual log and database, driven without tokio, Kafka or PostgreSQL: any schedule of
//! owners, zombies, crashes and lost answers applies each record once and publishes each output, in order at first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain_types::Timestamp;
use futures::FutureExt;
use messaging::owner::{
    Failure, Now, Observed, OutboxRow, Owner, Ports, Stepped, TakenOver, Transaction, Work,
};
use messaging::{ErrorClass, Limits, NextOffset, Offset, Output, ParkCause, ParkingKey, Parsed, Record};
use proptest::prelude::*;

/// The log, the database, and what was published.
#[derive(Default)]
struct World {
    log: Vec<Record>,
    epoch: i64,
    next: i64,
    applied: Vec<i64>,
    outbox: BTreeMap<(i64, i64), Vec<Output>>,
    parked: BTreeMap<i64, Record>,
    published: Vec<String>,
    /// One per call that can fail; 0 when used up: all goes well.
    faults: Vec<u8>,
    poison: Vec<i64>,
    /// An owner's own work fails unless it is the last who took over: its memory contradicts the database.
    stale_work_fails: bool,
}

impl World {
    fn fault(&mut self) -> u8 {
        self.faults.pop().unwrap_or(0)
    }
}

struct Virtual {
    world: Arc<Mutex<World>>,
    cursor: Option<i64>,
}

fn transient() -> Failure {
    Failure::RolledBack { class: ErrorClass::Transient, detail: "injected".into() }
}

impl Ports for Virtual {
    type Input = i64;

    async fn take_over(&mut self) -> Result<TakenOver, Failure> {
        let mut world = self.world.lock().unwrap();
        if world.fault() == 1 {
            return Err(transient());
        }
        world.epoch += 1;
        Ok(TakenOver {
            epoch: world.epoch,
            next: NextOffset(world.next),
            inherited: world
                .outbox
                .iter()
                .map(|((epoch, seq), outputs)| (OutboxRow { epoch: *epoch, seq: *seq }, outputs.clone()))
                .collect(),
            parked: world
                .parked
                .iter()
                .map(|(offset, record)| (record.parking_key(), Offset(*offset), false))
                .collect(),
            recorded: BTreeMap::new(),
        })
    }

    async fn begin(&mut self, _epoch: i64) -> Result<(), Failure> {
        if self.world.lock().unwrap().fault() == 1 { Err(transient()) } else { Ok(()) }
    }

    fn read_from(&mut self, next: NextOffset) {
        self.cursor = Some(next.0);
    }

    async fn transact(&mut self, transaction: Transaction<'_, i64>) -> Result<Vec<Output>, Failure> {
        let mut world = self.world.lock().unwrap();
        let fault = world.fault();
        if fault == 1 {
            return Err(transient());
        }
        let is_stale = world.epoch != transaction.row.epoch;
        if world.stale_work_fails && is_stale && matches!(transaction.work, Work::Owner(_)) {
            return Err(Failure::RolledBack { class: ErrorClass::Permanent, detail: "unique".into() });
        }
        let mut outputs = transaction.outputs.clone();
        let mut applied = Vec::new();
        if let Work::Records(batch) = transaction.work {
            for received in batch {
                let offset = received.record.offset.0;
                if world.poison.contains(&offset) {
                    return Err(Failure::RolledBack { class: ErrorClass::Bug, detail: "poison".into() });
                }
                applied.push(offset);
                outputs.push(Output::raw("out", "k", offset.to_string().into_bytes()));
            }
        }
        if world.epoch != transaction.row.epoch || world.next != transaction.expected.0 {
            return Err(Failure::Fenced);
        }
        world.applied.extend(applied);
        world.next = transaction.next.0;
        for parking in transaction.park {
            world.parked.insert(parking.record.offset.0, parking.record.clone());
        }
        if let Some(done) = transaction.done {
            world.outbox.retain(|key, _| *key > (done.epoch, done.seq));
        }
        if !outputs.is_empty() {
            world.outbox.insert((transaction.row.epoch, transaction.row.seq), outputs.clone());
        }
        // The commit went through, but its answer is lost.
        if fault == 2 { Err(Failure::Fenced) } else { Ok(outputs) }
    }

    async fn publish(&mut self, outputs: &[Output]) -> Result<(), Failure> {
        let mut world = self.world.lock().unwrap();
        let fault = world.fault();
        if fault == 1 {
            return Err(transient());
        }
        let texts = outputs.iter().map(|output| String::from_utf8(output.value().to_vec()).unwrap());
        world.published.extend(texts);
        if fault == 2 { Err(transient()) } else { Ok(()) }
    }

    async fn parked(&mut self, offsets: &[Offset]) -> Result<Vec<Record>, Failure> {
        let world = self.world.lock().unwrap();
        Ok(offsets.iter().filter_map(|offset| world.parked.get(&offset.0).cloned()).collect())
    }

    fn parse(&self, record: &Record) -> Parsed<i64> {
        if record.value == b"broken" {
            return Parsed::Unreadable { cause: ParkCause::Malformed, detail: "broken".into() };
        }
        Parsed::Input(record.offset.0)
    }

    fn next_work(&self) -> Option<Timestamp> {
        None
    }

    fn is_contiguous(&self) -> bool {
        true
    }

    fn group(&self) -> &str {
        "virtual"
    }

    fn observe(&self, _event: Observed) {}
}

fn owner(world: &Arc<Mutex<World>>) -> Owner<Virtual> {
    limited_owner(world, messaging::PARKED_RECORDS)
}

fn limited_owner(world: &Arc<Mutex<World>>, parked_records: usize) -> Owner<Virtual> {
    owner_with(world, Limits { parked_records, ..unpaced() })
}

fn unpaced() -> Limits {
    Limits { batch_records: 4, pace_burst: 1_000_000, pace_per_second: 1_000_000, ..Limits::default() }
}

fn owner_with(world: &Arc<Mutex<World>>, limits: Limits) -> Owner<Virtual> {
    Owner::new(Virtual { world: Arc::clone(world), cursor: None }, limits)
}

/// One step, with up to three records offered before it.
fn step(owner: &mut Owner<Virtual>, elapsed: u64) -> Stepped {
    if owner.is_reading()
        && let Some(cursor) = owner.ports.cursor
    {
        let world = owner.ports.world.lock().unwrap();
        let records: Vec<Record> =
            world.log.iter().skip(usize::try_from(cursor).unwrap()).take(3).cloned().collect();
        drop(world);
        owner.ports.cursor = Some(cursor + i64::try_from(records.len()).unwrap());
        owner.offer(records);
    }
    let now = Now { wall: Timestamp::from_millis(0), elapsed: Duration::from_secs(elapsed) };
    owner.step(now).now_or_never().expect("the virtual ports never wait")
}

fn record(offset: i64, key: u8, broken: bool) -> Record {
    Record {
        topic: "in".into(),
        partition: 0,
        offset: Offset(offset),
        time: Timestamp::from_millis(offset),
        key: Some(vec![b'a' + key]),
        headers: Vec::new(),
        value: if broken { b"broken".to_vec() } else { b"fine".to_vec() },
    }
}

#[test]
fn an_owner_whose_own_work_contradicts_the_database_takes_over_again() {
    let world = Arc::new(Mutex::new(World { stale_work_fails: true, ..World::default() }));
    let mut owners = [owner(&world), owner(&world)];
    for owner in &mut owners {
        (0..4).for_each(|turn| drop(step(owner, turn)));
    }
    assert_eq!(world.lock().unwrap().epoch, 2);
    owners[0].wake();
    assert!(matches!(step(&mut owners[0], 10), Stepped::BackOff(_)), "another owner has been here");
    (11..15).for_each(|turn| drop(step(&mut owners[0], turn)));
    assert_eq!(world.lock().unwrap().epoch, 3);
    assert!(matches!(step(&mut owners[0], 20), Stepped::Idle(_)));
}

#[test]
fn with_as_many_records_parked_as_may_be_the_partition_stands_still_until_a_build_can_read_on() {
    let broken = |offset| record(offset, u8::try_from(offset).unwrap(), (1..6).contains(&offset));
    let world = Arc::new(Mutex::new(World { log: (0..8).map(broken).collect(), ..World::default() }));
    let limited = || limited_owner(&world, 3);
    let mut first = limited();
    (0..50).for_each(|turn| drop(step(&mut first, turn)));
    assert!(matches!(step(&mut first, 50), Stepped::BackOff(_)));
    let state = |world: &World| (world.next, world.parked.len(), world.applied.clone());
    assert_eq!(state(&world.lock().unwrap()), (4, 3, vec![0]), "nothing behind it was touched");
    // The same build again: no change.
    let mut second = limited();
    (100..150).for_each(|turn| drop(step(&mut second, turn)));
    assert_eq!(state(&world.lock().unwrap()), (4, 3, vec![0]));
    // One that knows the message.
    for record in &mut world.lock().unwrap().log {
        record.value = b"fine".to_vec();
    }
    let mut better = limited();
    (200..250).for_each(|turn| drop(step(&mut better, turn)));
    assert_eq!(state(&world.lock().unwrap()), (8, 3, vec![0, 4, 5, 6, 7]));
}

#[test]
fn a_read_model_rests_between_batches_but_not_while_it_is_behind() {
    let records: Vec<Record> = (0..38).map(|offset| record(offset, 0, false)).collect();
    let world = Arc::new(Mutex::new(World { log: records.clone(), ..World::default() }));
    let mut owner = owner_with(&world, Limits { rest: 4, ..unpaced() });
    let mut elapsed = Duration::ZERO;
    let mut step = |owner: &mut Owner<Virtual>, later: u64| {
        elapsed += Duration::from_millis(later);
        let now = Now { wall: Timestamp::from_millis(0), elapsed };
        owner.step(now).now_or_never().expect("the virtual ports never wait")
    };
    while !owner.is_reading() {
        step(&mut owner, 10);
    }
    owner.offer(records);
    let rest = loop {
        if let Stepped::Idle(rest) = step(&mut owner, 10) {
            break rest.unwrap();
        }
    };
    assert_eq!(world.lock().unwrap().next, 36, "nine full batches without a rest");
    assert!(!rest.is_zero() && rest < Duration::from_millis(250), "{rest:?}");
    assert!(matches!(step(&mut owner, 250), Stepped::Progress));
    assert_eq!(world.lock().unwrap().next, 38, "the two that are left, after it");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_schedule_applies_each_record_once_and_publishes_every_output(
        log in prop::collection::vec((0u8..4, prop::bool::weighted(0.05), prop::bool::weighted(0.05)), 1..40),
        faults in prop::collection::vec(0u8..6, 0..120),
        schedule in prop::collection::vec((0usize..3, 0u8..12), 0..150),
    ) {
        let world = Arc::new(Mutex::new(World {
            log: log.iter().enumerate()
                .map(|(offset, (key, broken, _))| record(offset as i64, *key, *broken)).collect(),
            poison: log.iter().enumerate().filter(|(_, (_, _, poison))| *poison)
                .map(|(offset, _)| offset as i64).collect(),
            faults,
            ..World::default()
        }));
        let mut owners = [owner(&world), owner(&world), owner(&world)];
        for (turn, (who, what)) in schedule.into_iter().enumerate() {
            if what == 0 {
                owners[who] = owner(&world); // kill -9 and restart
            } else {
                if what == 1 && let Some(cursor) = owners[who].ports.cursor.as_mut() {
                    *cursor += 1; // a record does not arrive
                }
                step(&mut owners[who], turn as u64);
            }
        }
        // The faults end; one owner is left.
        world.lock().unwrap().faults.clear();
        let mut last = owner(&world);
        let length = world.lock().unwrap().log.len() as i64;
        for turn in 1_000..3_000 {
            let idle = matches!(step(&mut last, turn), Stepped::Idle(_));
            let world = world.lock().unwrap();
            if idle && world.next == length && world.outbox.is_empty() {
                break;
            }
        }

        let world = world.lock().unwrap();
        prop_assert_eq!(world.next, length);
        let mut stopped: Vec<ParkingKey> = Vec::new();
        let mut expected = Vec::new();
        for record in &world.log {
            let key = record.parking_key();
            let bad = record.value == b"broken" || world.poison.contains(&record.offset.0);
            if bad && !stopped.contains(&key) {
                stopped.push(key.clone());
            }
            if !stopped.contains(&key) {
                expected.push(record.offset.0);
            }
        }
        let mut applied = world.applied.clone();
        applied.sort_unstable();
        prop_assert_eq!(&applied, &expected, "each record once, none behind a parked one");
        prop_assert_eq!(world.parked.len() + expected.len(), world.log.len());
        let mut first_seen: Vec<String> = Vec::new();
        for text in &world.published {
            if !first_seen.contains(text) {
                first_seen.push(text.clone());
            }
        }
        let wanted: Vec<String> = world.applied.iter().map(ToString::to_string).collect();
        prop_assert_eq!(first_seen, wanted, "every output, at first in the order of the commits");
        prop_assert!(world.outbox.is_empty());
    }
}
