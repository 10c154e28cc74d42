//! `stock-levels` into `products`, and product names into their reservations.

use std::collections::HashMap;

use domain_types::Sku;
use messaging::{Handler, HandlerError, HandlerFactory, Outputs, Ownership, Received, Record};
use schemas::{DecodeError, Envelope, StockLevel, StockLevelMessage};
use sqlx::PgConnection;

use super::store;

/// Makes the handler of a partition of `stock-levels`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StockLevels;

/// Applies the levels of one partition.
#[derive(Debug)]
pub(crate) struct StockLevelsHandler;

impl HandlerFactory for StockLevels {
    type Handler = StockLevelsHandler;

    async fn take_over(&self, _ownership: Ownership) -> Result<StockLevelsHandler, HandlerError> {
        Ok(StockLevelsHandler)
    }
}

impl Handler for StockLevelsHandler {
    type Input = Envelope<StockLevelMessage>;

    fn decode(&self, record: &Record) -> Result<Self::Input, DecodeError> {
        Envelope::decode(&record.value)
    }

    async fn handle(
        &mut self,
        tx: &mut PgConnection,
        batch: &[Received<Self::Input>],
        _outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        let mut newest: HashMap<&Sku, &StockLevel> = HashMap::new();
        for received in batch {
            let StockLevelMessage::StockLevel(level) = &received.input.message;
            let known = newest.entry(&level.sku).or_insert(level);
            if known.version < level.version {
                *known = level;
            }
        }
        let mut levels: Vec<&StockLevel> = newest.into_values().collect();
        // One order for all transactions: no deadlocks.
        levels.sort_unstable_by(|a, b| a.sku.cmp(&b.sku));
        let known = store::product_versions(tx, &levels).await?;
        store::save_levels(tx, &levels).await?;
        levels.retain(|level| known.get(&level.sku).is_none_or(|known| *known < level.product_version));
        store::take_names(tx, &levels).await?;
        Ok(())
    }
}
