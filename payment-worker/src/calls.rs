//! Provider calls under way: bounded, concurrent, apart from any transaction.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain_types::{OrderId, Timestamp};
use futures::FutureExt;
use messaging::{Waker, crash_point};
use payment_domain::{Action, CallNumber, Charge, ProviderAnswer, ProviderCall};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use traces::Tracer;

use crate::CONSUMER_GROUP;
use crate::metrics::{PaymentMetrics, unknown};
use crate::provider::Provider;
use crate::trace::CallSpan;

/// An answer that came in.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) order_id: OrderId,
    pub(crate) number: CallNumber,
    pub(crate) answer: ProviderAnswer,
    /// When the provider was asked: an answer says what was true then, however late it is applied.
    pub(crate) asked_at: Timestamp,
}

/// What all partitions of a process share.
pub struct Line<P> {
    provider: P,
    /// One permit per call in flight.
    turns: Semaphore,
    metrics: PaymentMetrics,
    tracer: Option<Tracer>,
}

impl<P> Line<P> {
    /// At most `in_flight` calls at once.
    pub fn new(provider: P, in_flight: usize, metrics: PaymentMetrics) -> Self {
        let turns = Semaphore::new(in_flight.min(Semaphore::MAX_PERMITS));
        Self { provider, turns, metrics, tracer: None }
    }

    /// Calls of sampled commands have a span.
    #[must_use]
    pub fn traced_by(self, tracer: Option<Tracer>) -> Self {
        Self { tracer, ..self }
    }
}

/// A charge whose next call is in memory.
struct InHand {
    charge: Charge,
    number: CallNumber,
    /// The state went on: a call that has not been sent yet must not be.
    superseded: Arc<AtomicBool>,
}

/// The calls of one partition. Dropping it ends them: a successor makes them again, with the same keys.
pub struct Calls<P> {
    line: Arc<Line<P>>,
    in_hand: HashMap<OrderId, InHand>,
    capacity: usize,
    tasks: JoinSet<()>,
    waker: Waker,
    /// This machine's.
    clock: fn() -> Timestamp,
    sender: mpsc::Sender<Answered>,
    receiver: mpsc::Receiver<Answered>,
}

impl<P: Provider> Calls<P> {
    /// At most `capacity` charges are in memory; `waker` is used when an answer has come.
    pub fn new(line: Arc<Line<P>>, capacity: usize, waker: Waker, clock: fn() -> Timestamp) -> Self {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        Self {
            line,
            in_hand: HashMap::new(),
            capacity,
            tasks: JoinSet::new(),
            waker,
            clock,
            sender,
            receiver,
        }
    }

    /// By this machine's clock.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The charge as it was last committed, if its call is in hand.
    pub(crate) fn charge(&self, order_id: OrderId) -> Option<&Charge> {
        self.in_hand.get(&order_id).map(|in_hand| &in_hand.charge)
    }

    pub(crate) fn metrics(&self) -> &PaymentMetrics {
        &self.line.metrics
    }

    /// The orders in hand.
    pub(crate) fn orders(&self) -> impl Iterator<Item = OrderId> + '_ {
        self.in_hand.keys().copied()
    }

    /// How many more calls there is room for.
    pub(crate) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.in_hand.len())
    }

    /// Whether at least half of the places are free.
    pub(crate) fn has_much_room(&self) -> bool {
        self.in_hand.len() <= self.capacity / 2
    }

    /// Adds what has come in to `answers`, until they are `limit`.
    pub(crate) fn take_answers(&mut self, answers: &mut Vec<Answered>, limit: usize) {
        while answers.len() < limit {
            match self.receiver.try_recv() {
                Ok(answered) => answers.push(answered),
                Err(_empty) => break,
            }
        }
    }

    /// Whether answers wait.
    pub(crate) fn has_answers(&self) -> bool {
        !self.receiver.is_empty()
    }

    /// Takes a committed charge in hand and starts its next call, unless that is under way already. Without room, or
    /// without a call to make, it is let go.
    ///
    /// Returns whether its call, if there is one, is in hand now.
    pub(crate) fn place(&mut self, charge: &Charge, next: Option<ProviderCall>) -> bool {
        let Some(call) = next else {
            self.let_go(charge.order_id);
            return true;
        };
        let room = self.room();
        if let Some(in_hand) = self.in_hand.get_mut(&charge.order_id) {
            in_hand.charge = charge.clone();
            if in_hand.number == call.number {
                return true;
            }
            in_hand.superseded.store(true, Ordering::Relaxed);
        } else if room == 0 {
            return false;
        }
        let superseded = Arc::new(AtomicBool::new(false));
        let in_hand =
            InHand { charge: charge.clone(), number: call.number, superseded: Arc::clone(&superseded) };
        if self.in_hand.insert(charge.order_id, in_hand).is_none() {
            self.line.metrics.in_hand.inc();
        }
        let (line, sender, waker) = (Arc::clone(&self.line), self.sender.clone(), self.waker.clone());
        let clock = self.clock;
        let wait = call.not_before.map(|not_before| not_before.since(self.now()));
        self.tasks.spawn(async move {
            let (order_id, number) = (call.order_id, call.number);
            let Some((asked_at, answer)) = line.make(&call, wait, clock, &superseded).await else { return };
            if sender.send(Answered { order_id, number, answer, asked_at }).await.is_ok() {
                waker.wake();
            }
        });
        while self.tasks.try_join_next().is_some() {}
        true
    }

    /// Forgets a charge; a call that has not been sent yet is not sent any more.
    pub(crate) fn let_go(&mut self, order_id: OrderId) {
        if let Some(in_hand) = self.in_hand.remove(&order_id) {
            in_hand.superseded.store(true, Ordering::Relaxed);
            self.line.metrics.in_hand.dec();
        }
    }
}

impl<P> Drop for Calls<P> {
    fn drop(&mut self) {
        self.line.metrics.in_hand.sub(i64::try_from(self.in_hand.len()).unwrap_or(i64::MAX));
    }
}

impl<P: Provider> Line<P> {
    /// Waits for the call's time and turn, and makes it. `None`: superseded before it was sent.
    async fn make(
        &self,
        call: &ProviderCall,
        wait: Option<Duration>,
        clock: fn() -> Timestamp,
        superseded: &AtomicBool,
    ) -> Option<(Timestamp, ProviderAnswer)> {
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
        let turn = self.turns.acquire().await;
        if turn.is_err() || superseded.load(Ordering::Relaxed) {
            return None;
        }
        let _in_flight = InFlight::new(&self.metrics);
        let span = self.tracer.as_ref().and_then(|tracer| CallSpan::begin(tracer, call));
        let call = span.as_ref().map_or(call, CallSpan::call);
        let (began, asked_at) = (Instant::now(), clock());
        let answer = match AssertUnwindSafe(self.ask(call)).catch_unwind().await {
            Ok(answer) => answer,
            Err(_panic) => {
                tracing::error!(order_id = %call.order_id, "the provider's adapter panicked");
                unknown(&call.action)
            }
        };
        self.metrics.called(&answer, began.elapsed());
        if let Some(span) = span {
            span.end(&answer);
        }
        Some((asked_at, answer))
    }

    async fn ask(&self, call: &ProviderCall) -> ProviderAnswer {
        let provider = &self.provider;
        match &call.action {
            Action::Charge { terms } => {
                crash_point(CONSUMER_GROUP, "before-charge");
                let answer = provider.charge(call, terms).await;
                crash_point(CONSUMER_GROUP, "charged");
                ProviderAnswer::Charge(answer)
            }
            Action::Query => ProviderAnswer::Query(provider.query(call).await),
            Action::Void => ProviderAnswer::Void(provider.void(call).await),
            Action::Refund { amount } => ProviderAnswer::Refund(provider.refund(call, *amount).await),
        }
    }
}

/// Counts a call in flight, also when it is cancelled.
struct InFlight<'a>(&'a PaymentMetrics);

impl<'a> InFlight<'a> {
    fn new(metrics: &'a PaymentMetrics) -> Self {
        metrics.in_flight.inc();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}
