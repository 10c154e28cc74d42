//! Wakes requests that wait for a saga's answer, by this node's own tail of `order-events`.
//!
//! It only tells that there is an answer, and in which version of the order; what is sent is read from the projection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain_types::RequestId;
use messaging::Record;
use schemas::{Envelope, OrderEvent};
use tokio::sync::oneshot;

type Waiting = HashMap<RequestId, Vec<oneshot::Sender<i64>>>;

/// Who waits for which answer. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wakeups(Arc<Mutex<Waiting>>);

/// One who waits. Dropping it ends the wait.
#[derive(Debug)]
pub(crate) struct Answered {
    wakeups: Wakeups,
    request: RequestId,
    version: oneshot::Receiver<i64>,
}

impl Wakeups {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait; an answer from now on is not missed.
    pub(crate) fn wait_for(&self, request: RequestId) -> Answered {
        let (wake, version) = oneshot::channel();
        self.lock().entry(request).or_default().push(wake);
        Answered { wakeups: self.clone(), request, version }
    }

    /// Looks at a record of `order-events`.
    pub(crate) fn seen(&self, record: &Record) {
        if self.lock().is_empty() {
            return;
        }
        let Ok(envelope) = Envelope::<OrderEvent>::decode(&record.value) else { return };
        match envelope.message {
            OrderEvent::OrderPlaced(_) => {}
            OrderEvent::OrderChanged(change) => {
                let Some(request) = change.request else { return };
                let waiting = self.lock().remove(&request.id).unwrap_or_default();
                for wake in waiting {
                    let _gave_up = wake.send(change.version);
                }
            }
        }
    }
}

impl Answered {
    /// The order's version with the answer; `None` if nobody will tell.
    pub(crate) async fn version(&mut self) -> Option<i64> {
        (&mut self.version).await.ok()
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.version.close();
        let mut waiting = self.wakeups.lock();
        if let Some(others) = waiting.get_mut(&self.request) {
            others.retain(|wake| !wake.is_closed());
            if others.is_empty() {
                waiting.remove(&self.request);
            }
        }
    }
}
