//! A batch in memory: sagas as they were loaded, decided on in the order of the log.

use std::collections::HashMap;

use domain_types::{OrderId, Timestamp};
use messaging::{HandlerError, Outputs, Received};
use saga::{Advance, Decision, IgnoreReason, Saga, decide, evolve};
use schemas::{Message, OrderSagaMessage};

use crate::cache::Known;
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
pub(crate) struct Batch {
    sagas: HashMap<OrderId, Slot>,
    entries: Vec<HistoryEntry>,
}

#[derive(Debug, Default)]
struct Slot {
    saga: Option<Saga>,
    is_stored: bool,
    is_changed: bool,
}

/// A saga of a batch that is committed.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) order_id: OrderId,
    pub(crate) saga: Saga,
    /// It had a row before.
    pub(crate) is_stored: bool,
    pub(crate) is_changed: bool,
}

impl Batch {
    /// A saga as it is now.
    pub(crate) fn load(&mut self, order_id: OrderId, known: Known) {
        let Known { saga, is_stored } = known;
        self.sagas.insert(order_id, Slot { saga: Some(saga), is_stored, is_changed: false });
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
            slot.is_changed = true;
            note_early_timer(input, record.time, slot.saga.as_ref(), timers);
        }
        tally.note(before, &decision, slot.saga.as_ref());
        if let Some(Advance { now, events, effects }) = decision.into_advance() {
            for (index, effect) in (0u32..).zip(effects) {
                outputs.push(output(input, record, index, effect));
            }
            self.entries.push(HistoryEntry {
                offset: record.offset.0,
                order_id: input.order_id,
                rule: input.message.type_name().to_owned(),
                trace_id: trace_id(record),
                now,
                events,
            });
        }
        Ok(())
    }

    /// What is to be recorded.
    pub(crate) fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }

    /// The earliest timer of the sagas that changed.
    pub(crate) fn earliest_timer(&self) -> Option<Timestamp> {
        let changed = self.sagas.values().filter(|slot| slot.is_changed);
        changed.filter_map(|slot| slot.saga.as_ref()?.timer).map(|timer| timer.due_at).min()
    }

    /// The sagas as they are now.
    pub(crate) fn into_decided(self) -> impl Iterator<Item = Decided> {
        self.sagas.into_iter().filter_map(|(order_id, slot)| {
            let Slot { saga, is_stored, is_changed } = slot;
            Some(Decided { order_id, saga: saga?, is_stored, is_changed })
        })
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
