//! `list`: which sagas there are, or how many.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use domain_types::Timestamp;
use messaging::wall_clock;
use order_orchestrator::PresentSaga;
use serde::Serialize;

use crate::cli::{Group, List};
use crate::failure::{Failure, Verdict};
use crate::filter::Filter;
use crate::servers::Servers;
use crate::terminal::{Terminal, plain, span};
use crate::view::{SagaView, Waiting, step_word, waits};

/// The answer of `list`.
#[derive(Serialize)]
struct Listed {
    /// How many there are in all.
    total: u64,
    orders: Vec<SagaView>,
}

/// The answer of `list --count-by`.
#[derive(Serialize)]
struct Counted {
    total: u64,
    groups: BTreeMap<String, u64>,
}

/// Ordered by the last thing that happened: the top of a heap is the one that waits least.
struct ByIdle(PresentSaga);

impl ByIdle {
    fn key(&self) -> (Timestamp, domain_types::OrderId) {
        (self.0.saga.now, self.0.order_id)
    }
}

impl PartialEq for ByIdle {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ByIdle {}

impl PartialOrd for ByIdle {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByIdle {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// Hands out every saga for which the filter holds.
pub(crate) async fn each(
    servers: &Servers,
    filter: &Filter,
    mut found: impl FnMut(PresentSaga),
) -> Result<(), Failure> {
    let now = wall_clock();
    for mut reader in servers.sagas().await? {
        for position in reader.positions().await? {
            let hand_out = |present: PresentSaga| {
                if filter.holds(&present, now) {
                    found(present);
                }
            };
            reader.each_saga(position.partition, hand_out).await?;
        }
    }
    Ok(())
}

pub(crate) async fn run(servers: &Servers, options: &List, terminal: &Terminal) -> Result<Verdict, Failure> {
    let filter = Filter::of_list(options);
    if let Some(group) = options.count_by {
        return count(servers, &filter, group, terminal).await;
    }
    let mut total = 0;
    let mut longest: BinaryHeap<ByIdle> = BinaryHeap::new();
    each(servers, &filter, |present| {
        total += 1;
        longest.push(ByIdle(present));
        if longest.len() > options.limit {
            longest.pop();
        }
    })
    .await?;
    let orders: Vec<SagaView> =
        longest.into_sorted_vec().iter().map(|found| SagaView::new(&found.0)).collect();
    if terminal.json {
        terminal.json(&Listed { total, orders })?;
        return Ok(Verdict::Fine);
    }
    let now = wall_clock();
    let rows: Vec<Vec<String>> = orders.iter().map(|order| row(order, now, terminal)).collect();
    if rows.is_empty() {
        terminal.line("no such saga");
        return Ok(Verdict::Fine);
    }
    terminal.table(&["ORDER", "STATE", "REASON", "AGE", "IDLE", "WAITS FOR"], &rows);
    let shown = rows.len() as u64;
    if total > shown {
        terminal.line(format!("{shown} of {total}, longest idle first; --limit shows more"));
    }
    Ok(Verdict::Fine)
}

fn row(order: &SagaView, now: Timestamp, terminal: &Terminal) -> Vec<String> {
    vec![
        order.order_id.to_string(),
        order.state.as_str().to_owned(),
        order.reason.unwrap_or_default().to_owned(),
        span(now.since(order.ordered_at)),
        span(now.since(order.changed_at)),
        order.waiting_for.first().map(|waiting| short(waiting, |at| terminal.time(at))).unwrap_or_default(),
    ]
}

/// What is waited for, in a table's cell; `time` writes times.
pub(crate) fn short(waiting: &Waiting, time: impl Fn(Timestamp) -> String) -> String {
    let place = |line: &Option<u8>| line.map(|line| format!(" line {line}")).unwrap_or_default();
    match waiting {
        Waiting::Reply { from, step, line, attempt: 1 } => format!("{from}: {step}{}", place(line)),
        Waiting::Reply { from, step, line, attempt } => {
            format!("{from}: {step}{}, attempt {attempt}", place(line))
        }
        Waiting::Operator { step, line, code, .. } => {
            format!("operator: {step}{} failed, {}", place(line), plain(code))
        }
        Waiting::Resume { withheld } => format!("resume: {withheld} commands withheld"),
        Waiting::Customer { until } => format!("customer: payment until {}", time(*until)),
        Waiting::Timer { name, due_at } => format!("timer: {name} at {}", time(*due_at)),
    }
}

async fn count(
    servers: &Servers,
    filter: &Filter,
    group: Group,
    terminal: &Terminal,
) -> Result<Verdict, Failure> {
    let mut total = 0;
    let mut groups: BTreeMap<String, u64> = BTreeMap::new();
    each(servers, filter, |present| {
        total += 1;
        for name in names(&present, group) {
            *groups.entry(name).or_default() += 1;
        }
    })
    .await?;
    if terminal.json {
        terminal.json(&Counted { total, groups })?;
        return Ok(Verdict::Fine);
    }
    let mut rows: Vec<(String, u64)> = groups.into_iter().collect();
    rows.sort_by_key(|(_, sagas)| std::cmp::Reverse(*sagas));
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(name, sagas)| vec![plain(&name), sagas.to_string()]).collect();
    terminal.table(&["GROUP", "SAGAS"], &rows);
    terminal.line(format!("{total} sagas"));
    Ok(Verdict::Fine)
}

fn names(present: &PresentSaga, group: Group) -> Vec<String> {
    let saga = &present.saga;
    let mut names: Vec<String> = match group {
        Group::State => vec![saga.state.as_str().to_owned()],
        Group::Reason => vec![saga.reason().map_or("none", schemas::Reason::as_str).to_owned()],
        Group::Step => saga.awaited().iter().map(|command| step_word(command.step).to_owned()).collect(),
        Group::WaitingFor => waits(saga).iter().take(1).map(|waiting| waiting.what().to_owned()).collect(),
        Group::Sku => saga.lines.iter().map(|line| line.sku.to_string()).collect(),
        Group::Customer => vec![saga.customer_id.to_string()],
        Group::Definition => vec![saga.definition.to_string()],
    };
    names.sort();
    names.dedup();
    if names.is_empty() {
        names.push("none".to_owned());
    }
    names
}
