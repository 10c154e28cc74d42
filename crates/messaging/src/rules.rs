//! What every implementation of [`crate::owner::Ports`] must do alike, whatever its log and database are: what a record
//! says, what a transaction publishes, and whether a position belongs to a log.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;

use crate::owner::{Transaction, Work};
use crate::parking::parse_control;
use crate::reader::UNREADABLE_HEADERS;
use crate::{Handler, HandlerError, NextOffset, Output, Outputs, ParkCause, Parsed, PositionError, Record};

/// The consumer whose transactions these are.
#[derive(Debug, Clone, Copy)]
pub struct House<'a> {
    /// Its group; dead letters name it.
    pub group: &'a str,
    /// The topic of dead letters.
    pub dead_letters: &'a str,
    /// The largest output.
    pub output_bytes: usize,
}

/// What a record says to the runtime, or to `handler`. Never panics, whatever the handler does.
pub fn parse<Tx, H: Handler<Tx>>(handler: Option<&H>, record: &Record) -> Parsed<H::Input> {
    let unreadable = |cause, detail| Parsed::Unreadable { cause, detail };
    if record.header(UNREADABLE_HEADERS).is_some() {
        return unreadable(ParkCause::Malformed, "a header's name is not UTF-8".to_owned());
    }
    if record.is_control() {
        return parse_control(record);
    }
    let Some(handler) = handler else {
        return unreadable(ParkCause::Failed, "no handler owns this partition".to_owned());
    };
    match std::panic::catch_unwind(AssertUnwindSafe(|| handler.decode(record))) {
        Ok(Ok(input)) => Parsed::Input(input),
        Ok(Err(error)) => Parsed::unreadable(&error),
        Err(panic) => unreadable(ParkCause::Failed, panic_message(&*panic)),
    }
}

/// Runs the handler on the work of a transaction. Returns all that the transaction is to keep and publish: the runtime's
/// own outputs, the handler's, and a dead letter for each record that is set aside.
///
/// # Errors
/// What the handler says; a panic and an output that is too large to be published are errors too.
pub async fn outputs_of<Tx, H: Handler<Tx>>(
    handler: &mut H,
    tx: &mut Tx,
    transaction: &Transaction<'_, H::Input>,
    house: House<'_>,
) -> Result<Vec<Output>, HandlerError> {
    let mut outputs = Outputs(transaction.outputs.clone());
    let handled = async {
        match transaction.work {
            Work::Records(batch) => handler.handle(tx, batch, &mut outputs).await,
            Work::Owner(now) => handler.work(tx, now, &mut outputs).await,
            Work::Nothing => Ok(()),
        }
    };
    match AssertUnwindSafe(handled).catch_unwind().await {
        Ok(result) => result?,
        Err(panic) => return Err(HandlerError::bug(panic_message(&*panic))),
    }
    check_sizes(&outputs.0, house.output_bytes)?;
    let letters = transaction.park.iter();
    outputs.0.extend(
        letters.map(|parking| parking.dead_letter(house.dead_letters, house.group, house.output_bytes)),
    );
    Ok(outputs.0)
}

/// What was committed must be publishable.
fn check_sizes(outputs: &[Output], limit: usize) -> Result<(), HandlerError> {
    match outputs.iter().find(|output| output.size_bytes() > limit) {
        None => Ok(()),
        Some(output) => Err(HandlerError::permanent(format!(
            "an output for {} has {} bytes, {limit} are allowed",
            output.topic,
            output.size_bytes()
        ))),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the handler panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))
}

/// A position, as it is stored beside the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPosition {
    /// The next record to read.
    pub next: NextOffset,
    /// The cluster it was made on.
    pub cluster_id: String,
    /// The log it was made on, once that had a record.
    pub log_id: Option<String>,
}

/// What a log says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFacts {
    /// The cluster it is on.
    pub cluster_id: String,
    /// Its identity; `None` while it is empty, and for compacted topics.
    pub log_id: Option<String>,
    /// Its first offset.
    pub low: i64,
    /// One past its last offset.
    pub high: i64,
}

/// The identity of the log whose first record this is: its time and its content.
pub fn log_id(first: &Record) -> String {
    let content = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &first.value);
    format!("{}-{}", first.time.as_millis(), content.simple())
}

/// Whether a stored position belongs to the log that is there.
///
/// # Errors
/// Why reading on would lose or repeat records.
pub fn check_position(
    topic: &str,
    partition: i32,
    stored: &StoredPosition,
    log: &LogFacts,
) -> Result<(), PositionError> {
    let topic = || topic.to_owned();
    if stored.cluster_id != log.cluster_id {
        let (stored, found) = (stored.cluster_id.clone(), log.cluster_id.clone());
        return Err(PositionError::OtherCluster { topic: topic(), partition, stored, found });
    }
    if let (Some(stored), Some(found)) = (&stored.log_id, &log.log_id)
        && stored != found
    {
        let (stored, found) = (stored.clone(), found.clone());
        return Err(PositionError::OtherLog { topic: topic(), partition, stored, found });
    }
    let (next, low, high) = (stored.next.0, log.low, log.high);
    if next < low || next > high {
        return Err(PositionError::OutsideLog { topic: topic(), partition, next, low, high });
    }
    Ok(())
}
