//! Commands as they come from the log.

use domain_types::Sku;
use messaging::Record;
use schemas::{DecodeError, Envelope, Message, StockCommand};

/// The product that a command is about.
pub(crate) fn sku_of(command: &StockCommand) -> &Sku {
    match command {
        StockCommand::ReserveStock(command) => &command.sku,
        StockCommand::ConfirmStock(command) => &command.sku,
        StockCommand::ReleaseStock(command) => &command.sku,
        StockCommand::RestockStock(command) => &command.sku,
        StockCommand::DefineProduct(command) => &command.sku,
        StockCommand::ChangeStock(command) => &command.sku,
    }
}

fn is_orders(command: &StockCommand) -> bool {
    match command {
        StockCommand::ReserveStock(_)
        | StockCommand::ConfirmStock(_)
        | StockCommand::ReleaseStock(_)
        | StockCommand::RestockStock(_) => true,
        StockCommand::DefineProduct(_) | StockCommand::ChangeStock(_) => false,
    }
}

/// Reads a command, and refuses one that does not belong where it is: under another key it would be in another
/// partition than its product, and an order's command without an order has nobody to answer to.
///
/// # Errors
/// Why the record is no command.
pub fn decode(record: &Record) -> Result<Envelope<StockCommand>, DecodeError> {
    let envelope = Envelope::<StockCommand>::decode(&record.value)?;
    let malformed = |why: &str| {
        let message_type = envelope.message.type_name().to_owned();
        Err(DecodeError::Malformed { message_type, source: serde::de::Error::custom(why) })
    };
    if record.key_str() != Some(sku_of(&envelope.message).as_str()) {
        return malformed("the record's key is not the command's sku");
    }
    if is_orders(&envelope.message) && envelope.order_id.is_none() {
        return malformed("the envelope names no order");
    }
    Ok(envelope)
}
