//! `show`: all there is to know about one order.

use std::collections::HashMap;

use domain_types::{LineNumber, OrderId, Timestamp};
use messaging::{ParkedRecord, ParkingKey, wall_clock};
use order_orchestrator::history::HistoryEntry;
use order_orchestrator::{PresentSaga, SagaReader};
use saga::{Event, Saga};
use schemas::{OrderState, StepName, Topic};
use serde::Serialize;

use crate::cli::Show;
use crate::describe::fact;
use crate::failure::{Failure, Verdict};
use crate::list::short;
use crate::servers::Servers;
use crate::steer::{Allowed, allowed};
use crate::terminal::{Terminal, Tone, plain, span};
use crate::view::SagaView;

/// One input that changed something.
#[derive(Debug, Serialize)]
pub(crate) struct TimelineEntry {
    pub(crate) at: Timestamp,
    pub(crate) rule: String,
    topic: &'static str,
    partition: i32,
    pub(crate) offset: i64,
    /// How long its command had been under way, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    pub(crate) state: OrderState,
    pub(crate) facts: Vec<String>,
}

/// A record about the order that a service has set aside.
#[derive(Debug, Serialize)]
struct ParkedView {
    group: String,
    topic: String,
    partition: i32,
    offset: i64,
    cause: String,
    detail: String,
    parked_at: Timestamp,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    saga: SagaView,
    timeline: Vec<TimelineEntry>,
    parked: Vec<ParkedView>,
    operations: Vec<Allowed>,
}

/// The saga and what happened to it, from the snapshot it is in.
pub(crate) async fn find(
    servers: &Servers,
    order_id: OrderId,
) -> Result<(PresentSaga, Vec<HistoryEntry>, SagaReader), Failure> {
    for mut reader in servers.sagas().await? {
        if let Some(present) = reader.find(order_id).await? {
            let history = reader.history(present.partition, order_id).await?;
            return Ok((present, history, reader));
        }
    }
    Err(Failure::found(format!(
        "there is no saga of order {order_id}; if the api has just accepted the order, its PlaceOrder is on its way or parked \
         (sagactl dead-letters list)"
    )))
}

pub(crate) async fn run(servers: &Servers, options: &Show, terminal: &Terminal) -> Result<Verdict, Failure> {
    let (present, history, _reader) = find(servers, options.order).await?;
    let shown = Shown {
        saga: SagaView::new(&present),
        timeline: timeline(&present, &history),
        parked: parked(servers, options.order).await?,
        operations: allowed(&present.saga, wall_clock()),
    };
    if terminal.json {
        terminal.json(&shown)?;
    } else {
        print(&shown, &present.saga, terminal);
    }
    Ok(Verdict::Fine)
}

async fn parked(servers: &Servers, order_id: OrderId) -> Result<Vec<ParkedView>, Failure> {
    let key = ParkingKey(order_id.to_string());
    let view = |(_, parked): (&str, ParkedRecord)| ParkedView {
        group: parked.group,
        topic: parked.record.topic.to_string(),
        partition: parked.record.partition,
        offset: parked.record.offset.0,
        cause: parked.cause,
        detail: parked.detail,
        parked_at: parked.parked_at,
    };
    Ok(servers.parked(Some(&key)).await?.into_iter().map(view).collect())
}

/// What happened, with the state after each input and the time that each answer took.
pub(crate) fn timeline(present: &PresentSaga, history: &[HistoryEntry]) -> Vec<TimelineEntry> {
    let mut sent: HashMap<(StepName, Option<LineNumber>), Timestamp> = HashMap::new();
    let mut saga: Option<Saga> = None;
    let mut out = Vec::with_capacity(history.len());
    for entry in history {
        let answered = entry.events.iter().find_map(answers);
        let asked_at =
            answered.and_then(|(steps, line)| steps.iter().find_map(|step| sent.remove(&(*step, line))));
        for event in &entry.events {
            if let Event::Sent { step, line, .. } = event {
                sent.insert((*step, *line), entry.now);
            }
        }
        saga = entry.fold(saga);
        out.push(TimelineEntry {
            at: entry.now,
            rule: entry.rule.clone(),
            topic: Topic::OrderSaga.name(),
            partition: present.partition,
            offset: entry.offset,
            reply_ms: asked_at
                .map(|asked_at| u64::try_from(entry.now.since(asked_at).as_millis()).unwrap_or(u64::MAX)),
            trace_id: entry.trace_id.clone(),
            state: saga.as_ref().map_or(OrderState::Accepted, |saga| saga.state),
            facts: entry.events.iter().filter(|event| **event != Event::Published).map(fact).collect(),
        });
    }
    out
}

/// The steps that a fact may be the answer to; the one that is under way is meant.
fn answers(event: &Event) -> Option<(&'static [StepName], Option<LineNumber>)> {
    match event {
        Event::Reserved { line, .. } | Event::Refused { line, .. } => {
            Some((&[StepName::Reserve], Some(*line)))
        }
        Event::Confirmed { line } => Some((&[StepName::Confirm], Some(*line))),
        Event::Released { line, .. } => Some((&[StepName::Release], Some(*line))),
        Event::Restocked { line, .. } => Some((&[StepName::Restock], Some(*line))),
        Event::Approved { .. } | Event::Declined { .. } => Some((&[StepName::Close, StepName::Charge], None)),
        Event::Closed => Some((&[StepName::Close], None)),
        Event::Refunded { .. } => Some((&[StepName::Refund], None)),
        Event::Failed { step, line, .. } => Some((one(*step), *line)),
        Event::Placed(_)
        | Event::Sent { .. }
        | Event::MethodChosen { .. }
        | Event::Settled { .. }
        | Event::CompensationBegun { .. }
        | Event::Entered { .. }
        | Event::TimerArmed(_)
        | Event::TimerDisarmed
        | Event::Paused
        | Event::Resumed
        | Event::Answered { .. }
        | Event::Published => None,
    }
}

const fn one(step: StepName) -> &'static [StepName] {
    match step {
        StepName::Reserve => &[StepName::Reserve],
        StepName::Charge => &[StepName::Charge],
        StepName::Confirm => &[StepName::Confirm],
        StepName::Release => &[StepName::Release],
        StepName::Close => &[StepName::Close],
        StepName::Refund => &[StepName::Refund],
        StepName::Restock => &[StepName::Restock],
    }
}

fn print(shown: &Shown, saga: &Saga, terminal: &Terminal) {
    let view = &shown.saga;
    let reason = view.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let tone = if saga.needs_operator() { Tone::Bad } else { Tone::Good };
    let state = terminal.toned(tone, &format!("{}{reason}", view.state.as_str()));
    let ending = if view.is_final { ", final" } else { "" };
    terminal
        .line(format!("{} {state}{ending}", terminal.toned(Tone::Bold, &format!("Order {}", view.order_id))));
    terminal.line(format!(
        "  customer {}, {}, placed {}, version {}, definition {}",
        view.customer_id,
        view.amount,
        terminal.time(view.ordered_at),
        view.version,
        view.definition
    ));
    for line in &view.lines {
        let failed =
            line.failed.as_ref().map(|code| format!(", FAILED: {}", plain(code))).unwrap_or_default();
        let stage = crate::describe::word(&line.stage);
        terminal.line(format!(
            "  line {}: {} of {}, {stage}{failed}",
            line.line,
            line.quantity,
            plain(&line.sku)
        ));
    }
    if let Some(payment) = &view.payment {
        let failed =
            payment.failed.as_ref().map(|code| format!(", FAILED: {}", plain(code))).unwrap_or_default();
        let by = payment
            .settled_by
            .as_ref()
            .map(|by| format!(", settled by hand: {}", plain(by)))
            .unwrap_or_default();
        let stage = plain(&crate::describe::word(&payment.stage));
        terminal.line(format!("  payment: {}, {stage}{failed}{by}", plain(&payment.method)));
    }
    terminal.line("");
    terminal.line(terminal.toned(Tone::Bold, "What happened"));
    for entry in &shown.timeline {
        let took = entry.reply_ms.map(|ms| format!(" after {ms}ms")).unwrap_or_default();
        let trace =
            entry.trace_id.as_ref().map(|trace| format!("  trace {}", plain(trace))).unwrap_or_default();
        let place = format!("{}/{}@{}{trace}", entry.topic, entry.partition, entry.offset);
        terminal.line(format!(
            "  {}  {}{took}  {}  {}",
            terminal.time(entry.at),
            plain(&entry.rule),
            terminal.toned(Tone::Bold, entry.state.as_str()),
            terminal.toned(Tone::Faint, &place),
        ));
        for fact in &entry.facts {
            terminal.line(format!("      {}", plain(fact)));
        }
    }
    terminal.line("");
    terminal.line(terminal.toned(Tone::Bold, "Waits for"));
    if view.waiting_for.is_empty() {
        terminal.line("  nothing");
    }
    let idle = span(wall_clock().since(view.changed_at));
    for waiting in &view.waiting_for {
        terminal.line(format!("  {}  (nothing happened for {idle})", short(waiting, |at| terminal.time(at))));
    }
    for parked in &shown.parked {
        terminal.line(terminal.toned(
            Tone::Bad,
            &format!(
                "  parked by {}: {}/{}@{}, {}: {}",
                parked.group,
                plain(&parked.topic),
                parked.partition,
                parked.offset,
                plain(&parked.cause),
                plain(&parked.detail)
            ),
        ));
    }
    terminal.line("");
    terminal.line(terminal.toned(Tone::Bold, "An operator may"));
    for operation in &shown.operations {
        match operation.refused {
            None => terminal.line(format!("  {}", operation.command)),
            Some(code) => {
                terminal.line(terminal.toned(Tone::Faint, &format!("  not {}: {code}", operation.command)))
            }
        }
    }
}
