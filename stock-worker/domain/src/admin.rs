//! Admins' commands: define a product, change its stock.

use domain_types::{RequestId, Sku};
use schemas::{
    ChangeStock, DefineProduct, StockChangeApplied, StockChangeCode, StockChangeRefused, StockEvent,
};

use crate::{
    Answer, Cause, Change, ChangeOutcome, Decision, Entry, Fact, Item, MAX_UNITS, Stock, StockError,
    validate_product,
};

impl Change {
    fn answer(&self, request_id: RequestId) -> Answer {
        let Self { sku, quantity, outcome } = self.clone();
        Answer::Admin(match outcome {
            ChangeOutcome::Applied { version } => {
                let applied = StockChangeApplied { request_id, sku, quantity, stock_version: version };
                StockEvent::StockChangeApplied(applied)
            }
            ChangeOutcome::Refused { code } => {
                StockEvent::StockChangeRefused(StockChangeRefused { request_id, sku, quantity, code })
            }
        })
    }
}

/// The first answer to an admin's change: `fact` is what happens to the item, or why nothing does.
fn answered(
    request_id: RequestId,
    sku: &Sku,
    quantity: Option<i64>,
    before: i64,
    fact: Result<Fact, StockChangeCode>,
    cause: Cause,
) -> Decision {
    let outcome = match &fact {
        Ok(_) => ChangeOutcome::Applied { version: before.saturating_add(1) },
        Err(code) => ChangeOutcome::Refused { code: *code },
    };
    let change = Change { sku: sku.clone(), quantity, outcome };
    let Cause { message_id, offset, at } = cause;
    let entry = fact.ok().map(|fact| (sku.clone(), Entry { at, offset, cause: message_id, fact }));
    Decision { entry, hold: None, answer: change.answer(request_id), change: Some((request_id, change)) }
}

impl Stock {
    pub(crate) fn define(&self, command: &DefineProduct, cause: Cause) -> Result<Decision, StockError> {
        let DefineProduct { request_id, sku, product, initial_stock } = command;
        if let Some(repeat) = self.repeated(*request_id) {
            return Ok(repeat);
        }
        let defined = |initial| Fact::ProductDefined {
            request_id: *request_id,
            product: Box::new(product.clone()),
            initial,
        };
        let fact = match (self.items.get(sku), initial_stock) {
            (_, _) if validate_product(product).is_err() => Err(StockChangeCode::InvalidProduct),
            (Some(_), _) => Ok(defined(None)),
            (None, Some(initial)) => Ok(defined(Some(*initial))),
            (None, None) => Err(StockChangeCode::InitialStockRequired),
        };
        Ok(answered(*request_id, sku, None, self.version(sku), fact, cause))
    }

    pub(crate) fn change_stock(&self, command: &ChangeStock, cause: Cause) -> Result<Decision, StockError> {
        let ChangeStock { request_id, sku, quantity, reason } = command;
        if let Some(repeat) = self.repeated(*request_id) {
            return Ok(repeat);
        }
        let changed =
            || Fact::StockChanged { request_id: *request_id, quantity: *quantity, reason: reason.clone() };
        let fact = match self.items.get(sku) {
            None => Err(StockChangeCode::UnknownSku),
            Some(item) => fits(item, *quantity).map(|()| changed()),
        };
        Ok(answered(*request_id, sku, Some(*quantity), self.version(sku), fact, cause))
    }

    fn repeated(&self, request_id: RequestId) -> Option<Decision> {
        let change = self.changes.get(&request_id)?;
        Some(Decision { entry: None, hold: None, change: None, answer: change.answer(request_id) })
    }
}

/// Whether an item can gain (or, negative, lose) that many available units.
fn fits(item: &Item, quantity: i64) -> Result<(), StockChangeCode> {
    let total = item.initial.checked_add(item.restocked).and_then(|total| total.checked_add(quantity));
    match item.available.checked_add(quantity) {
        Some(available) if available < 0 => Err(StockChangeCode::NotEnoughAvailable),
        Some(_) if total.is_some_and(|total| total <= MAX_UNITS) => Ok(()),
        Some(_) | None => Err(StockChangeCode::TooManyUnits),
    }
}
