//! First come, first served: whether units went to those who came first, by the log alone.
//!
//! Two rules. **Reserves**: among the reserves of a sku, in the order they were applied, none is refused as sold out and a
//! later one granted at least as many units, unless units were given back or added in between. **Tickets**: who was given
//! a ticket at the door is not refused as sold out; that can be asked only of skus whose every order carries a ticket
//! of the same count, and from which nobody took units away.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use domain_types::{Attempt, LineNumber, OrderId, Sku};
use messaging::{Cluster, LogReader, Record, dead_letter};
use schemas::{ControlMessage, Envelope, OrderSagaMessage, ReserveRefusal, StockCommand, Ticket, Topic};

use crate::{Place, Violation};

/// The consumer group that applies `stock-commands`.
const STOCK_WORKER: &str = "stock-worker";

/// Why the logs could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Kafka did not answer.
    #[error("the logs can't be read")]
    Kafka(#[from] messaging::KafkaError),
    /// A record that is neither parked nor readable.
    #[error("{topic}/{partition}@{offset} can't be read: {detail}")]
    Unreadable {
        /// The topic.
        topic: &'static str,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// Why.
        detail: String,
    },
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct FirstCome {
    /// Reserves that were compared.
    pub reserves: u64,
    /// Tickets that had to be honoured.
    pub tickets: u64,
    /// Skus whose tickets promise nothing: some of their orders have none, or one of another count, or units were taken
    /// away.
    pub skus_without_promise: BTreeSet<String>,
    /// What breaks a rule; names order, sku and record.
    pub violations: Vec<Violation>,
}

type Step = (OrderId, LineNumber, Attempt);

/// The stock worker's answers and what orders asked for, by `order-saga`.
#[derive(Debug, Default)]
pub struct Orders {
    refused: HashMap<Step, ReserveRefusal>,
    reserved: HashSet<Step>,
    gave_back_nothing: HashSet<Step>,
    /// Tickets of each sku's order lines, in no order.
    lines: BTreeMap<Sku, Vec<(OrderId, LineNumber, Option<Ticket>)>>,
}

impl Orders {
    /// Notes one record of `order-saga`.
    pub fn note(&mut self, envelope: Envelope<OrderSagaMessage>) {
        let Some(order) = envelope.order_id else { return };
        match envelope.message {
            OrderSagaMessage::PlaceOrder(place) => {
                for (number, line) in (0..).zip(place.lines) {
                    let entry = (order, LineNumber(number), line.ticket);
                    self.lines.entry(line.sku).or_default().push(entry);
                }
            }
            OrderSagaMessage::StockReserved(reply) => {
                self.reserved.insert((order, reply.line, reply.attempt));
            }
            OrderSagaMessage::StockRefused(reply) => {
                self.refused.insert((order, reply.line, reply.attempt), reply.reason);
            }
            OrderSagaMessage::StockReleased(reply) if reply.units == 0 => {
                self.gave_back_nothing.insert((order, reply.line, reply.attempt));
            }
            // The rest says nothing about who got what.
            OrderSagaMessage::StockReleased(_)
            | OrderSagaMessage::PayOrder(_)
            | OrderSagaMessage::CancelOrder(_)
            | OrderSagaMessage::ReturnOrder(_)
            | OrderSagaMessage::StockConfirmed(_)
            | OrderSagaMessage::StockRestocked(_)
            | OrderSagaMessage::StockCommandFailed(_)
            | OrderSagaMessage::PaymentApproved(_)
            | OrderSagaMessage::PaymentDeclined(_)
            | OrderSagaMessage::PaymentClosed(_)
            | OrderSagaMessage::PaymentRefunded(_)
            | OrderSagaMessage::PaymentCommandFailed(_)
            | OrderSagaMessage::TimerFired(_)
            | OrderSagaMessage::PauseSaga(_)
            | OrderSagaMessage::ResumeSaga(_)
            | OrderSagaMessage::RetryStep(_)
            | OrderSagaMessage::SkipStep(_)
            | OrderSagaMessage::CompensateSaga(_) => {}
        }
    }
}

/// Walks the reserves of one partition in the order they were applied.
#[derive(Debug, Default)]
pub struct Walk {
    found: FirstCome,
    /// The fewest units that were refused as sold out since units last came, and to whom.
    refused: HashMap<Sku, (u32, OrderId)>,
    seen: HashSet<(OrderId, LineNumber)>,
    withdrawn: HashSet<Sku>,
    /// With where each reserve was applied.
    sold_out: HashMap<(OrderId, LineNumber), Place>,
}

impl Walk {
    /// The next command; `at` is where it was applied.
    pub fn command(&mut self, orders: &Orders, command: &Envelope<StockCommand>, at: Place) {
        match &command.message {
            StockCommand::ReserveStock(reserve) => {
                let Some(order) = command.order_id else { return };
                let step = (order, reserve.line, reserve.attempt);
                if !self.seen.insert((order, reserve.line)) {
                    return; // A repeat: answered as before.
                }
                let units = reserve.quantity.get();
                if orders.refused.get(&step) == Some(&ReserveRefusal::SoldOut) {
                    self.found.reserves += 1;
                    self.sold_out.insert((order, reserve.line), at);
                    let least = self.refused.entry(reserve.sku.clone()).or_insert((units, order));
                    if units < least.0 {
                        *least = (units, order);
                    }
                } else if orders.reserved.contains(&step) {
                    self.found.reserves += 1;
                    if let Some((refused, before)) = self.refused.get(&reserve.sku)
                        && *refused <= units
                    {
                        let sku = &reserve.sku;
                        let detail = format!(
                            "{sku}: order {before} was refused {refused} units as sold out, and order {order} was then \
                             granted {units} ({at})"
                        );
                        let found = Violation::new("first_come", detail).of_order(order.uuid());
                        self.found.violations.push(found.of_sku(sku.to_string()).at(at));
                    }
                }
            }
            StockCommand::ReleaseStock(release) => {
                let step = command.order_id.map(|order| (order, release.line, release.attempt));
                if !step.is_some_and(|step| orders.gave_back_nothing.contains(&step)) {
                    self.refused.remove(&release.sku);
                }
            }
            StockCommand::RestockStock(restock) => {
                self.refused.remove(&restock.sku);
            }
            StockCommand::DefineProduct(define) => {
                self.refused.remove(&define.sku);
            }
            StockCommand::ChangeStock(change) => {
                if change.quantity > 0 {
                    self.refused.remove(&change.sku);
                } else {
                    self.withdrawn.insert(change.sku.clone());
                }
            }
            StockCommand::ConfirmStock(_) => {}
        }
    }

    /// Asks whether the tickets were honoured, and ends.
    pub fn finish(mut self, orders: &Orders) -> FirstCome {
        for (sku, lines) in &orders.lines {
            let generations: HashSet<Option<i64>> =
                lines.iter().map(|(_, _, ticket)| ticket.map(|ticket| ticket.generation)).collect();
            if generations.len() != 1 || generations.contains(&None) || self.withdrawn.contains(sku) {
                self.found.skus_without_promise.insert(sku.to_string());
                continue;
            }
            for (order, line, ticket) in lines {
                let Some(ticket) = ticket else { continue };
                self.found.tickets += 1;
                if let Some(at) = self.sold_out.get(&(*order, *line)) {
                    let number = ticket.number;
                    let detail = format!(
                        "{sku}: order {order} had ticket {number} and was refused as sold out ({at})"
                    );
                    let found = Violation::new("ticket", detail).of_order(order.uuid());
                    self.found.violations.push(found.of_sku(sku.to_string()).at(*at));
                }
            }
        }
        self.found
    }
}

/// Checks what the logs of a cluster hold now. Blocks: call it where that is allowed.
///
/// # Errors
/// If Kafka does not answer, or a record can't be read and is not parked.
pub fn check_logs(cluster: impl Into<Cluster>) -> Result<FirstCome, LogError> {
    let reader = &LogReader::new(cluster)?;
    let mut orders = Orders::default();
    for_each(reader, Topic::OrderSaga, |record| {
        if !record.is_control() {
            // What can't be read is parked by the orchestrator and says nothing about stock.
            if let Ok(envelope) = Envelope::decode(&record.value) {
                orders.note(envelope);
            }
        }
        Ok(())
    })?;
    let parked = parked(reader, STOCK_WORKER, Topic::StockCommands)?;
    let mut walk = Walk::default();
    let mut aside: HashMap<(i32, i64), Envelope<StockCommand>> = HashMap::new();
    for_each(reader, Topic::StockCommands, |record| {
        let place = (record.partition, record.offset.0);
        let at = Place { topic: Topic::StockCommands.name(), partition: place.0, offset: place.1 };
        if record.is_control() {
            for offset in redriven(&record) {
                if let Some(command) = aside.remove(&(record.partition, offset)) {
                    walk.command(&orders, &command, at);
                }
            }
            return Ok(());
        }
        match Envelope::<StockCommand>::decode(&record.value) {
            Ok(command) if parked.contains(&place) => {
                aside.insert(place, command);
            }
            Ok(command) => walk.command(&orders, &command, at),
            Err(_) if parked.contains(&place) => {}
            Err(error) => {
                let topic = Topic::StockCommands.name();
                let detail = error.to_string();
                return Err(LogError::Unreadable { topic, partition: place.0, offset: place.1, detail });
            }
        }
        Ok(())
    })?;
    Ok(walk.finish(&orders))
}

/// The offsets that a control record has the stock worker apply, in order.
fn redriven(record: &Record) -> Vec<i64> {
    match Envelope::<ControlMessage>::decode(&record.value).map(|envelope| envelope.message) {
        Ok(ControlMessage::RedriveParked(redrive)) if redrive.consumer_group == STOCK_WORKER => {
            redrive.offsets
        }
        _ => Vec::new(),
    }
}

/// What a consumer group set aside of a topic.
pub(crate) fn parked(reader: &LogReader, group: &str, topic: Topic) -> Result<HashSet<(i32, i64)>, LogError> {
    let mut parked = HashSet::new();
    for_each(reader, Topic::DeadLetters, |letter| {
        let text = |name| letter.header(name).and_then(|value| std::str::from_utf8(value).ok());
        if text(dead_letter::GROUP) == Some(group)
            && text(dead_letter::TOPIC) == Some(topic.name())
            && let Some(partition) = text(dead_letter::PARTITION).and_then(|text| text.parse().ok())
            && let Some(offset) = text(dead_letter::OFFSET).and_then(|text| text.parse().ok())
        {
            parked.insert((partition, offset));
        }
        Ok(())
    })?;
    Ok(parked)
}

pub(crate) fn for_each(
    reader: &LogReader,
    topic: Topic,
    mut each: impl FnMut(Record) -> Result<(), LogError>,
) -> Result<(), LogError> {
    for partition in 0..reader.partitions(topic.name())? {
        let (low, high) = reader.bounds(topic.name(), partition)?;
        let mut failed = None;
        reader.read(topic.name(), partition, low, high, |record| {
            if failed.is_none() {
                failed = each(record).err();
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}
