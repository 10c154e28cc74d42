//! The end of a schedule: no more faults, operators repair what is stuck, everything comes to rest.

use domain_types::OrderId;
use saga::Saga;
use schemas::Topic;

use crate::actors::Shop;
use crate::fleet::Fleet;
use crate::ports::Service;
use crate::schedule::Sim;
use crate::services::{Orchestrator, PaymentWorker, StockWorker};
use crate::world::{Mix, PARTITIONS, Shared, World, lock};

/// Steps after which a schedule that has not come to rest never will.
const CALM_STEPS: usize = 60_000;

impl Sim {
    /// The faults end; what is stuck is repaired; everything comes to rest.
    pub(crate) async fn calm(&mut self) {
        {
            let mut world = lock(&self.world);
            if world.mix.duplicates > 0 {
                for _ in 0..world.rng.below(6) {
                    world.repeat_any();
                }
            }
            world.tell(|| "the faults end".to_owned());
            world.mix = Mix::default();
            world.broker_off_ms = 0;
            world.cursed.clear();
        }
        self.orchestrator.calm_down();
        self.stock.calm_down();
        self.payment.calm_down();
        for _ in 0..CALM_STEPS {
            self.turn().await;
            if !lock(&self.world).violations.is_empty() {
                return;
            }
            if let Some(expected) = self.expected_stop
                && self.has_stopped(expected)
            {
                return;
            }
            let quiet = self.idle > 0 && self.idle.is_multiple_of(4);
            if quiet && self.repair() {
                if self.expected_stop.is_some() {
                    let what = self.what_is_open();
                    lock(&self.world).violate(what);
                }
                return;
            }
        }
        let what = self.what_is_open();
        lock(&self.world).violate(format!("it never comes to rest: {what}"));
    }

    /// Repairs what is stuck. Returns whether all is done.
    fn repair(&mut self) -> bool {
        settle::<Orchestrator>(&self.orchestrator, &mut self.shop, &self.world);
        settle::<StockWorker>(&self.stock, &mut self.shop, &self.world);
        settle::<PaymentWorker>(&self.payment, &mut self.shop, &self.world);
        let sagas: Vec<(OrderId, Saga)> = {
            let database = lock(&self.orchestrator.database);
            database.tables.sagas.iter().map(|((_, order_id), row)| (*order_id, row.saga.clone())).collect()
        };
        let mut world = lock(&self.world);
        let mut done = true;
        for (order_id, saga) in &sagas {
            if saga.paused {
                self.shop.resume(&mut world, *order_id);
                done = false;
            } else if saga.needs_operator() {
                for command in saga.awaited() {
                    self.shop.retry(&mut world, *order_id, command);
                }
                done = false;
            } else if !saga.is_final() {
                done = false;
            }
        }
        drop(world);
        done && self.is_settled()
    }

    fn is_settled(&self) -> bool {
        let is_saved = lock(&self.orchestrator.database).tables.is_saved();
        is_saved
            && self.orchestrator.is_settled()
            && self.stock.is_settled()
            && self.payment.is_settled()
            && {
                let world = lock(&self.world);
                world.is_quiet() && world.provider_is_quiet()
            }
    }

    fn has_stopped(&self, (topic, partition): (Topic, i32)) -> bool {
        let stopped = match topic {
            Topic::OrderSaga => &self.orchestrator.stopped,
            _ => &self.stock.stopped,
        };
        stopped.iter().any(|(of, why)| *of == partition && why.contains("rebuild this database"))
    }

    fn what_is_open(&self) -> String {
        if let Some((topic, partition)) = self.expected_stop {
            return format!("{topic:?}/{partition} was made anew and its owner goes on");
        }
        let database = lock(&self.orchestrator.database);
        let sagas = database.tables.sagas.iter().filter(|(_, row)| !row.saga.is_final());
        let sagas: Vec<String> = sagas
            .map(|((_, order_id), row)| {
                format!(
                    "{order_id} {:?} timer {:?} awaits {:?}",
                    row.saga.state,
                    row.next_due,
                    row.saga.awaited()
                )
            })
            .collect();
        let is_saved = database.tables.is_saved();
        drop(database);
        let quiet = {
            let world = lock(&self.world);
            (world.is_quiet(), world.provider_is_quiet())
        };
        format!(
            "settled: orchestrator {}, stock {}, payment {}; sagas saved {is_saved}; network and provider quiet \
             {quiet:?}; open sagas {sagas:?}; tasks {:?} {:?} {:?}",
            self.orchestrator.is_settled(),
            self.stock.is_settled(),
            self.payment.is_settled(),
            self.orchestrator.tasks(),
            self.stock.tasks(),
            self.payment.tasks(),
        )
    }
}

/// An operator settles the parked records of one key.
pub(crate) fn settle<S: Service>(fleet: &Fleet<S>, shop: &mut Shop, world: &Shared<World>) {
    let database = lock(&fleet.database);
    let partition =
        i32::try_from(lock(world).rng.below(usize::try_from(PARTITIONS).unwrap_or(1))).unwrap_or(0);
    let mut parked = database.parked.range((partition, i64::MIN)..=(partition, i64::MAX));
    let Some((_, head)) = parked.next() else { return };
    let offsets: Vec<i64> = database
        .parked
        .iter()
        .filter(|((of, _), parking)| *of == partition && parking.key == head.key)
        .map(|((_, offset), _)| *offset)
        .collect();
    shop.settle(&mut lock(world), S::TOPIC, S::GROUP, head, &offsets);
}
