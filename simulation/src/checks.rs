//! What must hold once everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use domain_types::{Attempt, OrderId};
use payment_domain::{Charge, ChargeState, MovementKind, PaymentRecord};
use saga::{Event, PaymentStage, Saga, evolve};
use schemas::{Envelope, Message, OrderSagaMessage, OrderState, StockLevelMessage, Topic};
use stock_domain::{HoldKey, HoldStatus, Item};

use crate::database::Database;
use crate::fleet::Fleet;
use crate::ports::Service;
use crate::provider::Entry;
use crate::schedule::Sim;
use crate::world::{PARTITIONS, World, lock};

/// Checks everything; what is wrong becomes a violation.
pub(crate) fn all(sim: &mut Sim) {
    let mut wrong = Vec::new();
    effects_once(&sim.orchestrator, &mut wrong);
    effects_once(&sim.stock, &mut wrong);
    effects_once(&sim.payment, &mut wrong);
    orders(sim, &mut wrong);
    histories(sim, &mut wrong);
    ledgers(sim, &mut wrong);
    levels(sim, &mut wrong);
    units(sim, &mut wrong);
    money(sim, &mut wrong);
    let mut world = lock(&sim.world);
    for what in wrong {
        world.violate(what);
    }
}

/// Every record was applied (or was poison), every committed output is in the log, at first in order.
fn effects_once<S: Service>(fleet: &Fleet<S>, wrong: &mut Vec<String>) {
    let world = fleet.world();
    let (world, database) = (lock(&world), lock(&fleet.database));
    for partition in 0..PARTITIONS {
        let Some(log) = world.logs.get(&(S::TOPIC, partition)) else { continue };
        for record in &log.records {
            let offset = record.offset.0;
            let applied = database.applied.get(&partition);
            let was_applied = applied.is_some_and(|applied| applied.offsets.contains(&offset));
            let was_dropped = applied.is_some_and(|applied| applied.dropped.contains(&offset));
            let place = (S::TOPIC, partition, offset);
            let poison = world.poison.contains(&place) || world.discarded.contains(&place);
            if !(record.is_control() || was_applied || (was_dropped && poison)) {
                wrong.push(format!("{}: the record at {partition}@{offset} was never applied", S::GROUP));
            }
        }
    }
    outputs(&database, &world, S::GROUP, wrong);
}

fn outputs<T>(database: &Database<T>, world: &World, group: &str, wrong: &mut Vec<String>) {
    let mut last: BTreeMap<(u64, i32), i64> = BTreeMap::new();
    let mut seen = std::collections::HashSet::new();
    for (index, (content, lane)) in database.committed.iter().enumerate() {
        if !seen.insert(*content) {
            continue;
        }
        let Some((partition, offset)) = world.published.get(content).copied() else {
            wrong.push(format!("{group}: committed output {index} was never published"));
            continue;
        };
        // After a restore, outputs of the former life of the database are in the log already.
        if database.restored == 0
            && let Some(before) = last.insert((*lane, partition), offset)
            && before > offset
        {
            wrong.push(format!(
                "{group}: committed output {index} came out of order: {offset} behind {before}"
            ));
        }
    }
}

/// Every order that reached the log has a saga, which is final.
fn orders(sim: &Sim, wrong: &mut Vec<String>) {
    let database = lock(&sim.orchestrator.database);
    for order in &sim.shop.orders {
        let row = database.tables.sagas.iter().find(|((_, order_id), _)| *order_id == order.order_id);
        match row {
            None => wrong.push(format!("order {} has no saga", order.order_id)),
            Some((_, row)) if !row.saga.is_final() => {
                wrong.push(format!("order {} is {:?}", order.order_id, row.saga.state));
            }
            Some(_) => {}
        }
    }
}

/// The stored saga is what its history folds to; no reply to a replaced attempt led to anything.
fn histories(sim: &Sim, wrong: &mut Vec<String>) {
    let payment_restored = lock(&sim.payment.database).restored;
    let (world, database) = (lock(&sim.world), lock(&sim.orchestrator.database));
    let mut folded: BTreeMap<OrderId, Option<Saga>> = BTreeMap::new();
    let history = database.tables.history.iter();
    let entries =
        history.flat_map(|((partition, _), entries)| entries.iter().map(move |entry| (*partition, entry)));
    for (partition, entry) in entries {
        let offset = entry.offset;
        let saga = folded.entry(entry.order_id).or_default();
        if let (Some(record), Some(before)) =
            (world.record(Topic::OrderSaga, partition, offset), saga.as_ref())
            && let Ok(envelope) = Envelope::<OrderSagaMessage>::decode(&record.value)
            && is_stale(before, &envelope.message)
        {
            let what = envelope.message.type_name();
            wrong.push(format!("order {}: {what} of a replaced attempt was not ignored", entry.order_id));
        }
        let was_closed =
            saga.as_ref().and_then(|saga| saga.payment.as_ref()).is_some_and(|payment| match payment.stage {
                PaymentStage::Closed => true,
                PaymentStage::Chosen
                | PaymentStage::Charging
                | PaymentStage::Approved
                | PaymentStage::Declined(_)
                | PaymentStage::Closing
                | PaymentStage::Refunding
                | PaymentStage::Refunded => false,
            });
        let is_approved = entry.events.iter().any(|event| matches!(event, Event::Approved { .. }));
        // A restored payment database has forgotten what it said.
        if was_closed && is_approved && payment_restored == 0 {
            wrong.push(format!("order {} was charged after its charge was closed", entry.order_id));
        }
        *saga = entry.events.iter().fold(saga.take(), |saga, event| evolve(saga, entry.now, event));
    }
    for ((_, order_id), row) in &database.tables.sagas {
        if folded.get(order_id).and_then(Option::as_ref) != Some(&row.saga) {
            wrong.push(format!("order {order_id} is not what its history says"));
        }
    }
}

fn is_stale(saga: &Saga, message: &OrderSagaMessage) -> bool {
    let line = |number, attempt: Attempt| saga.line(number).is_some_and(|line| line.attempt != attempt);
    match message {
        OrderSagaMessage::StockConfirmed(reply) => line(reply.line, reply.attempt),
        OrderSagaMessage::StockReleased(reply) => line(reply.line, reply.attempt),
        OrderSagaMessage::StockRestocked(reply) => line(reply.line, reply.attempt),
        OrderSagaMessage::StockRefused(reply) => line(reply.line, reply.attempt),
        OrderSagaMessage::StockCommandFailed(reply) => line(reply.line, reply.attempt),
        _ => false,
    }
}

/// Units are conserved at each entry, and the item is what its ledger folds to.
fn ledgers(sim: &Sim, wrong: &mut Vec<String>) {
    let database = lock(&sim.stock.database);
    for ((partition, sku), entries) in &database.tables.ledger {
        let mut item: Option<Item> = None;
        for entry in entries {
            match Item::evolve(item.take(), sku, entry) {
                Ok(after) => item = Some(after),
                Err(error) => return wrong.push(format!("the ledger of {sku}: {error}")),
            }
        }
        let stored = database.tables.items.get(&(*partition, sku.clone()));
        if item.as_ref() != stored {
            wrong.push(format!("{sku} is not what its ledger says"));
        }
        if stored.is_some_and(|item| item.held != 0) {
            wrong.push(format!("{sku} still has held units"));
        }
    }
}

/// The last level of each product in the topic is the present one.
fn levels(sim: &Sim, wrong: &mut Vec<String>) {
    let (world, database) = (lock(&sim.world), lock(&sim.stock.database));
    for ((partition, sku), item) in &database.tables.items {
        let last = world.logs.get(&(Topic::StockLevels, *partition)).and_then(|log| {
            let of_sku = |record: &&messaging::Record| record.key_str() == Some(sku.as_str());
            log.records.iter().rev().find(of_sku)
        });
        let version = last.and_then(|record| Envelope::<StockLevelMessage>::decode(&record.value).ok()).map(
            |envelope| {
                let StockLevelMessage::StockLevel(level) = envelope.message;
                level.version
            },
        );
        if version != Some(item.version) {
            wrong.push(format!("the last level of {sku} is {version:?}, it has version {}", item.version));
        }
    }
}

fn keeps_goods(state: OrderState) -> bool {
    state == OrderState::Delivered
}

/// Each order's units are where its state says, and no others are taken.
fn units(sim: &Sim, wrong: &mut Vec<String>) {
    let (sagas, stock) = (lock(&sim.orchestrator.database), lock(&sim.stock.database));
    for ((_, key), hold) in &stock.tables.holds {
        let saga = sagas.tables.sagas.iter().find(|((_, order_id), _)| *order_id == key.order_id);
        let sold = match hold.status {
            HoldStatus::Held => {
                wrong.push(format!("order {} line {} still holds units", key.order_id, key.line));
                false
            }
            HoldStatus::Sold { .. } => true,
            HoldStatus::Released { .. }
            | HoldStatus::Restocked { .. }
            | HoldStatus::Refused { .. }
            | HoldStatus::Tombstone => false,
        };
        let kept = saga.is_some_and(|(_, row)| keeps_goods(row.saga.state));
        if sold != kept {
            wrong.push(format!("order {} line {}: sold {sold}, kept {kept}", key.order_id, key.line));
        }
    }
    for ((_, order_id), row) in &sagas.tables.sagas {
        for (number, line) in (0u8..).zip(&row.saga.lines) {
            let key = HoldKey { order_id: *order_id, line: domain_types::LineNumber(number) };
            let hold = stock.tables.holds.iter().find(|((_, of), _)| *of == key);
            let sold = hold.is_some_and(|(_, hold)| {
                matches!(hold.status, HoldStatus::Sold { .. })
                    && hold.asked.is_some_and(|asked| asked.units == line.quantity)
            });
            if keeps_goods(row.saga.state) && !sold {
                wrong.push(format!("order {order_id} line {number} was delivered and never sold"));
            }
        }
    }
}

/// Each order is charged once at most, refunded once at most, and the books agree.
fn money(sim: &Sim, wrong: &mut Vec<String>) {
    let (world, sagas, payment) =
        (lock(&sim.world), lock(&sim.orchestrator.database), lock(&sim.payment.database));
    let mut book: BTreeMap<OrderId, [i64; 4]> = BTreeMap::new();
    for (order_id, entry) in world.book.charges.values() {
        if let Entry::Charged { amount, .. } = entry {
            let [charges, charged, ..] = book.entry(*order_id).or_default();
            *charges += 1;
            *charged += amount.amount;
        }
    }
    for (order_id, amount) in world.book.refunds.values() {
        let [_, _, refunds, refunded] = book.entry(*order_id).or_default();
        *refunds += 1;
        *refunded += amount.amount;
    }
    let mut moved: BTreeMap<OrderId, [i64; 4]> = BTreeMap::new();
    for movement in payment.tables.movements.values().flatten() {
        let [charges, charged, refunds, refunded] = moved.entry(movement.order_id).or_default();
        match movement.kind {
            MovementKind::Charged => (*charges, *charged) = (*charges + 1, *charged + movement.amount.amount),
            MovementKind::Refunded => {
                (*refunds, *refunded) = (*refunds + 1, *refunded + movement.amount.amount)
            }
        }
    }
    let charged_orders: BTreeSet<OrderId> = book.keys().copied().collect();
    for (order_id, theirs) in &book {
        let [charges, charged, refunds, refunded] = *theirs;
        if charges > 1 || refunds > 1 {
            wrong.push(format!("order {order_id} was charged {charges} times and refunded {refunds} times"));
        }
        let saga = sagas.tables.sagas.iter().find(|((_, of), _)| of == order_id).map(|(_, row)| &row.saga);
        let owed = saga.filter(|saga| keeps_goods(saga.state)).map_or(0, |saga| saga.amount.amount);
        if charged - refunded != owed {
            wrong.push(format!("order {order_id}: the provider has {}, owed is {owed}", charged - refunded));
        }
    }
    // What the worker has given up to an operator is not in its ledger.
    let given_up = payment.tables.charges.iter().filter_map(|((_, order_id), record)| match record {
        PaymentRecord::Charge(Charge { state: ChargeState::Failed { .. }, .. }) => Some(*order_id),
        PaymentRecord::Charge(_) | PaymentRecord::Barred { .. } => None,
    });
    for order_id in given_up {
        book.remove(&order_id);
        moved.remove(&order_id);
    }
    if book != moved {
        wrong.push(format!("the provider's book {book:?} is not the ledger {moved:?}"));
    }
    for ((_, order_id), row) in &sagas.tables.sagas {
        if keeps_goods(row.saga.state) && !charged_orders.contains(order_id) {
            wrong.push(format!("order {order_id} was delivered and never charged"));
        }
    }
}
