//! Orders that an owner of a partition need not read again.

use std::collections::HashMap;

use domain_types::OrderId;

/// Something of each order, of so many orders at most, in two generations: once the younger one is full, the older one is forgotten. So those
/// under way are there, however many there were before them: what was put or renewed stays for at least half as many.
#[derive(Debug)]
pub(crate) struct Remembered<V> {
    most_of_a_generation: usize,
    younger: HashMap<OrderId, V>,
    older: HashMap<OrderId, V>,
}

impl<V> Remembered<V> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most_of_a_generation: most / 2, younger: HashMap::new(), older: HashMap::new() }
    }

    pub(crate) fn get(&self, id: OrderId) -> Option<&V> {
        self.younger.get(&id).or_else(|| self.older.get(&id))
    }

    pub(crate) fn put(&mut self, id: OrderId, value: V) {
        if self.younger.len() >= self.most_of_a_generation {
            self.older = std::mem::take(&mut self.younger);
        }
        self.older.remove(&id);
        self.younger.insert(id, value);
    }

    /// Keeps what there is of an order for longer; whether there is something.
    pub(crate) fn renew(&mut self, id: OrderId) -> bool {
        if let Some(value) = self.older.remove(&id) {
            self.put(id, value);
        }
        self.younger.contains_key(&id)
    }

    pub(crate) fn take(&mut self, id: OrderId) -> Option<V> {
        self.younger.remove(&id).or_else(|| self.older.remove(&id))
    }

    pub(crate) fn forget_all(&mut self) {
        self.younger.clear();
        self.older.clear();
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> OrderId {
        OrderId(Uuid::from_u128(number))
    }

    #[test]
    fn the_orders_put_last_are_remembered_and_no_more_than_there_may_be() {
        let mut remembered = Remembered::new(10);
        for number in 0..23 {
            remembered.put(id(number), number);
            let from = number.saturating_sub(5);
            assert!((from..=number).all(|recent| remembered.get(id(recent)) == Some(&recent)), "{number}");
            assert!(remembered.younger.len() + remembered.older.len() <= 10);
        }
        assert_eq!(remembered.get(id(0)), None);
    }

    #[test]
    fn what_is_renewed_stays_for_half_as_many_as_there_may_be() {
        let mut remembered = Remembered::new(10);
        for number in 0..9 {
            remembered.put(id(number), number);
        }
        assert!(remembered.renew(id(0)) && !remembered.renew(id(100)));
        for number in 9..14 {
            remembered.put(id(number), number);
            assert_eq!(remembered.get(id(0)), Some(&0), "{number}");
        }
        assert_eq!(remembered.get(id(1)), None);
    }

    #[test]
    fn what_was_taken_or_put_anew_is_not_found_as_it_was() {
        let mut remembered = Remembered::new(4);
        // The first two are the older generation.
        for number in 0..3 {
            remembered.put(id(number), number);
        }
        remembered.put(id(0), 10);
        assert_eq!(remembered.get(id(0)), Some(&10));
        assert_eq!(remembered.take(id(0)), Some(10));
        assert_eq!(remembered.get(id(0)), None);
        assert_eq!(remembered.take(id(1)), Some(1));
        assert_eq!(remembered.get(id(1)), None);
        remembered.put(id(1), 11);
        remembered.forget_all();
        assert!((0..4).all(|number| remembered.get(id(number)).is_none()));
    }
}
