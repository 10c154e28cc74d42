//! A product's stock as it was: its commands folded from the log by the stock worker's pure rules.

use std::collections::HashSet;

use domain_types::{CustomerId, Sku};
use messaging::{LogReader, Record};
use schemas::{Envelope, Message, StockCommand, Topic};
use serde::Serialize;
use stock_domain::{Cause, Item, Stock};

use super::Applied;
use crate::dead_letters::partition_of;
use crate::failure::Failure;
use crate::log::{Walk, parkings_of};
use crate::servers::Servers;

/// A product's stock.
#[derive(Debug, Serialize)]
pub(super) struct StockView {
    sku: String,
    pub(super) initial: i64,
    pub(super) restocked: i64,
    pub(super) available: i64,
    pub(super) held: i64,
    pub(super) sold: i64,
    /// Number of its ledger entries.
    pub(super) version: i64,
    product_version: i64,
    name: String,
}

impl StockView {
    fn new(item: &Item) -> Self {
        Self {
            sku: item.sku.to_string(),
            initial: item.initial,
            restocked: item.restocked,
            available: item.available,
            held: item.held,
            sold: item.sold,
            version: item.version,
            product_version: item.product_version,
            name: item.product.name.clone(),
        }
    }
}

#[derive(Default)]
struct Folded {
    stock: Stock,
    customers: HashSet<CustomerId>,
    last: Option<Applied>,
}

impl Folded {
    fn apply(&mut self, record: &Record, command: &Envelope<StockCommand>) {
        if let StockCommand::ReserveStock(reserve) = &command.message
            && self.customers.insert(reserve.customer_id)
        {
            self.stock.load_customer_units(reserve.sku.clone(), reserve.customer_id, 0);
        }
        let cause = Cause { message_id: command.message_id, offset: record.offset.0, at: record.time };
        let Ok(decision) = self.stock.decide(command.order_id, &command.message, cause) else { return };
        let changes = decision.entry.is_some();
        if self.stock.evolve(&decision).is_ok() && changes {
            let (rule, offset) = (command.message.type_name(), record.offset.0);
            self.last = Some(Applied { at: record.time, rule, partition: record.partition, offset });
        }
    }
}

/// The product after everything for which `until` holds; `None` if there was no such product then.
pub(super) async fn then(
    servers: &Servers,
    sku: &Sku,
    until: impl Fn(&Record) -> bool + Send + 'static,
) -> Result<Option<(StockView, Applied)>, Failure> {
    let reader = servers.log()?;
    let sku = sku.clone();
    let folding = tokio::task::spawn_blocking(move || fold(&reader, &sku, until));
    folding.await.map_err(|error| Failure::away(error.to_string()))?
}

fn fold(
    reader: &LogReader,
    sku: &Sku,
    until: impl Fn(&Record) -> bool,
) -> Result<Option<(StockView, Applied)>, Failure> {
    let topic = Topic::StockCommands;
    let partition = partition_of(sku.as_str().as_bytes(), reader.partitions(topic.name())?);
    let recorded = parkings_of(reader, stock_worker::CONSUMER_GROUP, topic)?.remove(&partition);
    let decode = |record: &Record| stock_worker::decode(record).ok();
    let mut walk = Walk::new(stock_worker::CONSUMER_GROUP, recorded.unwrap_or_default(), decode);
    let (mut folded, mut over) = (Folded::default(), false);
    let (low, high) = reader.bounds(topic.name(), partition)?;
    reader.read(topic.name(), partition, low, high, |record| {
        over = over || !until(&record);
        if !over && (record.is_control() || record.key_str() == Some(sku.as_str())) {
            walk.next(record, |record, command| folded.apply(&record, &command));
        }
    })?;
    let item = folded.stock.item(sku).map(StockView::new);
    Ok(item.zip(folded.last))
}
