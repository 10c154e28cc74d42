//! Facts of a saga's history in words.

use domain_types::LineNumber;
use order_orchestrator::timer_name;
use saga::Event;
use schemas::StepName;

use crate::view::step_word;

fn command(step: StepName, line: Option<LineNumber>) -> String {
    match line {
        Some(line) => format!("{} line {}", step_word(step), line.0),
        None => step_word(step).to_owned(),
    }
}

/// One fact.
pub(crate) fn fact(event: &Event) -> String {
    match event {
        Event::Placed(placed) if placed.too_late => "placed too late".to_owned(),
        Event::Placed(placed) => format!("placed: {} lines, {}", placed.lines.len(), placed.amount),
        Event::Sent { step, line, attempt } if attempt.0 > 1 => {
            format!("sent {}, attempt {}", command(*step, *line), attempt.0)
        }
        Event::Sent { step, line, .. } => format!("sent {}", command(*step, *line)),
        Event::Reserved { line, .. } => format!("line {} held", line.0),
        Event::Refused { line, reason } => format!("line {} refused: {}", line.0, word(reason)),
        Event::Confirmed { line } => format!("line {} sold", line.0),
        Event::Released { line, units, .. } => format!("line {} released, {units} units came back", line.0),
        Event::Restocked { line, units, .. } => format!("line {} restocked, {units} units came back", line.0),
        Event::MethodChosen { method } => format!("payment method {}", method.0),
        Event::Approved { amount, reference } => format!("charged {amount} ({reference})"),
        Event::Declined { reason } => format!("declined: {}", word(reason)),
        Event::Closed => "charge closed, nothing taken".to_owned(),
        Event::Refunded { amount, reference } => format!("refunded {amount} ({reference})"),
        Event::Failed { step, line, code } => format!("{} FAILED: {code}", command(*step, *line)),
        Event::Settled { step, settled_by } => format!("{} settled by hand: {settled_by}", step_word(*step)),
        Event::CompensationBegun { outcome } => format!("gives everything back ({})", outcome.as_str()),
        Event::Entered { state } => format!("is {}", state.as_str()),
        Event::TimerArmed(timer) => format!("timer {} at {}", timer_name(timer.name), timer.due_at),
        Event::TimerDisarmed => "timer off".to_owned(),
        Event::Paused => "paused".to_owned(),
        Event::Resumed => "resumed".to_owned(),
        Event::Answered { kind, refused, operator, why, .. } => {
            let outcome =
                refused.as_ref().map_or_else(|| "done".to_owned(), |code| format!("refused: {code}"));
            let who = operator.as_ref().map(|operator| format!(" by {operator}")).unwrap_or_default();
            let why = why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            format!("{} {outcome}{who}{why}", word(kind))
        }
        Event::Published => "published".to_owned(),
    }
}

/// A unit variant as it is written.
pub(crate) fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}
