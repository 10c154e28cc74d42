//! One schedule: a while of trouble, then calm, then the checks.

use std::time::Duration;

use schemas::Topic;

use crate::actors::Shop;
use crate::calm::settle;
use crate::checks;
use crate::database::Database;
use crate::fleet::Fleet;
use crate::planted::Planted;
use crate::services::{Orchestrator, PaymentWorker, StockWorker};
use crate::world::{Mix, Shared, World, lock, shared};

/// What came of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What must never be, and was.
    pub violations: Vec<String>,
    /// What happened, step by step; only if it was asked for.
    pub story: Vec<String>,
    /// Records in the log at its end.
    pub records: usize,
    /// Steps it took.
    pub steps: usize,
    /// Orders in it.
    pub orders: usize,
}

pub(crate) struct Sim {
    pub(crate) world: Shared<World>,
    pub(crate) shop: Shop,
    pub(crate) orchestrator: Fleet<Orchestrator>,
    pub(crate) stock: Fleet<StockWorker>,
    pub(crate) payment: Fleet<PaymentWorker>,
    most_orders: usize,
    /// Whether a topic is made anew in the middle.
    anew: bool,
    /// Whose topic was made anew.
    pub(crate) expected_stop: Option<(Topic, i32)>,
    pub(crate) idle: u32,
    steps: usize,
    /// Time that tokio has not been told of yet.
    untold_ms: u64,
}

/// Each schedule leaves some faults out, so that the others get further.
fn mix(world: &mut World) -> Mix {
    let mut chance = |most: i64, often: u32| {
        let rng = &mut world.rng;
        if rng.per_mille(often) { u32::try_from(rng.between(1, most)).unwrap_or(0) } else { 0 }
    };
    let mut mix = Mix {
        transient: chance(60, 600),
        commit_lost: chance(80, 500),
        publish_fails: chance(100, 400),
        record_missing: chance(60, 400),
        handler_fails: chance(30, 250),
        kill: chance(200, 600),
        freeze: chance(200, 500),
        rebalance: chance(300, 600),
        clock: chance(100, 300),
        restore: chance(150, 200),
        poison: chance(60, 250),
        requests: chance(600, 800),
        duplicates: chance(150, 500),
        provider_unknown: chance(400, 500),
        provider_late: chance(500, 400),
        retake: chance(40, 300),
        slow_network: chance(1, 500),
    };
    if mix.restore > 0 {
        // A redrive that failed and would succeed now decides otherwise in a restored database: see the README.
        (mix.handler_fails, mix.poison) = (0, 0);
    }
    mix
}

impl Sim {
    pub(crate) fn new(seed: u64, planted: Option<Planted>, with_story: bool) -> Self {
        let mut world = World::new(seed, planted, with_story);
        world.mix = mix(&mut world);
        world.book.can_bar = world.rng.per_mille(600);
        let most_orders = 1 + world.rng.below(7);
        let anew = world.rng.per_mille(20);
        let mut shop = Shop::default();
        let mix = world.mix;
        world.tell(|| format!("the mix of faults: {mix:?}"));
        shop.open(&mut world);
        let world = shared(world);
        Self {
            orchestrator: Fleet::new(&world, 2),
            stock: Fleet::new(&world, 2),
            payment: Fleet::new(&world, 2),
            world,
            shop,
            most_orders,
            anew,
            expected_stop: None,
            idle: 0,
            steps: 0,
            untold_ms: 0,
        }
    }

    pub(crate) async fn run(mut self) -> Outcome {
        let trouble = 300 + lock(&self.world).rng.below(1_500);
        for step in 0..trouble {
            if self.anew && step == trouble / 2 {
                self.make_topic_anew();
            }
            self.trouble();
            self.turn().await;
            if !lock(&self.world).violations.is_empty() {
                break;
            }
        }
        self.calm().await;
        if self.expected_stop.is_none() && lock(&self.world).violations.is_empty() {
            checks::all(&mut self);
        }
        let mut world = lock(&self.world);
        Outcome {
            seed: world.seed,
            violations: std::mem::take(&mut world.violations),
            story: world.story.take().unwrap_or_default(),
            records: world.logs.values().map(|log| log.records.len()).sum(),
            steps: self.steps,
            orders: self.shop.orders.len(),
        }
    }

    /// One thing happens that nobody controls.
    fn trouble(&mut self) {
        let roll = lock(&self.world).rng.below(100);
        match roll {
            0..12 => self.shop.act(&mut lock(&self.world), self.most_orders),
            12..18 => {
                let which = lock(&self.world).rng.below(3);
                self.fault(which);
            }
            18 => self.operate(),
            19 => self.curse(),
            20 => {
                let mut world = lock(&self.world);
                let poison = world.mix.poison;
                if world.rng.per_mille(poison * 4) {
                    self.shop.poison(&mut world);
                }
            }
            22 => {
                let mut world = lock(&self.world);
                let chance = world.mix.duplicates;
                if world.rng.per_mille(chance * 2) {
                    world.repeat_any();
                }
            }
            21 => {
                let mut world = lock(&self.world);
                if world.mix.clock > 0 && world.rng.per_mille(100) {
                    world.broker_off_ms = world.rng.between(-300, 300);
                    let off_ms = world.broker_off_ms;
                    world.tell(|| format!("the broker's clock is off by {off_ms} ms"));
                }
            }
            _ => {}
        }
    }

    fn fault(&mut self, which: usize) {
        match which {
            0 => self.orchestrator.fault(),
            1 => self.stock.fault(),
            _ => self.payment.fault(),
        }
    }

    /// The handling of a record that is yet to come fails.
    fn curse(&mut self) {
        let mut world = lock(&self.world);
        let chance = world.mix.handler_fails;
        if !world.rng.per_mille(chance * 16) {
            return;
        }
        let topics = [Topic::OrderSaga, Topic::StockCommands, Topic::PaymentCommands, Topic::PaymentCommands];
        let Some(topic) = world.rng.pick(&topics).copied() else { return };
        let partition = i32::try_from(world.rng.below(2)).unwrap_or(0);
        let offset = world.end(topic, partition) + world.rng.between(0, 2);
        world.tell(|| format!("the record at {topic:?}/{partition}@{offset} is cursed"));
        world.cursed.insert((topic, partition, offset));
        world.once_cursed.insert((topic, partition, offset));
    }

    /// An operator looks at what is parked or stuck, and does something about it.
    fn operate(&mut self) {
        let which = lock(&self.world).rng.below(4);
        match which {
            0 => settle::<Orchestrator>(&self.orchestrator, &mut self.shop, &self.world),
            1 => settle::<StockWorker>(&self.stock, &mut self.shop, &self.world),
            2 => settle::<PaymentWorker>(&self.payment, &mut self.shop, &self.world),
            _ => {
                let database = lock(&self.orchestrator.database);
                let sagas = database.tables.sagas.iter().map(|((_, order_id), row)| (*order_id, &row.saga));
                let mut world = lock(&self.world);
                if world.mix.requests > 0 {
                    self.shop.retry_some(&mut world, sagas);
                }
            }
        }
    }

    /// Lets one task run, records arrive, the provider work, or time pass.
    pub(crate) async fn turn(&mut self) {
        self.steps += 1;
        let runnable = [self.orchestrator.runnable(), self.stock.runnable(), self.payment.runnable()];
        let tasks: usize = runnable.iter().map(Vec::len).sum();
        let (roll, quiet) = {
            let mut world = lock(&self.world);
            let arrives = world.next_arrival_ms().is_some_and(|at_ms| at_ms <= world.now_ms);
            (world.rng.below(100), !arrives && world.provider_is_quiet())
        };
        if tasks == 0 && quiet {
            self.sleep().await;
        } else {
            self.idle = 0;
            match roll {
                0..60 if tasks > 0 => self.run_one(&runnable, tasks),
                60..62 => self.pass(lock_between(&self.world, 20, 400)).await,
                0..85 => lock(&self.world).deliver(),
                85..93 => lock(&self.world).provider_works(),
                _ => self.stock.follow(false),
            }
            let passes = lock_between(&self.world, 0, 3);
            self.pass(passes).await;
        }
        tokio::task::yield_now().await;
    }

    fn run_one(&mut self, runnable: &[Vec<usize>; 3], tasks: usize) {
        let mut chosen = lock(&self.world).rng.below(tasks);
        for (fleet, indices) in runnable.iter().enumerate() {
            if let Some(index) = indices.get(chosen).copied() {
                return match fleet {
                    0 => self.orchestrator.run(index),
                    1 => self.stock.run(index),
                    _ => self.payment.run(index),
                };
            }
            chosen -= indices.len();
        }
    }

    /// Nobody has anything to do: time passes, in growing steps, up to when somebody has.
    async fn sleep(&mut self) {
        self.stock.follow(true);
        let wake_at = [self.orchestrator.wake_at(), self.stock.wake_at(), self.payment.wake_at()]
            .into_iter()
            .flatten()
            .min();
        let now_ms = lock(&self.world).now_ms;
        let until_ms = wake_at.map_or(100, |wake_at| (wake_at - now_ms).max(1));
        self.idle += 1;
        self.pass(until_ms.min(250)).await;
    }

    async fn pass(&mut self, millis: i64) {
        lock(&self.world).now_ms += millis;
        self.untold_ms += millis.unsigned_abs();
        if self.untold_ms >= 5 {
            tokio::time::advance(Duration::from_millis(self.untold_ms)).await;
            self.untold_ms = 0;
        }
    }

    /// A topic is made anew: its owners must stop, and say so.
    fn make_topic_anew(&mut self) {
        let mut world = lock(&self.world);
        let partition = i32::try_from(world.rng.below(2)).unwrap_or(0);
        let (read, which) = match world.rng.below(2) {
            0 => (position_of(&self.orchestrator.database, partition), Topic::OrderSaga),
            _ => (position_of(&self.stock.database, partition), Topic::StockCommands),
        };
        // Nothing was read: nothing is lost.
        if read == 0 {
            self.anew = false;
            return;
        }
        let as_many = world.rng.per_mille(700);
        world.tell(|| format!("{which:?}/{partition} is made anew"));
        world.now_ms += 1;
        // A backup from before anything was read fits any log.
        world.mix.restore = 0;
        let Some(log) = world.logs.get_mut(&(which, partition)) else { return };
        let old = std::mem::take(&mut log.records);
        if as_many {
            // Somebody copies the records: the same number, at other times.
            let now = domain_types::Timestamp::from_millis(world.now_ms);
            let again = old.into_iter().map(|record| messaging::Record { time: now, ..record }).collect();
            if let Some(log) = world.logs.get_mut(&(which, partition)) {
                log.records = again;
            }
        }
        drop(world);
        match which {
            Topic::OrderSaga => self.orchestrator.log_changed(partition),
            _ => self.stock.log_changed(partition),
        }
        self.expected_stop = Some((which, partition));
    }
}

fn lock_between(world: &Shared<World>, low: i64, high: i64) -> i64 {
    lock(world).rng.between(low, high)
}

fn position_of<T>(database: &Shared<Database<T>>, partition: i32) -> i64 {
    lock(database).positions.get(&partition).map_or(0, |position| position.stored.next.0)
}
