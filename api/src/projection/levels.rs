//! `stock-levels` into `products` and, once that is committed, into the cache; product names into their reservations.

use std::collections::HashMap;
use std::time::Instant;

use domain_types::Sku;
use messaging::{Handler, HandlerError, HandlerFactory, Outputs, Ownership, Received, Record, Tx};
use schemas::{DecodeError, Envelope, StockLevel, StockLevelMessage};

use super::store;
use crate::products::cache::{Level, WriteThrough};

/// Makes the handler of a partition of `stock-levels`.
#[derive(Debug, Clone)]
pub(crate) struct StockLevels {
    pub(crate) cache: WriteThrough,
}

/// Applies the levels of one partition.
#[derive(Debug)]
pub(crate) struct StockLevelsHandler {
    cache: WriteThrough,
    /// What the open transaction has changed.
    newer: Vec<Level>,
}

/// Stores the newest level of each sku, with the product's name; returns those that are newer than what was there.
pub(crate) async fn apply_levels<'a>(
    tx: &mut Tx,
    batch: &'a [Received<Envelope<StockLevelMessage>>],
) -> Result<Vec<&'a StockLevel>, HandlerError> {
    let mut newest: HashMap<&Sku, &StockLevel> = HashMap::new();
    for received in batch {
        let StockLevelMessage::StockLevel(level) = &received.input.message;
        let known = newest.entry(&level.sku).or_insert(level);
        if known.version < level.version {
            *known = level;
        }
    }
    let mut newer: Vec<&StockLevel> = newest.into_values().collect();
    // One order for all transactions: no deadlocks.
    newer.sort_unstable_by(|a, b| a.sku.cmp(&b.sku));
    let known = store::known_versions(tx.reader().await?, &newer).await?;
    newer.retain(|level| known.get(&level.sku).is_none_or(|known| known.level < level.version));
    let (sold, edited): (Vec<&StockLevel>, Vec<&StockLevel>) = newer
        .iter()
        .copied()
        .partition(|level| known.get(&level.sku).is_some_and(|known| known.product == level.product_version));
    if !edited.is_empty() {
        store::save_products(tx.writer().await?, &edited).await?;
        store::take_names(tx.writer().await?, &edited).await?;
    }
    store::save_availability(tx, &sold).await?;
    Ok(newer)
}

impl HandlerFactory for StockLevels {
    type Handler = StockLevelsHandler;

    async fn take_over(&self, _ownership: Ownership) -> Result<StockLevelsHandler, HandlerError> {
        Ok(StockLevelsHandler { cache: self.cache.clone(), newer: Vec::new() })
    }
}

impl Handler for StockLevelsHandler {
    type Input = Envelope<StockLevelMessage>;

    fn decode(&self, record: &Record) -> Result<Self::Input, DecodeError> {
        Envelope::decode(&record.value)
    }

    async fn handle(
        &mut self,
        tx: &mut Tx,
        batch: &[Received<Self::Input>],
        _outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        let as_of = Instant::now();
        let newer = apply_levels(tx, batch).await?;
        self.newer.extend(newer.into_iter().map(|level| Level { product: level.into(), as_of }));
        Ok(())
    }

    fn committed(&mut self) {
        self.cache.stored(std::mem::take(&mut self.newer));
    }

    fn rolled_back(&mut self) {
        self.newer.clear();
    }
}
