//! Enums as they are stored.

use schemas::{ReserveRefusal, StockChangeCode};
use stock_domain::HoldStatus;

use super::StoreError;

pub(super) const fn refusal(reason: ReserveRefusal) -> &'static str {
    match reason {
        ReserveRefusal::SoldOut => "sold_out",
        ReserveRefusal::SaleClosed => "sale_closed",
        ReserveRefusal::LimitExceeded => "limit_exceeded",
        ReserveRefusal::UnknownSku => "unknown_sku",
        ReserveRefusal::Released => "released",
    }
}

fn stored_refusal(text: &str) -> Option<ReserveRefusal> {
    Some(match text {
        "sold_out" => ReserveRefusal::SoldOut,
        "sale_closed" => ReserveRefusal::SaleClosed,
        "limit_exceeded" => ReserveRefusal::LimitExceeded,
        "unknown_sku" => ReserveRefusal::UnknownSku,
        "released" => ReserveRefusal::Released,
        _ => return None,
    })
}

pub(super) const fn change_code(code: StockChangeCode) -> &'static str {
    match code {
        StockChangeCode::UnknownSku => "unknown_sku",
        StockChangeCode::NotEnoughAvailable => "not_enough_available",
        StockChangeCode::InitialStockRequired => "initial_stock_required",
        StockChangeCode::TooManyUnits => "too_many_units",
        StockChangeCode::InvalidProduct => "invalid_product",
    }
}

pub(super) fn stored_change_code(text: &str) -> Result<StockChangeCode, StoreError> {
    Ok(match text {
        "unknown_sku" => StockChangeCode::UnknownSku,
        "not_enough_available" => StockChangeCode::NotEnoughAvailable,
        "initial_stock_required" => StockChangeCode::InitialStockRequired,
        "too_many_units" => StockChangeCode::TooManyUnits,
        "invalid_product" => StockChangeCode::InvalidProduct,
        _ => return Err(StoreError::unreadable("code of a change")),
    })
}

/// A hold's status in its columns.
pub(super) struct StoredStatus<T> {
    pub(super) status: T,
    pub(super) reason: Option<T>,
    pub(super) confirmed_version: Option<i64>,
    pub(super) returned_version: Option<i64>,
}

pub(super) fn status(status: HoldStatus) -> StoredStatus<&'static str> {
    let stored = |status, confirmed_version, returned_version| StoredStatus {
        status,
        reason: None,
        confirmed_version,
        returned_version,
    };
    match status {
        HoldStatus::Held => stored("held", None, None),
        HoldStatus::Sold { confirmed } => stored("sold", Some(confirmed), None),
        HoldStatus::Released { released } => stored("released", None, Some(released)),
        HoldStatus::Restocked { confirmed, restocked } => stored("restocked", confirmed, Some(restocked)),
        HoldStatus::Refused { reason } => {
            StoredStatus { reason: Some(refusal(reason)), ..stored("refused", None, None) }
        }
        HoldStatus::Tombstone => stored("tombstone", None, None),
    }
}

pub(super) fn stored_status(stored: &StoredStatus<String>) -> Result<HoldStatus, StoreError> {
    let (confirmed, returned) = (stored.confirmed_version, stored.returned_version);
    let status = match (stored.status.as_str(), confirmed, returned) {
        ("held", None, None) => Some(HoldStatus::Held),
        ("sold", Some(confirmed), None) => Some(HoldStatus::Sold { confirmed }),
        ("released", None, Some(released)) => Some(HoldStatus::Released { released }),
        ("restocked", confirmed, Some(restocked)) => Some(HoldStatus::Restocked { confirmed, restocked }),
        ("refused", None, None) => {
            let reason = stored.reason.as_deref().and_then(stored_refusal);
            reason.map(|reason| HoldStatus::Refused { reason })
        }
        ("tombstone", None, None) => Some(HoldStatus::Tombstone),
        (_, _, _) => None,
    };
    status.ok_or_else(|| StoreError::unreadable("status of a hold"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_back_as_it_was_stored() {
        for before in [
            HoldStatus::Held,
            HoldStatus::Sold { confirmed: 3 },
            HoldStatus::Released { released: 4 },
            HoldStatus::Restocked { confirmed: None, restocked: 5 },
            HoldStatus::Restocked { confirmed: Some(3), restocked: 5 },
            HoldStatus::Refused { reason: ReserveRefusal::SoldOut },
            HoldStatus::Refused { reason: ReserveRefusal::SaleClosed },
            HoldStatus::Refused { reason: ReserveRefusal::LimitExceeded },
            HoldStatus::Refused { reason: ReserveRefusal::UnknownSku },
            HoldStatus::Refused { reason: ReserveRefusal::Released },
            HoldStatus::Tombstone,
        ] {
            let StoredStatus { status, reason, confirmed_version, returned_version } = status(before);
            let (status, reason) = (status.to_owned(), reason.map(str::to_owned));
            let stored = StoredStatus { status, reason, confirmed_version, returned_version };
            assert_eq!(stored_status(&stored).unwrap(), before);
        }
    }

    #[test]
    fn a_change_code_is_read_back_as_it_was_stored() {
        for code in [
            StockChangeCode::UnknownSku,
            StockChangeCode::NotEnoughAvailable,
            StockChangeCode::InitialStockRequired,
            StockChangeCode::TooManyUnits,
            StockChangeCode::InvalidProduct,
        ] {
            assert_eq!(stored_change_code(change_code(code)).unwrap(), code);
        }
    }
}
