//! A batch in memory: sagas as they were loaded, decided on in the order of the log.

use std::collections::HashMap;

use domain_types::{OrderId, Timestamp};
use messaging::{HandlerError, Outputs, Received};
use saga::{Decision, IgnoreReason, Saga, decide, evolve};
use schemas::{Message, OrderSagaMessage};

use crate::history::HistoryEntry;
use crate::messages::{SagaInput, output, trace_id};
use crate::metrics::Tally;
use crate::timers::Timers;

/// Why an input can't be answered and is set aside.
#[derive(Debug, thiserror::Error)]
#[error("PlaceOrder of {0} breaks the contract: no lines, too many, or a sum nobody can name")]
struct InvalidOrder(OrderId);

/// The sagas of a batch.
#[derive(Debug, Default)]
pub struct Batch {
    sagas: HashMap<OrderId, Slot>,
    /// Orders that changed, in the order of their first change.
    changed: Vec<OrderId>,
    entries: Vec<HistoryEntry>,
}

#[derive(Debug, Default)]
struct Slot {
    saga: Option<Saga>,
    is_stored: bool,
    is_changed: bool,
}

/// A saga to be saved.
#[derive(Debug)]
pub struct Changed<'a> {
    /// Whose.
    pub order_id: OrderId,
    /// As it is now.
    pub saga: &'a Saga,
    /// Whether there is none stored yet.
    pub is_new: bool,
}

impl Batch {
    /// A saga as it is stored.
    pub(crate) fn load(&mut self, order_id: OrderId, saga: Saga) {
        self.sagas.insert(order_id, Slot { saga: Some(saga), is_stored: true, is_changed: false });
    }

    /// Decides on one input; its facts are folded, its messages pushed.
    pub(crate) fn apply(
        &mut self,
        received: &Received<SagaInput>,
        outputs: &mut Outputs,
        timers: &mut Timers,
        tally: &mut Tally,
    ) -> Result<(), HandlerError> {
        let Received { record, input } = received;
        let slot = self.sagas.entry(input.order_id).or_default();
        let before = slot.saga.as_ref().map(|saga| (saga.state.as_str(), saga.needs_operator()));
        let decision = decide(slot.saga.as_ref(), &input.message, record.time);
        if decision == Decision::Ignore(IgnoreReason::InvalidOrder) {
            return Err(HandlerError::permanent(InvalidOrder(input.order_id)));
        }
        if let Some(advance) = decision.advance() {
            let fold = |saga, event| evolve(saga, advance.now, event);
            slot.saga = advance.events.iter().fold(slot.saga.take(), fold);
            if !slot.is_changed {
                slot.is_changed = true;
                self.changed.push(input.order_id);
            }
            for (index, effect) in (0u32..).zip(&advance.effects) {
                outputs.push(output(input, record, index, effect.clone()));
            }
            self.entries.push(HistoryEntry {
                offset: record.offset.0,
                order_id: input.order_id,
                rule: input.message.type_name().to_owned(),
                trace_id: trace_id(record),
                now: advance.now,
                events: advance.events.clone(),
            });
            note_early_timer(input, record.time, slot.saga.as_ref(), timers);
        }
        tally.note(before, &decision, slot.saga.as_ref());
        Ok(())
    }

    /// What is to be saved.
    pub fn changed(&self) -> impl Iterator<Item = Changed<'_>> {
        self.changed.iter().filter_map(|order_id| {
            let slot = self.sagas.get(order_id)?;
            Some(Changed { order_id: *order_id, saga: slot.saga.as_ref()?, is_new: !slot.is_stored })
        })
    }

    /// What is to be recorded.
    pub fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }

    /// The sagas as they are now.
    pub(crate) fn into_sagas(self) -> impl Iterator<Item = (OrderId, Saga)> {
        self.sagas.into_iter().filter_map(|(order_id, slot)| Some((order_id, slot.saga?)))
    }
}

/// A timer that came before it is due by the log's clock is armed again; firing it at once would only repeat that.
fn note_early_timer(input: &SagaInput, time: Timestamp, saga: Option<&Saga>, timers: &mut Timers) {
    if let OrderSagaMessage::TimerFired(fired) = &input.message
        && time < fired.due_at
        && saga.and_then(|saga| saga.timer).is_some_and(|timer| timer.due_at == fired.due_at)
    {
        timers.came_early_by(fired.due_at.since(time));
    }
}
