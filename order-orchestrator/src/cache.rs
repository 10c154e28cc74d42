//! Sagas of former batches, as they are in the database. The fence makes them safe; a rollback drops them all.

use std::collections::HashMap;

use domain_types::OrderId;
use saga::Saga;

/// Two generations: what was not used while the younger one filled up is forgotten.
#[derive(Debug)]
pub(crate) struct Cache {
    young: HashMap<OrderId, Saga>,
    old: HashMap<OrderId, Saga>,
    /// The most sagas of one generation.
    generation_sagas: usize,
}

impl Cache {
    /// Keeps at most `sagas`.
    pub(crate) fn new(sagas: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation_sagas: sagas / 2 }
    }

    /// Hands a saga out; it is not in the cache until it is put back.
    pub(crate) fn take(&mut self, order_id: OrderId) -> Option<Saga> {
        self.young.remove(&order_id).or_else(|| self.old.remove(&order_id))
    }

    /// Keeps a saga as it is in the database. One that is final is not kept: hardly anybody asks for it again.
    pub(crate) fn put(&mut self, order_id: OrderId, saga: Saga) {
        if saga.is_final() || self.generation_sagas == 0 {
            return;
        }
        if self.young.len() >= self.generation_sagas {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(order_id, saga);
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
