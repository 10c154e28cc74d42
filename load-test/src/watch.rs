//! Hears on `order-events` how orders end.

use std::collections::HashMap;
use std::time::Duration;

use domain_types::OrderId;
use messaging::{Cluster, TailFrom};
use schemas::{Envelope, OrderEvent, OrderState, Topic};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// An order that is paid or refused, or waits for its payment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) order: OrderId,
    pub(crate) state: OrderState,
    pub(crate) at: std::time::Instant,
}

/// Puts together what is known of an order from its answer and from `order-events`, whichever comes first.
pub(crate) struct Halves<A>(HashMap<OrderId, Half<A>>);

enum Half<A> {
    Answered(A),
    Ended(Ended),
}

impl<A> Default for Halves<A> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<A> Halves<A> {
    /// It was taken; both, if it has ended already.
    pub(crate) fn answered(&mut self, order: OrderId, about: A) -> Option<(A, Ended)> {
        if let Some(Half::Ended(ended)) = self.0.remove(&order) {
            return Some((about, ended));
        }
        self.0.insert(order, Half::Answered(about));
        None
    }

    /// It has ended; both, if it was answered already. Else its answer is still on its way, or it is somebody else's.
    pub(crate) fn ended(&mut self, ended: Ended) -> Option<(A, Ended)> {
        if let Some(Half::Answered(about)) = self.0.remove(&ended.order) {
            return Some((about, ended));
        }
        self.0.insert(ended.order, Half::Ended(ended));
        None
    }
}

/// Hears until dropped.
pub(crate) struct Watch {
    pub(crate) ended: mpsc::UnboundedReceiver<Ended>,
    _stop: DropGuard,
}

pub(crate) fn watch(cluster: &Cluster) -> Watch {
    let stop = CancellationToken::new();
    let (sender, ended) = mpsc::unbounded_channel();
    let (cluster, token) = (cluster.clone(), stop.clone());
    tokio::spawn(async move {
        let heard = messaging::tail(
            &cluster,
            Topic::OrderEvents.name(),
            TailFrom::End,
            Duration::ZERO,
            token,
            move |record| {
                let Ok(envelope) = Envelope::<OrderEvent>::decode(&record.value) else { return };
                let (Some(order), at) = (envelope.order_id, std::time::Instant::now()) else { return };
                let state = match envelope.message {
                    OrderEvent::OrderPlaced(placed) => placed.state,
                    OrderEvent::OrderChanged(changed) => changed.state,
                };
                let has_ended = matches!(
                    state,
                    OrderState::Paid
                        | OrderState::PaymentFailed
                        | OrderState::Rejected
                        | OrderState::Expired
                        | OrderState::AwaitingPayment
                );
                if has_ended {
                    let _done = sender.send(Ended { order, state, at });
                }
            },
        );
        if let Err(error) = heard.await {
            eprintln!("order-events can't be heard: {error}");
        }
    });
    Watch { ended, _stop: stop.drop_guard() }
}
