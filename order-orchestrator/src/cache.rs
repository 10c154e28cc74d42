//! Sagas in memory. Those whose history is ahead of their row are kept until they are saved; others as long as there is room.
//! The fence makes it safe: nobody else changes a saga.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};

use domain_types::{OrderId, Timestamp};
use saga::Saga;

use crate::history::{HistoryEntry, HistorySeq};
use crate::store::StoredSaga;

/// A saga whose history is ahead of its row.
#[derive(Debug)]
pub struct Unsaved {
    /// As it is now.
    pub saga: Saga,
    /// It has no row yet.
    pub is_new: bool,
    /// The history that its row lacks, in order.
    pub journal: Vec<HistorySeq>,
    /// When it went ahead of its row, by this machine's clock.
    since: Timestamp,
}

/// Sagas of former batches. Clean ones are in two generations: what was not used while the younger one filled up is
/// forgotten.
#[derive(Debug)]
pub(crate) struct Cache {
    unsaved: HashMap<OrderId, Unsaved>,
    /// The unsaved ones, longest ahead of their row first. What does not name the first entry of its journal was saved since.
    queue: VecDeque<(HistorySeq, OrderId)>,
    young: HashMap<OrderId, Saga>,
    old: HashMap<OrderId, Saga>,
    /// The most clean sagas of one generation.
    generation_sagas: usize,
}

/// A saga to decide on.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) saga: Saga,
    /// It has a row.
    pub(crate) is_stored: bool,
}

impl Cache {
    /// Keeps at most `sagas` clean ones.
    pub(crate) fn new(sagas: usize) -> Self {
        Self {
            unsaved: HashMap::new(),
            queue: VecDeque::new(),
            young: HashMap::new(),
            old: HashMap::new(),
            generation_sagas: sagas / 2,
        }
    }

    /// What the predecessor had recorded and not saved, folded again.
    pub(crate) fn recover(
        &mut self,
        rows: Vec<StoredSaga>,
        history: Vec<(HistorySeq, Vec<HistoryEntry>)>,
        now: Timestamp,
    ) {
        let mut rows: HashMap<OrderId, StoredSaga> =
            rows.into_iter().map(|row| (row.order_id, row)).collect();
        for (seq, entries) in history {
            for entry in entries {
                let order_id = entry.order_id;
                if rows.get(&order_id).is_some_and(|row| row.seq >= seq) {
                    continue;
                }
                let row = rows.remove(&order_id).map(|row| Known { saga: row.saga, is_stored: true });
                let before = self.take(order_id).or(row);
                let is_stored = before.as_ref().is_some_and(|known| known.is_stored);
                if let Some(saga) = entry.fold(before.map(|known| known.saga)) {
                    self.changed(order_id, saga, is_stored, seq, now);
                }
            }
        }
    }

    /// A saga as it is now. A clean one is handed out and not here until it is put back; of an unsaved one it is a copy.
    pub(crate) fn take(&mut self, order_id: OrderId) -> Option<Known> {
        if let Some(unsaved) = self.unsaved.get(&order_id) {
            return Some(Known { saga: unsaved.saga.clone(), is_stored: !unsaved.is_new });
        }
        let clean = self.young.remove(&order_id).or_else(|| self.old.remove(&order_id));
        clean.map(|saga| Known { saga, is_stored: true })
    }

    /// Keeps a saga as its row has it. One that is final is not kept: hardly anybody asks for it again.
    pub(crate) fn put(&mut self, order_id: OrderId, saga: Saga) {
        if saga.is_final() || self.generation_sagas == 0 || self.unsaved.contains_key(&order_id) {
            return;
        }
        if self.young.len() >= self.generation_sagas {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(order_id, saga);
    }

    /// Keeps a saga that the history `seq` has changed, until it is saved.
    pub(crate) fn changed(
        &mut self,
        order_id: OrderId,
        saga: Saga,
        is_stored: bool,
        seq: HistorySeq,
        now: Timestamp,
    ) {
        match self.unsaved.entry(order_id) {
            Entry::Occupied(mut entry) => {
                let unsaved = entry.get_mut();
                unsaved.saga = saga;
                if unsaved.journal.last() != Some(&seq) {
                    unsaved.journal.push(seq);
                }
            }
            Entry::Vacant(entry) => {
                entry.insert(Unsaved { saga, is_new: !is_stored, journal: vec![seq], since: now });
                self.queue.push_back((seq, order_id));
            }
        }
    }

    /// When the saga that is longest ahead of its row went ahead of it.
    pub(crate) fn unsaved_since(&self) -> Option<Timestamp> {
        self.in_line().next().map(|(_, unsaved)| unsaved.since)
    }

    pub(crate) fn unsaved_len(&self) -> usize {
        self.unsaved.len()
    }

    /// The sagas to save now: the first `limit` that have been ahead of their rows since `before`, and those whose timer is
    /// due by `due_by`.
    pub(crate) fn to_save(
        &self,
        before: Timestamp,
        limit: usize,
        due_by: Option<Timestamp>,
    ) -> BTreeSet<OrderId> {
        let aged = self.in_line().take(limit).take_while(|(_, unsaved)| unsaved.since <= before);
        let mut orders: BTreeSet<OrderId> = aged.map(|(order_id, _)| order_id).collect();
        if let Some(due_by) = due_by {
            let is_due = |unsaved: &Unsaved| unsaved.saga.timer.is_some_and(|timer| timer.due_at <= due_by);
            let due = self.unsaved.iter().filter(|(_, unsaved)| is_due(unsaved));
            orders.extend(due.map(|(order_id, _)| *order_id));
        }
        orders
    }

    pub(crate) fn unsaved(&self, order_id: OrderId) -> Option<&Unsaved> {
        self.unsaved.get(&order_id)
    }

    /// Once `saved` are saved, rows lack nothing before this.
    pub(crate) fn first_unsaved_without(&self, saved: &BTreeSet<OrderId>) -> Option<HistorySeq> {
        let mut left = self.in_line().filter(|(order_id, _)| !saved.contains(order_id));
        left.next().and_then(|(_, unsaved)| unsaved.journal.first().copied())
    }

    /// The earliest timer of the sagas that are not saved.
    pub(crate) fn earliest_timer_without(&self, saved: &BTreeSet<OrderId>) -> Option<Timestamp> {
        let left = self.unsaved.iter().filter(|(order_id, _)| !saved.contains(order_id));
        left.filter_map(|(_, unsaved)| unsaved.saga.timer.map(|timer| timer.due_at)).min()
    }

    /// These are saved, as they are here.
    pub(crate) fn saved(&mut self, orders: impl IntoIterator<Item = OrderId>) {
        for order_id in orders {
            if let Some(unsaved) = self.unsaved.remove(&order_id) {
                self.put(order_id, unsaved.saga);
            }
        }
        while let Some((seq, order_id)) = self.queue.front()
            && !self.stands(*seq, order_id)
        {
            self.queue.pop_front();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.unsaved.len() + self.young.len() + self.old.len()
    }

    fn stands(&self, seq: HistorySeq, order_id: &OrderId) -> bool {
        self.unsaved.get(order_id).is_some_and(|unsaved| unsaved.journal.first() == Some(&seq))
    }

    fn in_line(&self) -> impl Iterator<Item = (OrderId, &Unsaved)> {
        self.queue.iter().filter_map(|(seq, order_id)| {
            let unsaved = self.unsaved.get(order_id)?;
            (unsaved.journal.first() == Some(seq)).then_some((*order_id, unsaved))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain_types::{Currency, CustomerId, Money, Quantity, Sku};
    use saga::{Decision, decide, evolve};
    use schemas::{OrderSagaMessage, OrderedLine, PlaceOrder, StockReserved};
    use uuid::Uuid;

    use super::*;

    const ORDER: OrderId = OrderId(Uuid::from_u128(1));
    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn place() -> OrderSagaMessage {
        let line = OrderedLine {
            sku: Sku::new("A").unwrap(),
            name: "A".into(),
            option: None,
            unit_price: Money::new(1, Currency::KRW),
            quantity: Quantity::new(1).unwrap(),
            product_version: 1,
            ticket: None,
        };
        let place = PlaceOrder {
            customer_id: CustomerId(Uuid::from_u128(2)),
            lines: vec![line],
            payment_method: None,
            fingerprint: "f".into(),
            publish_before: Timestamp::from_millis(i64::MAX),
            policy: None,
            definition: 1,
        };
        place.into()
    }

    fn reserved() -> OrderSagaMessage {
        let (line, attempt) = (domain_types::LineNumber(0), domain_types::Attempt::FIRST);
        StockReserved { line, attempt, stock_version: 7 }.into()
    }

    fn step(saga: Option<Saga>, offset: i64, input: &OrderSagaMessage) -> (HistoryEntry, Saga) {
        let Decision::Advance(advance) = decide(saga.as_ref(), input, NOW) else { panic!("no advance") };
        let after = advance.events.iter().fold(saga, |saga, event| evolve(saga, advance.now, event)).unwrap();
        let (now, events) = (advance.now, advance.events);
        (HistoryEntry { offset, order_id: ORDER, rule: String::new(), trace_id: None, now, events }, after)
    }

    #[test]
    fn a_new_owner_folds_what_rows_lack_and_nothing_twice() {
        let (placed, first) = step(None, 10, &place());
        let (held, second) = step(Some(first.clone()), 11, &reserved());
        let history = vec![(HistorySeq(4), vec![placed]), (HistorySeq(5), vec![held])];
        let row = |saga: &Saga, seq| StoredSaga { order_id: ORDER, saga: saga.clone(), seq: HistorySeq(seq) };
        for (rows, journal, is_new) in [
            (vec![], vec![HistorySeq(4), HistorySeq(5)], true),
            (vec![row(&first, 4)], vec![HistorySeq(5)], false),
        ] {
            let mut cache = Cache::new(10);
            cache.recover(rows, history.clone(), NOW);
            let unsaved = cache.unsaved(ORDER).unwrap();
            assert_eq!((&unsaved.saga, &unsaved.journal, unsaved.is_new), (&second, &journal, is_new));
        }
        let mut cache = Cache::new(10);
        cache.recover(vec![row(&second, 5)], history, NOW);
        assert!(cache.unsaved(ORDER).is_none(), "its row has everything");
    }

    #[test]
    fn rows_are_complete_up_to_the_first_history_that_is_not_saved() {
        let (_, saga) = step(None, 10, &place());
        let [a, b, c] = [1, 2, 3].map(|id| OrderId(Uuid::from_u128(id)));
        let mut cache = Cache::new(10);
        for (seq, order_id, after_ms) in [(1, a, 0), (2, b, 10), (3, a, 20), (4, c, 30)] {
            let now = NOW.plus(Duration::from_millis(after_ms));
            cache.changed(order_id, saga.clone(), false, HistorySeq(seq), now);
        }
        let aged = cache.to_save(NOW.plus(Duration::from_millis(10)), 10, None);
        assert_eq!(aged, BTreeSet::from([a, b]));
        assert_eq!(cache.to_save(NOW.plus(Duration::from_millis(10)), 1, None), BTreeSet::from([a]));
        assert_eq!(cache.first_unsaved_without(&BTreeSet::from([b])), Some(HistorySeq(1)));
        assert_eq!(cache.first_unsaved_without(&aged), Some(HistorySeq(4)));
        cache.saved(aged);
        assert!(cache.take(a).is_some_and(|known| known.is_stored), "clean, and still here");
        cache.changed(a, saga, true, HistorySeq(5), NOW);
        assert_eq!(cache.first_unsaved_without(&BTreeSet::from([c])), Some(HistorySeq(5)));
        assert_eq!(cache.unsaved(a).map(|unsaved| unsaved.is_new), Some(false));
        let timer = cache.unsaved(a).and_then(|unsaved| unsaved.saga.timer).unwrap();
        assert_eq!(
            cache.to_save(NOW.minus(Duration::from_secs(9)), 9, Some(timer.due_at)),
            BTreeSet::from([a, c])
        );
    }
}
