//! Replayed and stored, side by side.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use domain_types::{OrderId, Timestamp};
use order_orchestrator::SagaReader;
use order_orchestrator::history::HistoryEntry;
use saga::{Event, Saga, evolve};
use schemas::Message;

use super::fold::{self, Chain, Folded, Wanted};
use super::{Drift, DriftAt, DriftKind, Place, Rules, Selection};
use crate::at::changes;
use crate::describe::fact;
use crate::failure::Failure;

type Kinds = BTreeMap<OrderId, BTreeSet<DriftKind>>;

/// Compares a pass with the snapshots.
pub(super) async fn with_stored(
    snapshots: &mut [SagaReader],
    mut folded: Folded,
    wanted: &Wanted,
    selection: &Selection,
    compared: &mut u64,
    kinds: &mut Kinds,
) -> Result<(), Failure> {
    let mut passed_over = BTreeSet::new();
    for snapshot in snapshots {
        for position in snapshot.positions().await? {
            let partition = position.partition;
            let chains = chains(snapshot, partition, wanted).await?;
            let mut compare = |order_id: OrderId, stored: &Saga| {
                if !wanted.has(order_id) {
                    return;
                }
                let replayed = folded.orders.remove(&order_id);
                let in_time = selection.since.is_none_or(|since| stored.ordered_at >= since);
                let in_state = selection.states.is_empty() || selection.states.contains(&stored.state);
                if !in_time || !in_state {
                    passed_over.insert(order_id);
                    return;
                }
                *compared += 1;
                let mut note = |kind| {
                    kinds.entry(order_id).or_default().insert(kind);
                };
                let Some(replayed) = replayed else { return note(DriftKind::NotInLog) };
                if chains.get(&order_id).copied().unwrap_or_default() != replayed.chain {
                    note(DriftKind::History);
                }
                match &replayed.saga {
                    None => note(DriftKind::NotInLog),
                    Some(saga) if saga != stored => note(DriftKind::State),
                    Some(_same) => {}
                }
            };
            if let Wanted::One(order_id) = wanted {
                if let Some(present) = snapshot.find(*order_id).await?
                    && present.partition == partition
                {
                    compare(*order_id, &present.saga);
                }
            } else {
                snapshot.each_saga(partition, |present| compare(present.order_id, &present.saga)).await?;
            }
        }
    }
    // Placed before the time that is of interest, and only mentioned again since: of no interest either.
    let unstored =
        folded.orders.into_iter().filter(|(_, order)| order.saga.is_some() && order.chain.entries > 0);
    if selection.states.is_empty() && selection.since.is_none() {
        for (order_id, _) in unstored {
            kinds.entry(order_id).or_default().insert(DriftKind::NotStored);
        }
    }
    for order_id in folded.other_effects {
        if !passed_over.contains(&order_id) {
            kinds.entry(order_id).or_default().insert(DriftKind::Effects);
        }
    }
    Ok(())
}

/// The stored histories, each as one number.
async fn chains(
    snapshot: &mut SagaReader,
    partition: i32,
    wanted: &Wanted,
) -> Result<HashMap<OrderId, Chain>, Failure> {
    let mut chains: HashMap<OrderId, Chain> = HashMap::new();
    let mut push = |entry: HistoryEntry| {
        if wanted.has(entry.order_id) {
            let chain = chains.entry(entry.order_id).or_default();
            chain.push(entry.offset, &entry.rule, entry.now, &entry.events);
        }
    };
    if let Wanted::One(order_id) = wanted {
        snapshot.history(partition, *order_id).await?.into_iter().for_each(push);
    } else {
        snapshot.each_entry(partition, &mut push).await?;
    }
    Ok(chains)
}

/// What this build made of one input.
struct Entry {
    offset: i64,
    rule: &'static str,
    now: Timestamp,
    events: Vec<Event>,
}

#[derive(Default)]
struct Detail {
    saga: Option<Saga>,
    entries: Vec<Entry>,
}

/// The first input at which stored and replayed part, for each of these orders.
pub(super) async fn describe(
    snapshots: &mut [SagaReader],
    place: &Arc<Place>,
    rules: &Rules,
    orders: &[OrderId],
    kinds: &Kinds,
) -> Result<Vec<Drift>, Failure> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = Wanted::These(orders.iter().copied().collect());
    let (place, rules) = (Arc::clone(place), Arc::clone(rules));
    let folding = tokio::task::spawn_blocking(move || {
        let mut details: HashMap<OrderId, Detail> = HashMap::new();
        for partition in place.spans.keys() {
            fold::each_input(&place, *partition, &wanted, &AtomicU64::new(0), |record, input| {
                let detail = details.entry(input.order_id).or_default();
                let decision = rules(detail.saga.as_ref(), &input.message, record.time);
                let Some(advance) = decision.into_advance() else { return };
                let fold = |saga, event| evolve(saga, advance.now, event);
                detail.saga = advance.events.iter().fold(detail.saga.take(), fold);
                let (offset, rule) = (record.offset.0, input.message.type_name());
                detail.entries.push(Entry { offset, rule, now: advance.now, events: advance.events });
            })?;
        }
        Ok::<_, Failure>(details)
    });
    let mut details = folding.await.map_err(|error| Failure::away(error.to_string()))??;
    let mut drifts = Vec::new();
    for order_id in orders {
        let mut stored = None;
        for snapshot in &mut *snapshots {
            if let Some(present) = snapshot.find(*order_id).await? {
                let history = snapshot.history(present.partition, *order_id).await?;
                stored = Some((present, history));
            }
        }
        let detail = details.remove(order_id).unwrap_or_default();
        let kinds = kinds.get(order_id).cloned().unwrap_or_default();
        drifts.push(drift(*order_id, kinds, stored.as_ref(), &detail));
    }
    Ok(drifts)
}

fn facts(events: &[Event]) -> String {
    let facts: Vec<String> = events.iter().map(fact).collect();
    facts.join("; ")
}

fn drift(
    order_id: OrderId,
    kinds: BTreeSet<DriftKind>,
    stored: Option<&(order_orchestrator::PresentSaga, Vec<HistoryEntry>)>,
    replayed: &Detail,
) -> Drift {
    let nothing = || "nothing".to_owned();
    let Some((present, history)) = stored else {
        let state = replayed.saga.as_ref().map(|saga| saga.state.as_str().to_owned()).unwrap_or_else(nothing);
        return Drift { order_id, kinds, at: None, stored: nothing(), replayed: state };
    };
    let partition = present.partition;
    for index in 0..history.len().max(replayed.entries.len()) {
        let (was, is) = (history.get(index), replayed.entries.get(index));
        if let (Some(was), Some(is)) = (was, is)
            && (was.offset, was.rule.as_str(), was.now, &was.events)
                == (is.offset, is.rule, is.now, &is.events)
        {
            continue;
        }
        let place = was.map(|was| (was.offset, was.rule.clone()));
        let place = place.into_iter().chain(is.map(|is| (is.offset, is.rule.to_owned()))).min();
        let at = place.map(|(offset, rule)| DriftAt { partition, offset, rule });
        // An input that only one of them took part in stands against nothing.
        let here = |offset: i64| at.as_ref().is_some_and(|at| at.offset == offset);
        let stored = was.filter(|was| here(was.offset)).map(|was| facts(&was.events)).unwrap_or_else(nothing);
        let replayed = is.filter(|is| here(is.offset)).map(|is| facts(&is.events)).unwrap_or_else(nothing);
        return Drift { order_id, kinds, at, stored, replayed };
    }
    let changes = changes(&Some(&present.saga), &replayed.saga.as_ref());
    let side = |of: fn(&crate::at::Change) -> &serde_json::Value| {
        let fields: Vec<String> =
            changes.iter().map(|change| format!("{} = {}", change.field, of(change))).collect();
        if fields.is_empty() {
            "the same state and history, other messages".to_owned()
        } else {
            fields.join(", ")
        }
    };
    Drift {
        order_id,
        kinds,
        at: None,
        stored: side(|change| &change.from),
        replayed: side(|change| &change.to),
    }
}
