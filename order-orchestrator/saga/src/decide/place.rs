//! The beginning.

use domain_types::{Attempt, LineNumber, Money, Timestamp};
use schemas::{OrderPlaced, OrderState, PlaceOrder, Reason, StepName};

use super::Decision;
use super::draft::Draft;
use crate::definition::{Definition, MAX_LINES};
use crate::effect::Effect;
use crate::event::{Event, Placed, PlacedLine};
use crate::evolve::begin;
use crate::reason::IgnoreReason;
use crate::state::{Saga, Timer};

/// How much of a fingerprint is kept: enough to tell a repeat from another order.
const FINGERPRINT_CHARS: usize = 16;

/// Begins a saga, or refuses the order because it reached the log too late.
pub(super) fn place(order: &PlaceOrder, time: Timestamp) -> Decision {
    let Some(total) = total(order) else { return Decision::Ignore(IgnoreReason::InvalidOrder) };
    let Some(definition) = Definition::of(order.definition) else {
        return Decision::Ignore(IgnoreReason::InvalidOrder);
    };
    let too_late = time > order.publish_before;
    let placed = Placed {
        definition: definition.version,
        customer_id: order.customer_id,
        fingerprint: shortened(&order.fingerprint),
        lines: order
            .lines
            .iter()
            .map(|line| PlacedLine { sku: line.sku.clone(), quantity: line.quantity })
            .collect(),
        amount: total,
        method: order.payment_method.clone(),
        policy: order.policy.unwrap_or_default(),
        too_late,
    };
    let mut draft = Draft::new(begin(time, &placed), time);
    draft.record(Event::Placed(placed));
    if !too_late {
        if let Some(deadline) = definition.step(StepName::Reserve).deadline {
            let due_at = draft.saga.pay_before();
            draft.record(Event::TimerArmed(Timer::new(deadline, due_at)));
        }
        for (line, _) in (0u8..).zip(&order.lines) {
            draft.send(StepName::Reserve, Some(LineNumber(line)), Attempt::FIRST);
        }
    }
    let pay_before = draft.saga.pay_before();
    draft.publish_first(Effect::Event(
        OrderPlaced {
            version: draft.saga.version,
            customer_id: order.customer_id,
            state: if too_late { OrderState::Rejected } else { OrderState::Reserving },
            reason: too_late.then_some(Reason::NotPlaced),
            is_final: too_late,
            lines: order.lines.clone(),
            total,
            pay_before: (order.payment_method.is_none() && !too_late).then_some(pay_before),
            at: time,
        }
        .into(),
    ));
    Decision::Advance(draft.into_advance())
}

/// Why a `PlaceOrder` for an order that exists changes nothing.
pub(super) fn repeated(saga: &Saga, order: &PlaceOrder) -> IgnoreReason {
    if saga.fingerprint == shortened(&order.fingerprint) {
        IgnoreReason::RepeatedOrder
    } else {
        IgnoreReason::OtherFingerprint
    }
}

fn shortened(fingerprint: &str) -> String {
    fingerprint.chars().take(FINGERPRINT_CHARS).collect()
}

/// The sum; `None` if the order breaks the contract.
fn total(order: &PlaceOrder) -> Option<Money> {
    let first = order.lines.first()?;
    let sum = order.lines.iter().try_fold(Money::new(0, first.unit_price.currency), |sum, line| {
        sum.checked_add(line.unit_price.checked_mul(line.quantity)?)
    });
    let prices_fit = order.lines.iter().all(|line| line.unit_price.amount >= 0);
    sum.ok().filter(|_| prices_fit && order.lines.len() <= MAX_LINES)
}
