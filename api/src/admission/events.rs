//! `order-events` into the counts: which lines are held, which have no units any more, which orders ended without.
//!
//! A consumer of its own, so that the projection never waits for Redis. Its only effects are in Redis and by order id:
//! applying a batch again changes nothing, so it may happen before the commit that moves the position. While Redis is
//! away the batch is tried again, and nothing is missed.

use std::collections::{BTreeMap, HashSet};

use domain_types::{CustomerId, LineNumber, OrderId, Sku};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use messaging::{Handler, HandlerError, HandlerFactory, Outputs, Ownership, Received, Record, Tx};
use schemas::{DecodeError, Envelope, OrderChanged, OrderEvent, OrderedLine, Ticket};

use super::scripts::{self, Settled, What};
use super::store::{self, keeps_units};
use super::{Levels, Redis, RedisAway};
use crate::orders::model::Order;
use crate::remembered::Remembered;

/// Most orders that a partition's owner remembers; others are looked up.
const MAX_REMEMBERED: usize = 50_000;
/// Most events of one script: Redis does nothing else meanwhile.
const MAX_EVENTS: usize = 100;
/// Scripts under way at the same time.
const AT_ONCE: usize = 64;

/// The projection has not come as far as this consumer.
#[derive(Debug, thiserror::Error)]
#[error("the projection does not know order {0} yet")]
struct NotProjected(OrderId);

/// Makes the handler of a partition of `order-events`.
#[derive(Debug, Clone)]
pub(crate) struct Settlements {
    pub(super) redis: Redis,
    pub(super) levels: Levels,
}

/// Applies the events of one partition.
#[derive(Debug)]
pub(crate) struct SettlementsHandler {
    redis: Redis,
    levels: Levels,
    /// What later events do not repeat.
    orders: Remembered<Facts>,
}

#[derive(Debug)]
struct Facts {
    customer_id: CustomerId,
    lines: Vec<(Sku, u32, Option<Ticket>)>,
}

impl From<&Order> for Facts {
    fn from(order: &Order) -> Self {
        // The tickets are not told twice: scripts know the orders that have one.
        let lines = order.lines.iter().map(|line| (line.sku.clone(), line.quantity.get(), None)).collect();
        Self { customer_id: order.customer_id, lines }
    }
}

impl HandlerFactory for Settlements {
    type Handler = SettlementsHandler;

    async fn take_over(&self, _ownership: Ownership) -> Result<SettlementsHandler, HandlerError> {
        Ok(SettlementsHandler {
            redis: self.redis.clone(),
            levels: self.levels.clone(),
            orders: Remembered::new(MAX_REMEMBERED),
        })
    }
}

impl Handler for SettlementsHandler {
    type Input = Option<Envelope<OrderEvent>>;

    /// An unreadable event is the projection's to park: here it is only a hint that is missed.
    fn decode(&self, record: &Record) -> Result<Self::Input, DecodeError> {
        Ok(Envelope::decode(&record.value).ok())
    }

    async fn handle(
        &mut self,
        tx: &mut Tx,
        batch: &[Received<Self::Input>],
        _outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        let events: Vec<(OrderId, &OrderEvent)> = batch
            .iter()
            .filter_map(|received| received.input.as_ref())
            .filter_map(|envelope| Some((envelope.order_id?, &envelope.message)))
            .collect();
        self.remember(tx, &events).await?;
        let mut by_sku: BTreeMap<Sku, Vec<Settled>> = BTreeMap::new();
        for (id, event) in &events {
            if let Some(facts) = self.orders.get(*id) {
                for (sku, settled) in settlements(*id, facts, event) {
                    by_sku.entry(sku).or_default().push(settled);
                }
            }
            if ended(event).is_some_and(|keeps| !keeps) {
                self.orders.take(*id);
            }
        }
        let this = &*self;
        stream::iter(together(by_sku, self.redis.is_cluster()))
            .map(async |skus| this.settle(&skus).await)
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await
            .map_err(HandlerError::transient)?;
        Ok(())
    }
}

impl SettlementsHandler {
    /// Makes sure that the orders are known whose events need more than they say.
    async fn remember(&mut self, tx: &mut Tx, events: &[(OrderId, &OrderEvent)]) -> Result<(), HandlerError> {
        let mut wanted = HashSet::new();
        for (id, event) in events {
            match event {
                OrderEvent::OrderPlaced(placed) => {
                    let line = |line: &OrderedLine| (line.sku.clone(), line.quantity.get(), line.ticket);
                    let lines = placed.lines.iter().map(line).collect();
                    let facts = Facts { customer_id: placed.customer_id, lines };
                    self.orders.put(*id, facts);
                    wanted.remove(id);
                }
                OrderEvent::OrderChanged(changed) => {
                    if matters(changed) && !self.orders.renew(*id) {
                        wanted.insert(*id);
                    }
                }
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let ids: Vec<OrderId> = wanted.iter().copied().collect();
        for order in store::projected(tx.reader().await?, &ids).await? {
            self.orders.put(order.id, Facts::from(&order));
            wanted.remove(&order.id);
        }
        match wanted.into_iter().next() {
            Some(missing) => Err(HandlerError::transient(NotProjected(missing))),
            None => Ok(()),
        }
    }

    /// Of a sku with more events than a script takes, one part after the other.
    async fn settle(&self, skus: &[(Sku, Vec<Settled>)]) -> Result<(), RedisAway> {
        for part in 0.. {
            let events =
                skus.iter().filter_map(|(sku, events)| Some((sku, events.chunks(MAX_EVENTS).nth(part)?)));
            let events: Vec<(&Sku, &[Settled])> = events.collect();
            if events.is_empty() {
                break;
            }
            for unknown in scripts::settle(&self.redis, &events).await? {
                let Some((sku, events)) = events.get(unknown) else { continue };
                if self.levels.feed(&self.redis, sku).await? {
                    scripts::settle(&self.redis, &[(sku, events)]).await?;
                }
            }
        }
        Ok(())
    }
}

/// Skus whose events go to Redis together: each call costs more than the events in it.
fn together(by_sku: BTreeMap<Sku, Vec<Settled>>, is_cluster: bool) -> Vec<Vec<(Sku, Vec<Settled>)>> {
    let mut all: Vec<Vec<(Sku, Vec<Settled>)>> = Vec::new();
    let mut room = 0;
    for (sku, events) in by_sku {
        match all.last_mut() {
            Some(last) if events.len() <= room && !is_cluster => {
                room -= events.len();
                last.push((sku, events));
            }
            _ => {
                room = MAX_EVENTS.saturating_sub(events.len());
                all.push(vec![(sku, events)]);
            }
        }
    }
    all
}

/// Whether an event ends its order, and if so whether the order keeps units.
fn ended(event: &OrderEvent) -> Option<bool> {
    let (is_final, state) = match event {
        OrderEvent::OrderPlaced(event) => (event.is_final, event.state),
        OrderEvent::OrderChanged(event) => (event.is_final, event.state),
    };
    is_final.then(|| keeps_units(state))
}

fn matters(event: &OrderChanged) -> bool {
    !event.stock.is_empty() || (event.is_final && !keeps_units(event.state))
}

/// What an event means for the lines of its order.
fn settlements(id: OrderId, facts: &Facts, event: &OrderEvent) -> Vec<(Sku, Settled)> {
    let settled = |line: &(Sku, u32, Option<Ticket>), what| {
        let (sku, units, ticket) = line;
        let customer_id = facts.customer_id;
        (sku.clone(), Settled { order_id: id, customer_id, units: *units, ticket: *ticket, what })
    };
    let mut all = Vec::new();
    if let OrderEvent::OrderChanged(event) = event {
        for stock in &event.stock {
            let LineNumber(number) = stock.line;
            let Some(line) = facts.lines.get(usize::from(number)) else { continue };
            let stock_version = stock.stock_version;
            all.push(settled(line, if stock.held { What::Held { stock_version } } else { What::Back }));
        }
    }
    if ended(event) == Some(false) {
        all.extend(facts.lines.iter().map(|line| settled(line, What::Ended)));
    }
    all
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn skus_go_together_while_there_is_room_and_alone_in_a_cluster() {
        let event = Settled {
            order_id: OrderId(Uuid::nil()),
            customer_id: CustomerId(Uuid::nil()),
            units: 1,
            ticket: None,
            what: What::Back,
        };
        let of = |name: &str, events| (Sku::new(name).unwrap(), vec![event.clone(); events]);
        let by_sku = || BTreeMap::from([of("A", 60), of("B", 40), of("C", 1), of("D", 250), of("E", 1)]);
        let names = |all: Vec<Vec<(Sku, Vec<Settled>)>>| -> Vec<String> {
            all.iter().map(|skus| skus.iter().map(|(sku, _)| sku.as_str()).collect()).collect()
        };
        assert_eq!(names(together(by_sku(), false)), ["AB", "C", "D", "E"]);
        assert_eq!(names(together(by_sku(), true)), ["A", "B", "C", "D", "E"]);
    }
}
