//! Who follows which order on this node: requests that wait for an outcome, and streams.
//!
//! The node's own tail of `order-events` only tells that an order has a newer version; what followers get is read from
//! the projection ([`crate::orders::follow`]), for many orders in one statement. An order whose version the tail missed is
//! found by a slow look at all followed orders.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain_types::OrderId;
use messaging::Record;
use schemas::{Envelope, OrderEvent};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::orders::model::Order;

/// How long the projection usually takes to apply what the tail has shown; doubled for each look that came too early.
const FIRST_LOOK_AFTER: Duration = Duration::from_millis(2);
/// How often an order is looked at that nobody woke.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most such looks per second: the more orders are followed, the rarer each is looked at.
const LOOKS_PER_SECOND: u32 = 2_000;
/// When orders are asked for again after the database failed.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Tells apart what was read before somebody began to follow from what was read after. Grows with each follower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// An order to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) order: OrderId,
    /// Only a newer version is news; 0 for somebody who just came and gets what there is.
    pub(crate) known_version: i64,
    ticket: Ticket,
}

/// What was read last; no order: there is none.
#[derive(Debug, Clone, Default)]
struct Seen {
    ticket: Ticket,
    order: Option<Arc<Order>>,
}

impl Seen {
    fn version(&self) -> i64 {
        self.order.as_ref().map_or(0, |order| order.version)
    }
}

/// A followed order.
#[derive(Debug)]
struct Followed {
    seen: watch::Sender<Seen>,
    followers: usize,
    /// Of the latest follower.
    ticket: Ticket,
    /// The newest version that the tail has shown.
    woken_version: i64,
    /// Looks that came before the projection had that version.
    early_looks: u32,
    /// When it is read; `None` while it is being read.
    due: Option<Instant>,
}

#[derive(Debug, Default)]
struct Registry {
    orders: HashMap<OrderId, Followed>,
    due: BTreeSet<(Instant, OrderId)>,
    last_ticket: Ticket,
}

#[derive(Debug, Default)]
struct Shared {
    registry: Mutex<Registry>,
    /// Something is due earlier than before.
    earlier: Notify,
}

/// Who follows what. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wakeups(Arc<Shared>);

/// One who follows an order. Holds no more than the newest version; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Following {
    wakeups: Wakeups,
    order: OrderId,
    ticket: Ticket,
    seen: watch::Receiver<Seen>,
}

impl Wakeups {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to follow; what changes from now on is not missed.
    pub(crate) fn follow(&self, order: OrderId) -> Following {
        let mut registry = self.lock();
        let ticket = Ticket(registry.last_ticket.0.saturating_add(1));
        registry.last_ticket = ticket;
        let followed = registry.orders.entry(order).or_insert_with(|| Followed {
            seen: watch::Sender::default(),
            followers: 0,
            ticket,
            woken_version: 0,
            early_looks: 0,
            due: None,
        });
        followed.followers += 1;
        followed.ticket = ticket;
        let seen = followed.seen.subscribe();
        if registry.schedule(order, Instant::now()) {
            self.0.earlier.notify_one();
        }
        drop(registry);
        Following { wakeups: self.clone(), order, ticket, seen }
    }

    /// Looks at a record of `order-events`.
    pub(crate) fn seen(&self, record: &Record) {
        let Some(order) = record.key_str().and_then(|key| key.parse::<OrderId>().ok()) else { return };
        if !self.lock().orders.contains_key(&order) {
            return;
        }
        let Ok(envelope) = Envelope::<OrderEvent>::decode(&record.value) else { return };
        let version = match envelope.message {
            OrderEvent::OrderPlaced(event) => event.version,
            OrderEvent::OrderChanged(event) => event.version,
        };
        self.woken(order, version);
    }

    fn woken(&self, order: OrderId, version: i64) {
        let mut registry = self.lock();
        let Some(followed) = registry.orders.get_mut(&order) else { return };
        if version <= followed.woken_version || version <= followed.seen.borrow().version() {
            return;
        }
        followed.woken_version = version;
        followed.early_looks = 0;
        let soon = Instant::now() + FIRST_LOOK_AFTER;
        // One that is being read, or will be sooner, needs nothing more.
        if followed.due.is_some_and(|due| due > soon) && registry.schedule(order, soon) {
            self.0.earlier.notify_one();
        }
    }

    /// Waits until orders are due and takes them, at most `limit`. Each must be given back to [`Wakeups::found`] or
    /// [`Wakeups::not_read`]. Cancelling the wait takes nothing.
    pub(crate) async fn due(&self, limit: usize) -> Vec<Wanted> {
        loop {
            let earlier = self.0.earlier.notified();
            let next = {
                let mut registry = self.lock();
                let due = registry.take_due(Instant::now(), limit);
                if !due.is_empty() {
                    return due;
                }
                registry.due.first().map(|(at, _)| *at)
            };
            match next {
                Some(at) => {
                    let _either = tokio::time::timeout_at(at, earlier).await;
                }
                None => earlier.await,
            }
        }
    }

    /// An order was read; `None`: nothing newer, or, for somebody new, there is no such order.
    pub(crate) fn found(&self, wanted: Wanted, order: Option<Order>) {
        let mut registry = self.lock();
        let pace = registry.pace();
        let Some(followed) = registry.orders.get_mut(&wanted.order) else { return };
        followed.seen.send_if_modified(|seen| {
            let is_answered = seen.ticket < wanted.ticket;
            seen.ticket = seen.ticket.max(wanted.ticket);
            // Of the same version, the later one knows more about requests without an answer.
            let newer = order.filter(|order| order.version >= seen.version());
            let is_news = newer.is_some();
            if let Some(newer) = newer {
                seen.order = Some(Arc::new(newer));
            }
            is_answered || is_news
        });
        let after = if followed.ticket > wanted.ticket {
            Duration::ZERO
        } else if followed.woken_version > followed.seen.borrow().version() {
            let doubled =
                FIRST_LOOK_AFTER.saturating_mul(1_u32.checked_shl(followed.early_looks).unwrap_or(u32::MAX));
            followed.early_looks = followed.early_looks.saturating_add(1).min(16);
            doubled.min(pace)
        } else {
            jittered(pace, wanted.order)
        };
        registry.schedule(wanted.order, Instant::now() + after);
    }

    /// An order could not be read; it is asked for again.
    pub(crate) fn not_read(&self, wanted: Wanted) {
        self.lock().schedule(wanted.order, Instant::now() + AFTER_FAILURE);
    }
}

impl Registry {
    /// Sets when an order is read next; tells whether it is now the first of all.
    fn schedule(&mut self, order: OrderId, at: Instant) -> bool {
        let Some(followed) = self.orders.get_mut(&order) else { return false };
        if let Some(before) = followed.due.replace(at) {
            self.due.remove(&(before, order));
        }
        self.due.insert((at, order));
        self.due.first() == Some(&(at, order))
    }

    fn take_due(&mut self, now: Instant, limit: usize) -> Vec<Wanted> {
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(&(at, order)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            let Some(followed) = self.orders.get_mut(&order) else { continue };
            followed.due = None;
            let seen = followed.seen.borrow();
            let known_version = if seen.ticket < followed.ticket { 0 } else { seen.version() };
            taken.push(Wanted { order, known_version, ticket: followed.ticket });
        }
        taken
    }

    /// Between two looks at an order that nobody woke.
    fn pace(&self) -> Duration {
        let orders = u32::try_from(self.orders.len()).unwrap_or(u32::MAX);
        LOOK_EVERY.max(LOOK_EVERY.saturating_mul(orders) / LOOKS_PER_SECOND)
    }

    fn leave(&mut self, order: OrderId) {
        let Some(followed) = self.orders.get_mut(&order) else { return };
        followed.followers = followed.followers.saturating_sub(1);
        if followed.followers == 0
            && let Some(gone) = self.orders.remove(&order)
            && let Some(due) = gone.due
        {
            self.due.remove(&(due, order));
        }
    }
}

/// From three to five quarters of it, by the order's id: orders that came together are not looked at together for ever.
fn jittered(pace: Duration, order: OrderId) -> Duration {
    let part = u32::from(order.uuid().as_bytes()[15]);
    pace * 3 / 4 + pace * part / 510
}

impl Following {
    /// The order that is followed.
    pub(crate) const fn order(&self) -> OrderId {
        self.order
    }

    /// What was read last since this one came.
    pub(crate) fn newest(&self) -> Option<Arc<Order>> {
        let seen = self.seen.borrow();
        seen.order.clone().filter(|_| seen.ticket >= self.ticket)
    }

    /// The order as it is now, or later; `None` if there is none. Waits as long as the database is away.
    pub(crate) async fn present(&mut self) -> Option<Arc<Order>> {
        let ticket = self.ticket;
        match self.seen.wait_for(|seen| seen.ticket >= ticket).await {
            Ok(seen) => seen.order.clone(),
            Err(_never_while_it_is_followed) => None,
        }
    }

    /// The newest version of the order, as soon as this holds for it. Waits for ever if it never does.
    pub(crate) async fn until(&mut self, holds: impl Fn(&Order) -> bool) -> Arc<Order> {
        // What was read for somebody else, before this one came, is not news.
        let ticket = self.ticket;
        let holds = |seen: &Seen| seen.ticket >= ticket && seen.order.as_deref().is_some_and(&holds);
        if let Ok(seen) = self.seen.wait_for(holds).await
            && let Some(order) = &seen.order
        {
            return Arc::clone(order);
        }
        std::future::pending().await
    }

    /// A newer version than that, as soon as there is one.
    pub(crate) async fn newer(&mut self, version: i64) -> Arc<Order> {
        self.until(|order| order.version > version).await
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.wakeups.lock().leave(self.order);
    }
}

#[cfg(test)]
mod tests {
    use schemas::{OrderPlaced, OrderState};
    use uuid::Uuid;

    use super::*;

    fn order(id: OrderId, version: i64) -> Order {
        let event = OrderPlaced {
            version,
            customer_id: domain_types::CustomerId(Uuid::nil()),
            state: OrderState::Reserving,
            reason: None,
            is_final: false,
            lines: Vec::new(),
            total: domain_types::Money::new(0, domain_types::Currency::KRW),
            pay_before: None,
            at: domain_types::Timestamp::from_millis(0),
        };
        Order::placed(id, &event).unwrap()
    }

    async fn only_due(wakeups: &Wakeups) -> Wanted {
        let due = wakeups.due(10).await;
        assert_eq!(due.len(), 1);
        due[0]
    }

    #[tokio::test]
    async fn what_was_being_read_when_somebody_came_is_not_what_they_get() {
        let (wakeups, id) = (Wakeups::default(), OrderId(Uuid::now_v7()));
        let mut first = wakeups.follow(id);
        let reading = only_due(&wakeups).await;
        let mut second = wakeups.follow(id);
        wakeups.found(reading, None);
        assert_eq!(first.present().await, None);
        assert_eq!(second.newest(), None);
        let again = only_due(&wakeups).await;
        assert_eq!(again.known_version, 0);
        wakeups.found(again, Some(order(id, 2)));
        assert_eq!(second.present().await.unwrap().version, 2);
    }

    #[tokio::test]
    async fn a_version_never_goes_back_and_is_told_once() {
        let (wakeups, id) = (Wakeups::default(), OrderId(Uuid::now_v7()));
        let mut following = wakeups.follow(id);
        let wanted = only_due(&wakeups).await;
        wakeups.found(wanted, Some(order(id, 5)));
        wakeups.found(wanted, Some(order(id, 3)));
        assert_eq!(following.present().await.unwrap().version, 5);
        let newer = tokio::time::timeout(Duration::from_millis(50), following.newer(5)).await;
        assert!(newer.is_err(), "{newer:?}");
    }

    #[tokio::test]
    async fn a_woken_order_is_read_until_the_projection_has_the_version() {
        let (wakeups, id) = (Wakeups::default(), OrderId(Uuid::now_v7()));
        let mut following = wakeups.follow(id);
        wakeups.found(only_due(&wakeups).await, Some(order(id, 2)));
        wakeups.woken(id, 4);
        for found in [None, Some(order(id, 3)), None] {
            let early = tokio::time::timeout(LOOK_EVERY / 4, only_due(&wakeups)).await.unwrap();
            wakeups.found(early, found);
        }
        let wanted = tokio::time::timeout(LOOK_EVERY / 4, only_due(&wakeups)).await.unwrap();
        assert_eq!(wanted.known_version, 3);
        wakeups.found(wanted, Some(order(id, 4)));
        assert_eq!(following.newer(3).await.version, 4);
        let quiet = tokio::time::timeout(LOOK_EVERY / 2, wakeups.due(10)).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }

    #[tokio::test]
    async fn nothing_is_left_when_the_last_follower_is_gone() {
        let (wakeups, id) = (Wakeups::default(), OrderId(Uuid::now_v7()));
        let (one, two) = (wakeups.follow(id), wakeups.follow(id));
        let wanted = only_due(&wakeups).await;
        drop(one);
        wakeups.found(wanted, Some(order(id, 2)));
        assert!(two.newest().is_some());
        drop(two);
        wakeups.woken(id, 3);
        wakeups.not_read(wanted);
        let registry = wakeups.lock();
        assert!(registry.orders.is_empty() && registry.due.is_empty());
    }

    #[test]
    fn the_more_orders_are_followed_the_rarer_each_is_looked_at() {
        let wakeups = Wakeups::default();
        let following: Vec<_> = (0..6_000).map(|_| wakeups.follow(OrderId(Uuid::new_v4()))).collect();
        assert_eq!(wakeups.lock().pace(), LOOK_EVERY * 3);
        drop(following);
        assert_eq!(wakeups.lock().pace(), LOOK_EVERY);
    }
}
