//! Deadlines and delivery.

use schemas::{OrderState, Reason, TimerFired, TimerName};

use super::draft::Draft;
use crate::event::Event;
use crate::reason::IgnoreReason;
use crate::state::{Saga, Timer};

/// A timer is due, or its message came early: then it is armed again.
pub(super) fn fired(
    saga: &Saga,
    fired: &TimerFired,
    draft: impl FnOnce() -> Draft,
) -> Result<Draft, IgnoreReason> {
    let timer = Timer::new(fired.timer, fired.due_at);
    if saga.timer != Some(timer) {
        return Err(IgnoreReason::StaleTimer);
    }
    let mut draft = draft();
    if draft.now < timer.due_at {
        draft.record(Event::TimerArmed(timer));
        return Ok(draft);
    }
    match timer.name {
        TimerName::PayBefore | TimerName::ChargeDeadline => draft.compensate(Reason::Expired),
        TimerName::Ship => {
            // Delivered two days after PAID, however late the first timer came.
            let due_at = timer.due_at.plus(saga.day());
            draft.record(Event::Entered { state: OrderState::Shipped });
            draft.record(Event::TimerArmed(Timer::new(TimerName::Deliver, due_at)));
        }
        TimerName::Deliver => {
            let return_before = draft.now.plus(saga.day());
            draft.record(Event::Entered { state: OrderState::Delivered });
            draft.record(Event::TimerArmed(Timer::new(TimerName::ReturnWindow, return_before)));
            draft.return_until(return_before);
        }
        TimerName::ReturnWindow => {
            draft.record(Event::TimerDisarmed);
            draft.ask_whether_confirmed();
        }
        TimerName::Return => draft.compensate(Reason::Returned),
    }
    Ok(draft)
}
