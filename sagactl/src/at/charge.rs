//! An order's charge as it was: its commands on `payment-commands`, and the payment worker's answers on `order-saga`, folded by
//! the payment worker's pure rules. What the provider was asked in between is in no topic: a charge is `requested` until its
//! answer is there.

use std::collections::HashMap;
use std::time::Duration;

use domain_types::{CustomerId, MessageId, Money, OrderId, Timestamp};
use messaging::{LogReader, Record};
use payment_domain::{
    Charge, ChargeAnswer, ChargeState, PaymentRecord, Policy, ProviderAnswer, RefundAnswer, VoidAnswer,
    answered, decide,
};
use schemas::{Envelope, Message, OrderSagaMessage, PaymentCommandKind, Topic};
use serde::Serialize;

use super::Until;
use crate::dead_letters::partition_of;
use crate::failure::{Failure, Verdict};
use crate::log::{Walk, parkings_of};
use crate::servers::Servers;
use crate::show;
use crate::terminal::{Terminal, Tone, plain};

/// A record that had been applied.
#[derive(Debug, Clone, Serialize)]
pub(super) struct After {
    at: Timestamp,
    rule: &'static str,
    topic: &'static str,
    partition: i32,
    offset: i64,
}

/// A charge.
#[derive(Debug, Serialize)]
pub(super) struct ChargeView {
    order_id: OrderId,
    customer_id: CustomerId,
    /// As the payment worker stores it; `barred`: closed before it was asked for.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    /// Minor units taken and given back.
    charged: i64,
    refunded: i64,
    /// The provider's names for the charge and for the refund.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_reference: Option<String>,
    /// Why nothing was taken, or what could not be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl ChargeView {
    fn new(record: &PaymentRecord) -> Self {
        match record {
            PaymentRecord::Barred { order_id, customer_id } => Self {
                order_id: *order_id,
                customer_id: *customer_id,
                state: "barred",
                amount: None,
                method: None,
                charged: 0,
                refunded: 0,
                reference: None,
                refund_reference: None,
                reason: None,
            },
            PaymentRecord::Charge(charge) => Self::of_charge(charge),
        }
    }

    fn of_charge(charge: &Charge) -> Self {
        let (mut reference, mut refund_reference, mut reason) = (None, None, None);
        match &charge.state {
            ChargeState::Approved { reference: named }
            | ChargeState::RefundRequested { reference: named, .. } => reference = Some(named.clone()),
            ChargeState::Refunded { reference: named, refund_reference: refund } => {
                (reference, refund_reference) = (Some(named.clone()), Some(refund.clone()));
            }
            ChargeState::Declined { reason: why, .. } => reason = Some(crate::describe::word(why)),
            ChargeState::Failed { code, .. } => reason = Some(code.clone()),
            ChargeState::Requested { .. }
            | ChargeState::Unknown { .. }
            | ChargeState::Closing { .. }
            | ChargeState::Closed { .. } => {}
        }
        let (charged, refunded) = charge.balance();
        Self {
            order_id: charge.order_id,
            customer_id: charge.customer_id,
            state: charge.state.name(),
            amount: Some(charge.terms.amount),
            method: Some(charge.terms.method.0.clone()),
            charged,
            refunded,
            reference,
            refund_reference,
            reason,
        }
    }
}

/// A command or an answer, in the order in which they were applied: first by time, then an answer right behind its command.
struct Step {
    at: (Timestamp, usize),
    after: After,
    what: What,
}

enum What {
    Command(payment_worker::Command),
    Answer(OrderSagaMessage),
}

/// The charge after everything for which `until` holds; `None` if none had been asked for then.
pub(super) async fn then(
    servers: &Servers,
    order_id: OrderId,
    until: Until,
) -> Result<Option<(ChargeView, After)>, Failure> {
    let (present, history, _snapshot) = show::find(servers, order_id).await?;
    let (partition, customer) = (present.partition, present.saga.customer_id);
    let begin = history.iter().map(|entry| entry.offset).min().unwrap_or(0);
    let since = present.saga.ordered_at;
    let reader = servers.log()?;
    let folding = tokio::task::spawn_blocking(move || {
        let (mut steps, commands) = commands(&reader, order_id, customer, since, until)?;
        answers(&reader, order_id, (partition, begin), &commands, until, &mut steps)?;
        steps.sort_by_key(|step| step.at);
        if until.offset.is_some() {
            // Up to that command: what was answered behind it does not count.
            let last = steps.iter().rposition(|step| matches!(step.what, What::Command(_)));
            steps.truncate(last.map_or(0, |last| last + 1));
        }
        Ok::<_, Failure>(fold(order_id, &steps))
    });
    folding.await.map_err(|error| Failure::away(error.to_string()))?
}

/// The order's commands, and where each one's message is among them.
type Commands = HashMap<MessageId, (usize, Timestamp)>;

fn commands(
    reader: &LogReader,
    order_id: OrderId,
    customer: CustomerId,
    since: Timestamp,
    until: Until,
) -> Result<(Vec<Step>, Commands), Failure> {
    let (topic, group) = (Topic::PaymentCommands, payment_worker::CONSUMER_GROUP);
    let key = customer.to_string();
    let partition = partition_of(key.as_bytes(), reader.partitions(topic.name())?);
    let recorded = parkings_of(reader, group, topic)?.remove(&partition).unwrap_or_default();
    let mut walk = Walk::new(group, recorded, |record: &Record| payment_worker::decode(record).ok());
    let (mut steps, mut places) = (Vec::new(), Commands::new());
    let (_, high) = reader.bounds(topic.name(), partition)?;
    let low = reader.offset_at(topic.name(), partition, since)?.min(high);
    reader.read(topic.name(), partition, low, high, |record| {
        let wanted = record.is_control() || record.key_str() == Some(&key);
        if !wanted || !until.has(&record) {
            return;
        }
        // A redriven one is applied when its redrive comes.
        let at = record.time;
        walk.next(record, |record, command| {
            if command.order_id != order_id {
                return;
            }
            let number = places.len();
            places.entry(command.cause.message_id).or_insert((number, at));
            let (rule, offset) = (command.message.type_name(), record.offset.0);
            let after = After { at: record.time, rule, topic: topic.name(), partition, offset };
            steps.push(Step { at: (at, 2 * number + 1), after, what: What::Command(command) });
        });
    })?;
    Ok((steps, places))
}

fn answers(
    reader: &LogReader,
    order_id: OrderId,
    (partition, begin): (i32, i64),
    commands: &Commands,
    until: Until,
    steps: &mut Vec<Step>,
) -> Result<(), Failure> {
    let topic = Topic::OrderSaga.name();
    let (_, high) = reader.bounds(topic, partition)?;
    let key = order_id.to_string();
    reader.read(topic, partition, begin, high, |record| {
        if record.is_control() || record.key_str() != Some(&key) || !until.in_time(&record) {
            return;
        }
        let Ok(envelope) = Envelope::<OrderSagaMessage>::decode(&record.value) else { return };
        let command = envelope.causation_id.and_then(|cause| commands.get(&cause));
        // Others' messages, and answers to commands that came later, answer nothing here.
        let Some((number, asked_at)) = command else { return };
        let at = (record.time.max(*asked_at), 2 * number + 2);
        let (rule, offset) = (envelope.message.type_name(), record.offset.0);
        let after = After { at: record.time, rule, topic, partition, offset };
        steps.push(Step { at, after, what: What::Answer(envelope.message) });
    })?;
    Ok(())
}

fn fold(order_id: OrderId, steps: &[Step]) -> Option<(ChargeView, After)> {
    let (mut known, mut last): (Option<PaymentRecord>, _) = (None, None);
    for step in steps {
        let decision = match (&step.what, &known) {
            (What::Command(command), known) => {
                Some(decide(known.as_ref(), order_id, &command.message, &command.cause))
            }
            (What::Answer(answer), Some(PaymentRecord::Charge(charge))) => provider_said(answer)
                .map(|(said, policy)| answered(charge, charge.calls, &said, step.after.at, &policy)),
            (What::Answer(_), Some(PaymentRecord::Barred { .. }) | None) => None,
        };
        if let Some(record) = decision.and_then(|decision| decision.record) {
            known = Some(record);
            last = Some(step.after.clone());
        }
    }
    known.as_ref().map(ChargeView::new).zip(last)
}

/// What the provider must have said for the worker to answer so.
fn provider_said(answer: &OrderSagaMessage) -> Option<(ProviderAnswer, Policy)> {
    let policy = Policy::default();
    let said = match answer {
        OrderSagaMessage::PaymentApproved(approved) => {
            ProviderAnswer::Charge(ChargeAnswer::Approved { reference: approved.reference.clone() })
        }
        OrderSagaMessage::PaymentDeclined(declined) => {
            ProviderAnswer::Charge(ChargeAnswer::Declined(declined.reason))
        }
        OrderSagaMessage::PaymentClosed(_) => ProviderAnswer::Void(VoidAnswer::Voided),
        OrderSagaMessage::PaymentRefunded(refunded) => {
            ProviderAnswer::Refund(RefundAnswer::Refunded { reference: refunded.reference.clone() })
        }
        OrderSagaMessage::PaymentCommandFailed(failed) => match failed.command {
            PaymentCommandKind::Refund => {
                ProviderAnswer::Refund(RefundAnswer::Refused { code: failed.code.clone() })
            }
            // Asked for as long as the worker's policy says, and still not known.
            PaymentCommandKind::Charge | PaymentCommandKind::Close => {
                let policy = Policy { unknown_limit: Duration::ZERO, ..policy };
                return Some((ProviderAnswer::Charge(ChargeAnswer::Unknown), policy));
            }
        },
        OrderSagaMessage::PlaceOrder(_)
        | OrderSagaMessage::PayOrder(_)
        | OrderSagaMessage::CancelOrder(_)
        | OrderSagaMessage::ReturnOrder(_)
        | OrderSagaMessage::StockReserved(_)
        | OrderSagaMessage::StockRefused(_)
        | OrderSagaMessage::StockConfirmed(_)
        | OrderSagaMessage::StockReleased(_)
        | OrderSagaMessage::StockRestocked(_)
        | OrderSagaMessage::StockCommandFailed(_)
        | OrderSagaMessage::TimerFired(_)
        | OrderSagaMessage::PauseSaga(_)
        | OrderSagaMessage::ResumeSaga(_)
        | OrderSagaMessage::RetryStep(_)
        | OrderSagaMessage::SkipStep(_)
        | OrderSagaMessage::CompensateSaga(_) => return None,
    };
    Some((said, policy))
}

#[derive(Serialize)]
struct ChargeWas {
    after: Option<After>,
    charge: Option<ChargeView>,
}

pub(super) fn print(
    order: OrderId,
    was: Option<(ChargeView, After)>,
    terminal: &Terminal,
) -> Result<Verdict, Failure> {
    let found = was.is_some();
    if terminal.json {
        let (charge, after) = was.unzip();
        terminal.json(&ChargeWas { after, charge })?;
        return Ok(Verdict::found_if(!found));
    }
    let Some((charge, after)) = was else {
        terminal.line(format!("no charge of order {order} had been asked for then"));
        return Ok(Verdict::Found);
    };
    let reason = charge.reason.as_deref().map(|reason| format!(" ({})", plain(reason))).unwrap_or_default();
    let head = format!("Charge of order {order} was {}{reason}", charge.state);
    terminal.line(terminal.toned(Tone::Bold, &head));
    terminal.line(format!(
        "  since {} at {} ({}/{}@{})",
        after.rule,
        terminal.time(after.at),
        after.topic,
        after.partition,
        after.offset
    ));
    if let (Some(amount), Some(method)) = (charge.amount, &charge.method) {
        let currency = crate::describe::word(&amount.currency);
        terminal.line(format!("  {} {currency} by {}", amount.amount, plain(method)));
    }
    terminal.line(format!("  {} charged, {} given back", charge.charged, charge.refunded));
    for (what, name) in [("charge", &charge.reference), ("refund", &charge.refund_reference)] {
        if let Some(name) = name {
            terminal.line(format!("  the provider's name for the {what}: {}", plain(name)));
        }
    }
    Ok(Verdict::Fine)
}
