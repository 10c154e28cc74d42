//! Many who ask for the same sku share one look-up.
//!
//! Nobody gets the answer of a look-up that began before they asked: who comes while one is under way waits for the next.
//! So a burst costs at most two, and a reader sees what was stored before it asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain_types::Sku;
use tokio::sync::oneshot;

use crate::problem::Problem;
use crate::products::model::Product;

/// What a look-up found.
pub(super) type Answer = Result<Option<Arc<Product>>, Problem>;

type Waiting = Vec<oneshot::Sender<Answer>>;

/// Skus that are being looked up, and who waits for the next look-up of each. Clones share it. It has an entry for each
/// flight under way, so it is bounded by the requests under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Sku, Waiting>>>);

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Sku, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next look-up of the sku; with a [`Flight`] if it is the caller's part to make them.
    pub(super) fn join(&self, sku: &Sku) -> (oneshot::Receiver<Answer>, Option<Flight>) {
        let (reader, answer) = oneshot::channel();
        let mut skus = self.lock();
        if let Some(waiting) = skus.get_mut(sku) {
            waiting.push(reader);
            return (answer, None);
        }
        skus.insert(sku.clone(), vec![reader]);
        (answer, Some(Flight { flights: self.clone(), sku: sku.clone(), has_ended: false }))
    }
}

/// The part of making look-ups of one sku for as long as somebody waits.
#[derive(Debug)]
pub(super) struct Flight {
    flights: Flights,
    sku: Sku,
    has_ended: bool,
}

impl Flight {
    pub(super) fn sku(&self) -> &Sku {
        &self.sku
    }

    /// All who wait now. `None`: nobody does, and the next to come begins another flight.
    pub(super) fn board(&mut self) -> Option<Waiting> {
        let mut skus = self.flights.lock();
        match skus.get_mut(&self.sku) {
            Some(waiting) if !waiting.is_empty() => Some(std::mem::take(waiting)),
            Some(_) | None => {
                skus.remove(&self.sku);
                self.has_ended = true;
                None
            }
        }
    }
}

impl Drop for Flight {
    /// A flight that failed half way leaves nobody waiting.
    fn drop(&mut self) {
        if !self.has_ended {
            self.flights.lock().remove(&self.sku);
        }
    }
}
