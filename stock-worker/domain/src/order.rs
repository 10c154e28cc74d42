//! Orders' commands: reserve, confirm, release, restock. The table in the README shows them all.

use domain_types::{Attempt, LineNumber, OrderId, Sku};
use schemas::{
    ConfirmStock, OrderSagaMessage, ReleaseStock, ReserveRefusal, ReserveStock, RestockStock,
    StockCommandFailed, StockCommandKind, StockConfirmed, StockRefused, StockReleased, StockReserved,
    StockRestocked,
};

use crate::{
    Answer, Asked, Cause, Decision, Entry, Fact, GivenBackFrom, Hold, HoldKey, HoldStatus, Item, Stock,
    StockError, is_on_sale,
};

/// Why a stock command can't be carried out, as sagas and operators read it.
mod code {
    pub(super) const UNKNOWN_HOLD: &str = "unknown_hold";
    pub(super) const HOLD_MISMATCH: &str = "hold_mismatch";
    pub(super) const NEVER_HELD: &str = "never_held";
    pub(super) const CONFIRMED: &str = "confirmed";
    pub(super) const RELEASED: &str = "released";
    pub(super) const RESTOCKED: &str = "restocked";
}

/// Who asks, and which try it is.
#[derive(Clone, Copy)]
struct Asker {
    order_id: OrderId,
    line: LineNumber,
    attempt: Attempt,
}

impl Asker {
    fn key(self) -> HoldKey {
        HoldKey { order_id: self.order_id, line: self.line }
    }

    /// An answer that changes nothing.
    fn told(self, message: impl Into<OrderSagaMessage>) -> Decision {
        let answer = Answer::Saga(self.order_id, message.into());
        Decision { entry: None, hold: None, change: None, answer }
    }

    fn failed(self, command: StockCommandKind, code: &str) -> Decision {
        let Self { line, attempt, .. } = self;
        self.told(StockCommandFailed { line, command, attempt, code: code.to_owned() })
    }

    fn reserved(self, stock_version: i64) -> Decision {
        self.told(StockReserved { line: self.line, attempt: self.attempt, stock_version })
    }

    fn refused(self, reason: ReserveRefusal, stock_version: i64) -> Decision {
        self.told(StockRefused { line: self.line, attempt: self.attempt, reason, stock_version })
    }

    fn confirmed(self, stock_version: i64) -> Decision {
        self.told(StockConfirmed { line: self.line, attempt: self.attempt, stock_version })
    }

    fn released(self, units: u32, stock_version: i64) -> Decision {
        self.told(StockReleased { line: self.line, attempt: self.attempt, units, stock_version })
    }

    fn restocked(self, units: u32, stock_version: i64) -> Decision {
        self.told(StockRestocked { line: self.line, attempt: self.attempt, units, stock_version })
    }
}

impl Decision {
    fn with_hold(mut self, key: HoldKey, hold: Hold) -> Self {
        self.hold = Some((key, hold));
        self
    }

    fn with_entry(mut self, sku: &Sku, cause: Cause, fact: Fact) -> Self {
        let Cause { message_id, offset, at } = cause;
        self.entry = Some((sku.clone(), Entry { at, offset, cause: message_id, fact }));
        self
    }
}

fn units_of(hold: &Hold) -> u32 {
    hold.asked.map_or(0, |asked| asked.units.get())
}

impl Stock {
    pub(crate) fn reserve(
        &self,
        order_id: OrderId,
        command: &ReserveStock,
        cause: Cause,
    ) -> Result<Decision, StockError> {
        let ReserveStock { line, attempt, sku, quantity, customer_id, .. } = command;
        let asker = Asker { order_id, line: *line, attempt: *attempt };
        let asked = Asked { customer_id: *customer_id, units: *quantity };
        if let Some(hold) = self.holds.get(&asker.key()) {
            return Ok(repeated_reserve(asker, hold, sku, asked));
        }
        let new_hold = |version, status| Hold { sku: sku.clone(), asked: Some(asked), version, status };
        if let Some(reason) = self.refusal(command)? {
            let version = self.version(sku);
            let hold = new_hold(version, HoldStatus::Refused { reason });
            return Ok(asker.refused(reason, version).with_hold(asker.key(), hold));
        }
        let version = self.next_version(sku)?;
        let fact = Fact::Reserved { order_id, line: *line, customer_id: *customer_id, units: *quantity };
        Ok(asker
            .reserved(version)
            .with_hold(asker.key(), new_hold(version, HoldStatus::Held))
            .with_entry(sku, cause, fact))
    }

    /// Why a new reserve is refused, if it is.
    fn refusal(&self, command: &ReserveStock) -> Result<Option<ReserveRefusal>, StockError> {
        let Some(item) = self.items.get(&command.sku) else {
            return Ok(Some(ReserveRefusal::UnknownSku));
        };
        let wanted = i64::from(command.quantity.get());
        if !is_on_sale(item.product.sale.as_ref(), command.ordered_at) {
            return Ok(Some(ReserveRefusal::SaleClosed));
        }
        if let Some(limit) = item.product.limit_per_customer {
            let has = self.customer_units(&command.sku, command.customer_id)?;
            if has.saturating_add(wanted) > i64::from(limit) {
                return Ok(Some(ReserveRefusal::LimitExceeded));
            }
        }
        Ok((item.available < wanted).then_some(ReserveRefusal::SoldOut))
    }

    pub(crate) fn confirm(
        &self,
        order_id: OrderId,
        command: &ConfirmStock,
        cause: Cause,
    ) -> Result<Decision, StockError> {
        let asker = Asker { order_id, line: command.line, attempt: command.attempt };
        let failed = |code| Ok(asker.failed(StockCommandKind::Confirm, code));
        let Some(hold) = self.holds.get(&asker.key()) else { return failed(code::UNKNOWN_HOLD) };
        if hold.sku != command.sku {
            return failed(code::HOLD_MISMATCH);
        }
        match (hold.status, hold.asked) {
            (HoldStatus::Held, Some(Asked { units, .. })) => {
                let confirmed = self.next_version(&hold.sku)?;
                let fact = Fact::Confirmed { order_id, line: command.line, units };
                Ok(asker
                    .confirmed(confirmed)
                    .with_hold(asker.key(), Hold { status: HoldStatus::Sold { confirmed }, ..hold.clone() })
                    .with_entry(&hold.sku, cause, fact))
            }
            (
                HoldStatus::Sold { confirmed } | HoldStatus::Restocked { confirmed: Some(confirmed), .. },
                _,
            ) => Ok(asker.confirmed(confirmed)),
            (HoldStatus::Released { .. }, _) => failed(code::RELEASED),
            (HoldStatus::Restocked { confirmed: None, .. }, _) => failed(code::RESTOCKED),
            (HoldStatus::Held, None) | (HoldStatus::Refused { .. } | HoldStatus::Tombstone, _) => {
                failed(code::NEVER_HELD)
            }
        }
    }

    pub(crate) fn release(
        &self,
        order_id: OrderId,
        command: &ReleaseStock,
        cause: Cause,
    ) -> Result<Decision, StockError> {
        let asker = Asker { order_id, line: command.line, attempt: command.attempt };
        let failed = |code| Ok(asker.failed(StockCommandKind::Release, code));
        let Some(hold) = self.holds.get(&asker.key()) else {
            let (sku, version) = (command.sku.clone(), self.version(&command.sku));
            let tombstone = Hold { sku, asked: None, version, status: HoldStatus::Tombstone };
            return Ok(asker.released(0, version).with_hold(asker.key(), tombstone));
        };
        if hold.sku != command.sku {
            return failed(code::HOLD_MISMATCH);
        }
        match (hold.status, hold.asked) {
            (HoldStatus::Held, Some(Asked { units, .. })) => {
                let released = self.next_version(&hold.sku)?;
                let fact = Fact::Released { order_id, line: command.line, units };
                let hold = Hold { status: HoldStatus::Released { released }, ..hold.clone() };
                Ok(asker
                    .released(units.get(), released)
                    .with_entry(&hold.sku, cause, fact)
                    .with_hold(asker.key(), hold))
            }
            (HoldStatus::Released { released }, _) => Ok(asker.released(units_of(hold), released)),
            (HoldStatus::Sold { .. } | HoldStatus::Restocked { confirmed: Some(_), .. }, _) => {
                failed(code::CONFIRMED)
            }
            (HoldStatus::Restocked { confirmed: None, restocked }, _) => Ok(asker.released(0, restocked)),
            (HoldStatus::Held, None) | (HoldStatus::Refused { .. } | HoldStatus::Tombstone, _) => {
                Ok(asker.released(0, hold.version))
            }
        }
    }

    pub(crate) fn restock(
        &self,
        order_id: OrderId,
        command: &RestockStock,
        cause: Cause,
    ) -> Result<Decision, StockError> {
        let asker = Asker { order_id, line: command.line, attempt: command.attempt };
        let failed = |code| Ok(asker.failed(StockCommandKind::Restock, code));
        let Some(hold) = self.holds.get(&asker.key()) else { return failed(code::UNKNOWN_HOLD) };
        if hold.sku != command.sku {
            return failed(code::HOLD_MISMATCH);
        }
        let (confirmed, from) = match hold.status {
            HoldStatus::Held => (None, GivenBackFrom::Held),
            HoldStatus::Sold { confirmed } => (Some(confirmed), GivenBackFrom::Sold),
            HoldStatus::Restocked { restocked, .. } => {
                return Ok(asker.restocked(units_of(hold), restocked));
            }
            HoldStatus::Released { .. } => return failed(code::RELEASED),
            HoldStatus::Refused { .. } | HoldStatus::Tombstone => return failed(code::NEVER_HELD),
        };
        let Some(Asked { units, .. }) = hold.asked else { return failed(code::NEVER_HELD) };
        let restocked = self.next_version(&hold.sku)?;
        let fact = Fact::Restocked { order_id, line: command.line, units, from };
        let hold = Hold { status: HoldStatus::Restocked { confirmed, restocked }, ..hold.clone() };
        Ok(asker
            .restocked(units.get(), restocked)
            .with_entry(&hold.sku, cause, fact)
            .with_hold(asker.key(), hold))
    }
}

fn repeated_reserve(asker: Asker, hold: &Hold, sku: &Sku, asked: Asked) -> Decision {
    if hold.sku != *sku || hold.asked.is_some_and(|before| before != asked) {
        return asker.failed(StockCommandKind::Reserve, code::HOLD_MISMATCH);
    }
    match hold.status {
        HoldStatus::Held
        | HoldStatus::Sold { .. }
        | HoldStatus::Released { .. }
        | HoldStatus::Restocked { .. } => asker.reserved(hold.version),
        HoldStatus::Refused { reason } => asker.refused(reason, hold.version),
        HoldStatus::Tombstone => asker.refused(ReserveRefusal::Released, hold.version),
    }
}

impl Item {
    /// Whether a customer's units of it must be known before a reserve is decided.
    pub fn has_limit(&self) -> bool {
        self.product.limit_per_customer.is_some()
    }
}
