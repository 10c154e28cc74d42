//! The processes of one service: they start, die, freeze, and think that they own partitions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures::task::noop_waker;
use messaging::{RecordedParkings, Waker};

use crate::database::Database;
use crate::member::{Control, Task, at, own};
use crate::planted::Planted;
use crate::ports::{Service, VirtualPorts, recorded_parkings};
use crate::world::{PARTITIONS, Shared, World, lock, set_wall_clock, shared};

struct Process<S: Service> {
    alive: bool,
    frozen: bool,
    /// How far its clock is off.
    off_ms: i64,
    is_new_build: bool,
    process: S::Process,
    recorded: Arc<Vec<RecordedParkings>>,
    /// How far it has followed [`Service::TAIL`].
    tail: Vec<i64>,
}

pub(crate) struct Fleet<S: Service> {
    pub(crate) database: Shared<Database<S::Tables>>,
    world: Shared<World>,
    processes: Vec<Process<S>>,
    tasks: Vec<Task>,
    /// Who owns each partition, as the group sees it.
    owners: Vec<Option<usize>>,
    backup: Option<Database<S::Tables>>,
    /// Partitions that stopped, and why.
    pub(crate) stopped: Vec<(i32, String)>,
}

impl<S: Service> Fleet<S> {
    pub(crate) fn new(world: &Shared<World>, processes: usize) -> Self {
        let partitions = usize::try_from(PARTITIONS).unwrap_or(0);
        let mut fleet = Self {
            database: shared(Database::default()),
            world: world.clone(),
            processes: Vec::new(),
            tasks: Vec::new(),
            owners: vec![None; partitions],
            backup: None,
            stopped: Vec::new(),
        };
        for _ in 0..processes {
            fleet.start_process();
        }
        fleet.rebalance();
        fleet
    }

    pub(crate) fn world(&self) -> Shared<World> {
        self.world.clone()
    }

    fn start_process(&mut self) {
        let mut world = lock(&self.world);
        let (oldest, drift) = (world.rng.per_mille(300), world.mix.clock > 0);
        let off_ms = if drift { world.rng.between(-40, 40) } else { 0 };
        world.tell(|| format!("{} process {} starts", S::GROUP, self.processes.len()));
        let recorded = recorded_parkings(&world, S::GROUP, S::TOPIC);
        drop(world);
        self.processes.push(Process {
            alive: true,
            frozen: false,
            off_ms,
            is_new_build: !oldest,
            process: S::process(&self.world),
            recorded,
            tail: vec![0; self.owners.len()],
        });
    }

    fn alive(&self) -> Vec<usize> {
        let numbered = self.processes.iter().enumerate();
        numbered.filter(|(_, process)| process.alive).map(|(index, _)| index).collect()
    }

    /// The group gives each partition to a process that is alive. Who loses one hears of it later.
    pub(crate) fn rebalance(&mut self) {
        let alive = self.alive();
        for partition in 0..PARTITIONS {
            let slot = usize::try_from(partition).unwrap_or(0);
            let chosen = lock(&self.world).rng.pick(&alive).copied();
            let Some(current) = self.owners.get_mut(slot) else { continue };
            if *current == chosen && chosen.is_some() {
                continue;
            }
            *current = chosen;
            for task in self.tasks.iter_mut().filter(|task| task.partition == partition) {
                task.revoked = true;
            }
            if let Some(process) = chosen {
                self.spawn(process, partition);
            }
        }
    }

    fn spawn(&mut self, index: usize, partition: i32) {
        let Some(process) = self.processes.get(index) else { return };
        let producer = lock(&self.world).new_id();
        let (control, waker) = (Control::new(), Waker::default());
        let name = format!("{} process {index} task {producer} on partition {partition}", S::GROUP);
        lock(&self.world).tell(|| format!("{name} is assigned"));
        let ports = VirtualPorts::<S>::new(
            &self.world,
            &self.database,
            process.process.clone(),
            partition,
            &control,
            &waker,
            producer,
            &process.recorded,
            process.is_new_build,
            name,
        );
        // A process hears in order what the group tells it: the old owner ends before the new one begins.
        let before = self.tasks.iter().filter(|task| task.process == index && task.partition == partition);
        let predecessors: Vec<Arc<Control>> = before.map(|task| Arc::clone(&task.control)).collect();
        for predecessor in &predecessors {
            predecessor.stop.store(true, Ordering::Relaxed);
        }
        let future = Box::pin(own(ports, predecessors));
        self.tasks.push(Task { process: index, partition, producer, control, waker, future, revoked: false });
    }

    /// The tasks that would do something now.
    pub(crate) fn runnable(&self) -> Vec<usize> {
        let world = lock(&self.world);
        let numbered = self.tasks.iter().enumerate();
        numbered
            .filter(|(_, task)| {
                self.processes.get(task.process).is_some_and(|process| !process.frozen)
                    && task.is_runnable(world.now_ms, world.end(S::TOPIC, task.partition))
            })
            .map(|(index, _)| index)
            .collect()
    }

    /// What its tasks wait for, in words.
    pub(crate) fn tasks(&self) -> Vec<String> {
        let describe = |task: &Task| {
            let (process, partition, wait) = (task.process, task.partition, task.control.wait());
            format!("process {process} partition {partition} waits for {wait:?}, revoked {}", task.revoked)
        };
        self.tasks.iter().map(describe).collect()
    }

    /// When the first sleeping task wants to run.
    pub(crate) fn wake_at(&self) -> Option<i64> {
        let awake = |task: &&Task| self.processes.get(task.process).is_some_and(|process| !process.frozen);
        self.tasks.iter().filter(awake).filter_map(Task::wake_at).min()
    }

    /// Runs one task up to its next point.
    pub(crate) fn run(&mut self, index: usize) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        let off_ms = self.processes.get(task.process).map_or(0, |process| process.off_ms);
        set_wall_clock(at(lock(&self.world).now_ms, off_ms));
        let waker = noop_waker();
        if let Poll::Ready(ended) = task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            let task = self.tasks.swap_remove(index);
            task.control.ended.store(true, Ordering::Relaxed);
            if let Err(why) = ended {
                lock(&self.world).tell(|| format!("{}/{} stops: {why}", S::GROUP, task.partition));
                self.stopped.push((task.partition, why));
            }
        }
    }

    fn kill(&mut self, index: usize) {
        let Some(process) = self.processes.get_mut(index).filter(|process| process.alive) else { return };
        process.alive = false;
        lock(&self.world).tell(|| format!("{} process {index} is killed", S::GROUP));
        for task in self.tasks.extract_if(.., |task| task.process == index) {
            lock(&self.world).orphan(task.producer);
        }
        for owner in self.owners.iter_mut().filter(|owner| **owner == Some(index)) {
            *owner = None;
        }
    }

    /// Follows the topic beside its own, a little.
    pub(crate) fn follow(&mut self, all: bool) {
        let Some(topic) = S::TAIL else { return };
        if lock(&self.world).is_planted(Planted::LevelsNotWatched) {
            return;
        }
        for process in self.processes.iter_mut().filter(|process| process.alive && !process.frozen) {
            for (partition, next) in (0..PARTITIONS).zip(process.tail.iter_mut()) {
                let mut world = lock(&self.world);
                if !all && world.rng.per_mille(500) {
                    continue;
                }
                let end = world.end(topic, partition);
                let records: Vec<_> = (*next..end)
                    .filter_map(|offset| world.record(topic, partition, offset).cloned())
                    .collect();
                drop(world);
                *next = end;
                for record in &records {
                    S::observe(&process.process, record);
                }
            }
        }
    }

    /// Something goes wrong with a process.
    pub(crate) fn fault(&mut self) {
        let (mix, roll) = {
            let mut world = lock(&self.world);
            (world.mix, world.rng.below(1_000))
        };
        let alive = self.alive();
        let Some(index) = lock(&self.world).rng.pick(&alive).copied() else {
            self.start_process();
            return self.rebalance();
        };
        let chances = [mix.kill, mix.freeze, mix.rebalance, mix.clock, mix.restore, mix.retake];
        let mut bound = 0;
        let hits = chances.map(|chance| {
            let low = bound;
            bound += usize::try_from(chance).unwrap_or(0);
            (low..bound).contains(&roll)
        });
        match hits {
            [true, ..] => {
                self.kill(index);
                if self.alive().len() < 2 {
                    self.start_process();
                }
                self.rebalance();
            }
            [_, true, ..] => {
                if let Some(process) = self.processes.get_mut(index) {
                    process.frozen = !process.frozen;
                    let what = if process.frozen { "freezes" } else { "thaws" };
                    lock(&self.world).tell(|| format!("{} process {index} {what}", S::GROUP));
                }
            }
            [_, _, true, ..] => self.regroup(),
            [_, _, _, true, ..] => self.jump(index),
            [_, _, _, _, true, _] => self.back_up_or_restore(),
            [_, _, _, _, _, true] => {
                if let Some(task) = self.tasks.first() {
                    task.control.retake.store(true, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }

    /// A rebalance; or a task hears that its partition is another's.
    fn regroup(&mut self) {
        if lock(&self.world).rng.per_mille(400) {
            self.rebalance();
        }
        self.revoke(false);
    }

    fn revoke(&mut self, all: bool) {
        for task in self.tasks.iter_mut().filter(|task| task.revoked) {
            if all || lock(&self.world).rng.per_mille(500) {
                task.control.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    /// A clock jumps.
    fn jump(&mut self, index: usize) {
        let mut world = lock(&self.world);
        // A provider that can't bar a key leaves nothing but the clock to tell when a late request can't come any more.
        let far = world.book.can_bar && world.rng.per_mille(100);
        let off_ms = if far { world.rng.between(-60_000, 60_000) } else { world.rng.between(-500, 500) };
        world.tell(|| format!("the clock of {} process {index} is off by {off_ms} ms", S::GROUP));
        drop(world);
        if let Some(process) = self.processes.get_mut(index) {
            process.off_ms = off_ms;
        }
    }

    /// A backup is made; or all processes end, and the database is as it was at the last backup.
    fn back_up_or_restore(&mut self) {
        let restored = lock(&self.database).restored;
        match self.backup.take() {
            Some(mut backup) if lock(&self.world).rng.per_mille(500) => {
                for index in self.alive() {
                    self.kill(index);
                }
                backup.restored = restored + 1;
                *lock(&self.database) = backup;
                lock(&self.world).tell(|| format!("the database of {} is restored from a backup", S::GROUP));
                self.start_process();
                self.start_process();
                self.rebalance();
            }
            backup => {
                lock(&self.world).tell(|| format!("the database of {} is backed up", S::GROUP));
                self.backup = backup.or_else(|| Some(lock(&self.database).clone()));
            }
        }
    }

    /// The log of a partition is not what it was: whoever reads it is told so.
    pub(crate) fn log_changed(&self, partition: i32) {
        for task in self.tasks.iter().filter(|task| task.partition == partition) {
            task.control.retake.store(true, Ordering::Relaxed);
        }
    }

    /// No more faults: each partition has one owner of the newest build, whose clock is right.
    pub(crate) fn calm_down(&mut self) {
        self.revoke(true);
        for process in &mut self.processes {
            process.frozen = false;
            process.off_ms = 0;
        }
        for index in self.alive() {
            if self.processes.get(index).is_some_and(|process| !process.is_new_build) {
                self.kill(index);
            }
        }
        self.start_process();
        if let Some(process) = self.processes.last_mut() {
            process.is_new_build = true;
            process.off_ms = 0;
        }
        let newest = self.processes.len() - 1;
        for partition in 0..PARTITIONS {
            let slot = usize::try_from(partition).unwrap_or(0);
            if self.owners.get(slot).is_some_and(Option::is_none) {
                if let Some(owner) = self.owners.get_mut(slot) {
                    *owner = Some(newest);
                }
                self.spawn(newest, partition);
            }
        }
    }

    /// Whether nothing is left to be done but what has a time: all read, all published, nothing parked.
    pub(crate) fn is_settled(&self) -> bool {
        let (world, database) = (lock(&self.world), lock(&self.database));
        (0..PARTITIONS).all(|partition| {
            let next = database.positions.get(&partition).map_or(0, |position| position.stored.next.0);
            next == world.end(S::TOPIC, partition)
        }) && database.outbox.is_empty()
            && database.parked.is_empty()
    }
}
