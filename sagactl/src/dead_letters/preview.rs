//! `dead-letters preview`: the parked records of each key, decided in their order by this build's pure rules against what is
//! stored now. Nothing is kept.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use messaging::{ParkedRecord, Record, Tx};
use order_orchestrator::SagaReader;
use payment_domain::PaymentRecord;
use payment_worker::{PaymentStore, Stored};
use saga::{Decision, IgnoreReason, fold};
use schemas::{DecodeError, Message, OrderSagaMessage};
use serde::Serialize;
use stock_domain::{Answer, Cause, Stock};
use stock_worker::{Needs, StockStore};

use super::{Key, Meant, by_key, find, place_of};
use crate::cli::Parked;
use crate::failure::{Failure, Verdict, in_full};
use crate::servers::Servers;
use crate::terminal::{Terminal, Tone, plain};

/// What a redrive of one record would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Something changes.
    Acts,
    /// Nothing changes: it was done before, or came to nothing since.
    Stale,
    /// It is refused, and that is answered.
    Refused,
    /// It would be parked again.
    StillPoison,
    /// One before it under the same key stays parked.
    Behind,
    /// It can be read; what it changes in a read model is not tried here.
    Readable,
}

#[derive(Debug, Serialize)]
struct Previewed {
    record: String,
    group: String,
    key: String,
    outcome: Outcome,
    detail: String,
}

type Verdicts = Vec<(Outcome, String)>;

pub(super) async fn run(
    servers: &Servers,
    options: &Parked,
    terminal: &Terminal,
) -> Result<Verdict, Failure> {
    let meant = Meant::new(options.which.as_deref(), options.group.as_ref(), options.cause.as_ref());
    let mut previewed = Vec::new();
    for key in by_key(find(servers, &meant).await?) {
        let verdicts = preview(servers, &key).await?;
        for (parked, (outcome, detail)) in key.records.iter().zip(verdicts) {
            let (record, group, key) = (place_of(parked), key.group.clone(), key.key.0.clone());
            previewed.push(Previewed { record, group, key, outcome, detail });
        }
    }
    let poison =
        previewed.iter().any(|record| matches!(record.outcome, Outcome::StillPoison | Outcome::Behind));
    previewed.truncate(options.limit);
    if terminal.json {
        terminal.json(&previewed)?;
    } else if previewed.is_empty() {
        terminal.line("nothing is parked");
    } else {
        print(&previewed, terminal);
    }
    Ok(Verdict::found_if(poison))
}

fn print(previewed: &[Previewed], terminal: &Terminal) {
    for record in previewed {
        let tone = match record.outcome {
            Outcome::Acts | Outcome::Readable => Tone::Good,
            Outcome::Stale | Outcome::Refused => Tone::Bold,
            Outcome::StillPoison | Outcome::Behind => Tone::Bad,
        };
        let outcome = terminal.toned(tone, &crate::describe::word(&record.outcome));
        terminal.line(format!(
            "{}  {}  {outcome}: {}",
            plain(&record.record),
            plain(&record.key),
            plain(&record.detail)
        ));
    }
}

/// What a redrive of a key's records would do, one by one.
async fn preview(servers: &Servers, key: &Key) -> Result<Verdicts, Failure> {
    let verdicts = match key.group.as_str() {
        order_orchestrator::CONSUMER_GROUP => sagas(servers, key).await?,
        stock_worker::CONSUMER_GROUP => stock(servers, key).await?,
        payment_worker::CONSUMER_GROUP => payments(servers, key).await?,
        _ => key.records.iter().map(readable).collect(),
    };
    Ok(in_order(verdicts))
}

/// What is behind one that stays parked stays parked too.
fn in_order(verdicts: Verdicts) -> Verdicts {
    let mut stuck = false;
    let behind = |(outcome, detail): (Outcome, String)| {
        let shown = if stuck {
            (Outcome::Behind, "one before it stays parked".to_owned())
        } else {
            (outcome, detail)
        };
        stuck = stuck || outcome == Outcome::StillPoison;
        shown
    };
    verdicts.into_iter().map(behind).collect()
}

fn poison(error: &DecodeError) -> (Outcome, String) {
    (Outcome::StillPoison, in_full(error))
}

fn readable(parked: &ParkedRecord) -> (Outcome, String) {
    match super::settle::check_value(&parked.record.topic, &parked.record.value) {
        Ok(message_type) => (Outcome::Readable, message_type),
        Err(why) => (Outcome::StillPoison, why),
    }
}

async fn sagas(servers: &Servers, key: &Key) -> Result<Verdicts, Failure> {
    let mut readers: Vec<SagaReader> = servers.sagas().await?;
    let mut saga = None;
    let mut of = None;
    let mut verdicts = Verdicts::new();
    for ParkedRecord { record, .. } in &key.records {
        let input = match order_orchestrator::decode(record) {
            Ok(input) => input,
            Err(error) => {
                verdicts.push(poison(&error));
                continue;
            }
        };
        if of != Some(input.order_id) {
            of = Some(input.order_id);
            saga = None;
            for reader in &mut readers {
                saga = saga.or(reader.find(input.order_id).await?.map(|present| present.saga));
            }
        }
        let (after, decision) = fold(saga.take(), &input.message, record.time);
        saga = after;
        verdicts.push(decided(&input.message, &decision, saga.as_ref()));
    }
    Ok(verdicts)
}

fn decided(message: &OrderSagaMessage, decision: &Decision, after: Option<&saga::Saga>) -> (Outcome, String) {
    let name = message.type_name();
    match decision {
        Decision::Advance(_) => {
            let state = after.map_or("", |saga| saga.state.as_str());
            (Outcome::Acts, format!("{name}: the order is {state} then"))
        }
        Decision::Refuse(code, _) => (Outcome::Refused, format!("{name}: {code}")),
        Decision::Ignore(IgnoreReason::InvalidOrder) => (
            Outcome::StillPoison,
            format!("{name} breaks the contract: no lines, too many, or a sum nobody can name"),
        ),
        Decision::Ignore(reason) => (Outcome::Stale, format!("{name}: {reason}")),
    }
}

/// The database that parked them; nothing is kept.
async fn open(servers: &Servers, key: &Key) -> Result<Tx, Failure> {
    let pools = servers.databases(key.service).await?;
    let pool =
        pools.first().ok_or_else(|| Failure::usage(format!("there is no database of {}", key.service)))?;
    Tx::open(pool)
        .await
        .map_err(|error| Failure::away(format!("the {} database failed: {error}", key.service)))
}

async fn stock(servers: &Servers, key: &Key) -> Result<Verdicts, Failure> {
    let mut tx = open(servers, key).await?;
    let mut stock = Stock::default();
    let mut verdicts = Verdicts::new();
    for ParkedRecord { record, .. } in &key.records {
        verdicts.push(match stock_worker::decode(record) {
            Ok(command) => stock_decided(&mut tx, &mut stock, record, &command).await?,
            Err(error) => poison(&error),
        });
    }
    Ok(verdicts)
}

async fn stock_decided(
    tx: &mut Tx,
    stock: &mut Stock,
    record: &Record,
    command: &schemas::Envelope<schemas::StockCommand>,
) -> Result<(Outcome, String), Failure> {
    let away = |error: messaging::HandlerError| Failure::away(format!("the stock database failed: {error}"));
    let mut needs = Needs::default();
    needs.add(command.order_id, &command.message);
    StockStore::load(tx, record.partition, &needs, stock).await.map_err(away)?;
    let cause = Cause { message_id: command.message_id, offset: record.offset.0, at: record.time };
    let name = command.message.type_name();
    let decision = match stock.decide(command.order_id, &command.message, cause) {
        Ok(decision) => decision,
        Err(error) => return Ok((Outcome::StillPoison, format!("{name}: {error}"))),
    };
    let acts = decision.entry.is_some() || decision.hold.is_some() || decision.change.is_some();
    if let Err(error) = stock.evolve(&decision) {
        return Ok((Outcome::StillPoison, format!("{name}: {error}")));
    }
    let answer = match &decision.answer {
        Answer::Saga(_, reply) => reply.type_name(),
        Answer::Admin(event) => event.type_name(),
    };
    let is_refusal = matches!(answer, "StockRefused" | "StockCommandFailed" | "StockChangeRefused");
    let outcome = match (is_refusal, acts) {
        (true, _) => Outcome::Refused,
        (false, true) => Outcome::Acts,
        (false, false) => Outcome::Stale,
    };
    Ok((outcome, format!("{name}: answered with {answer}")))
}

async fn payments(servers: &Servers, key: &Key) -> Result<Verdicts, Failure> {
    let mut tx = open(servers, key).await?;
    let mut known: HashMap<_, Option<PaymentRecord>> = HashMap::new();
    let mut verdicts = Verdicts::new();
    for ParkedRecord { record, .. } in &key.records {
        let command = match payment_worker::decode(record) {
            Ok(command) => command,
            Err(error) => {
                verdicts.push(poison(&error));
                continue;
            }
        };
        let order_id = command.order_id;
        if let Entry::Vacant(place) = known.entry(order_id) {
            let away = |error| Failure::away(format!("the payment database failed: {error}"));
            let loaded = PaymentStore::load(&mut tx, record.partition, &[order_id]).await;
            let stored = match loaded.map_err(away)?.remove(&order_id) {
                Some(Stored::Record(record)) => Some(record),
                Some(Stored::Unreadable(why)) => {
                    verdicts.push((Outcome::StillPoison, format!("the stored charge can't be read: {why}")));
                    continue;
                }
                None => None,
            };
            place.insert(stored);
        }
        let before = known.entry(order_id).or_default();
        let decision = payment_domain::decide(before.as_ref(), order_id, &command.message, &command.cause);
        let name = command.message.type_name();
        let failed = decision.replies.iter().find_map(|reply| match &reply.answer {
            payment_domain::Answer::Failed { code, .. } => Some(code.clone()),
            _ => None,
        });
        verdicts.push(match (failed, &decision.record) {
            (Some(code), _) => (Outcome::Refused, format!("{name}: {code}")),
            (None, Some(_)) => (Outcome::Acts, name.to_owned()),
            (None, None) => (Outcome::Stale, format!("{name}: answered before, or its answer is on its way")),
        });
        if decision.record.is_some() {
            *before = decision.record;
        }
    }
    Ok(verdicts)
}
