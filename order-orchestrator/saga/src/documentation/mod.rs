//! The documents about the saga, made by running it: step table, diagram, transition matrix.

mod representatives;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use domain_types::Timestamp;
use schemas::{Message, OrderSagaMessage, OrderState, StepName, TimerName};

use crate::decide::{Decision, fold};
use crate::definition::{AnswerRule, DEFINITIONS, Definition, RetryPolicy, SkipRule, StepKind};
use crate::effect::Effect;
use crate::state::Saga;
use representatives::{Representative, inputs, representatives};

/// The whole document, as it is committed in `docs/saga.md`.
pub fn render() -> String {
    let rows = rows();
    format!(
        "# The saga\n\n\
         Generated from the code by `cargo run -p saga --example docs`; a test fails when it is not current.\n\n\
         ## Steps\n\n\
         An order ends under the definition that it began with. New orders begin with the newest, unless the api is told otherwise; states and \
         transitions below are the newest one's.\n\n{}\
         ## States\n\n```mermaid\n{}```\n\n\
         ## Transition matrix\n\n{}",
        DEFINITIONS.iter().rev().map(steps).collect::<String>(),
        diagram(&rows),
        matrix(&rows)
    )
}

/// The state diagram, in Mermaid.
pub fn mermaid() -> String {
    diagram(&rows())
}

/// What each input does in one representative state.
struct Row {
    from: Representative,
    cells: Vec<(&'static str, Outcome)>,
}

enum Outcome {
    Ignored(&'static str),
    Refused(&'static str),
    Advanced {
        state: OrderState,
        changed: bool,
        is_final: bool,
        sent: BTreeSet<&'static str>,
        note: &'static str,
    },
}

fn rows() -> Vec<Row> {
    let row = |from: Representative| {
        let cells = inputs(&from)
            .into_iter()
            .map(|(name, input, time)| (name, outcome(from.saga.as_ref(), &input, time)))
            .collect();
        Row { from, cells }
    };
    representatives().into_iter().map(row).collect()
}

fn outcome(before: Option<&Saga>, input: &OrderSagaMessage, time: Timestamp) -> Outcome {
    let (after, decision) = fold(before.cloned(), input, time);
    let advance = match decision {
        Decision::Ignore(reason) => return Outcome::Ignored(reason.as_str()),
        Decision::Refuse(code, _) => return Outcome::Refused(code.as_str()),
        Decision::Advance(advance) => advance,
    };
    let sent = advance.effects.iter().filter_map(|effect| match effect {
        Effect::Stock { command, .. } => Some(command.type_name()),
        Effect::Payment(command) => Some(command.type_name()),
        Effect::Event(_) => None,
    });
    let sent = sent.collect();
    let Some(after) = after else { return Outcome::Ignored("unknown_order") };
    let final_before = before.is_some_and(Saga::is_final);
    let note = match (before.is_some_and(Saga::needs_operator), after.needs_operator()) {
        (false, true) => "needs_operator",
        (true, false) => "goes on",
        (true, true) | (false, false) => "",
    };
    Outcome::Advanced {
        state: after.state,
        changed: before.map(|saga| saga.state) != Some(after.state),
        is_final: after.is_final() && !final_before,
        sent,
        note,
    }
}

fn steps(definition: &Definition) -> String {
    let mut out = format!(
        "### Definition {}\n\n\
         | Step | Command | Kind | Undone by | Undone while under way by | Deadline | Sent again | Answered | Skip |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        definition.version
    );
    for step in &definition.steps {
        let kind = match step.kind {
            StepKind::Compensable => "compensable",
            StepKind::Pivot => "**pivot**",
            StepKind::Retriable => "retriable",
        };
        let retry = match step.retry {
            RetryPolicy::UntilDeadline => "by its participant, until the deadline; then by an operator",
            RetryPolicy::UntilDone => "by its participant, then by an operator, until it is done",
        };
        let answers = match step.answers {
            AnswerRule::EachTry => "always",
            AnswerRule::Retries => {
                "the first try only if it fails; asked again when the return window is closed"
            }
        };
        let skip = match step.skip {
            SkipRule::Never => "never",
            SkipRule::SettledByHand => "once failed, with `settled_by`",
        };
        let _ = writeln!(
            out,
            "| {} | `{}` | {kind} | {} | {} | {} | {retry} | {answers} | {skip} |",
            step_name(step.name),
            step.command,
            step.compensation.map_or("", step_name),
            step.compensation_under_way.map_or("", step_name),
            step.deadline.map_or("", timer_name),
        );
    }
    out.push('\n');
    out
}

fn diagram(rows: &[Row]) -> String {
    let mut edges: BTreeMap<(String, String), BTreeSet<&str>> = BTreeMap::new();
    for row in rows {
        let from =
            row.from.saga.as_ref().map_or_else(|| "[*]".to_owned(), |saga| saga.state.as_str().to_owned());
        for (input, outcome) in &row.cells {
            if let Outcome::Advanced { state, changed, is_final, .. } = outcome {
                if *changed {
                    edges.entry((from.clone(), state.as_str().to_owned())).or_default().insert(input);
                }
                if *is_final {
                    let label = if *changed { "" } else { input };
                    edges.entry((state.as_str().to_owned(), "[*]".to_owned())).or_default().insert(label);
                }
            }
        }
    }
    let mut out = String::from("stateDiagram-v2\n");
    for ((from, to), labels) in edges {
        let labels: Vec<_> = labels.into_iter().filter(|label| !label.is_empty()).collect();
        let label = if labels.is_empty() { String::new() } else { format!(": {}", labels.join(", ")) };
        let _ = writeln!(out, "    {from} --> {to}{label}");
    }
    out
}

fn matrix(rows: &[Row]) -> String {
    let mut out = String::from(
        "Each row is a state as the saga reaches it, each column an input. `→ X`: the order is X from then on; `+ C`: the command C is sent; \
         `✗ code`: the request is refused with that code; `·`: ignored as not awaited; `· reason`: ignored for that reason; `=`: recorded, \
         the state stays.\n\n",
    );
    let Some(first) = rows.first() else { return out };
    let names: Vec<_> = first.cells.iter().map(|(name, _)| *name).collect();
    let _ = writeln!(out, "| | {} |", names.join(" | "));
    let _ = writeln!(out, "|---|{}", "---|".repeat(names.len()));
    for row in rows {
        let cells: Vec<_> = row.cells.iter().map(|(_, outcome)| cell(outcome)).collect();
        let _ = writeln!(out, "| {} | {} |", row.from.name, cells.join(" | "));
    }
    out
}

fn cell(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ignored("not_awaited") => "·".to_owned(),
        Outcome::Ignored(reason) => format!("· {reason}"),
        Outcome::Refused(code) => format!("✗ {code}"),
        Outcome::Advanced { state, changed, is_final, sent, note } => {
            let mut text = if *changed { format!("→ {}", state.as_str()) } else { "=".to_owned() };
            for command in sent {
                let _ = write!(text, " + {command}");
            }
            if *is_final && !*changed {
                text.push_str(" (final)");
            }
            if !note.is_empty() {
                let _ = write!(text, " ({note})");
            }
            text
        }
    }
}

const fn step_name(step: StepName) -> &'static str {
    match step {
        StepName::Reserve => "reserve",
        StepName::Charge => "charge",
        StepName::Confirm => "confirm",
        StepName::Release => "release",
        StepName::Close => "close",
        StepName::Refund => "refund",
        StepName::Restock => "restock",
    }
}

const fn timer_name(timer: TimerName) -> &'static str {
    match timer {
        TimerName::PayBefore => "`pay_before`",
        TimerName::ChargeDeadline => "`charge_deadline`",
        TimerName::Ship => "`ship`",
        TimerName::Deliver => "`deliver`",
        TimerName::ReturnWindow => "`return_window`",
        TimerName::Return => "`return`",
    }
}
