//! What an audit finds: a rule that is broken, by what, and where it stands.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The topic.
    pub topic: &'static str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}

/// Something that must not be, or must not stay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Violation {
    /// The rule, one word.
    pub rule: &'static str,
    /// What breaks it, for people: names all that follows.
    pub detail: String,
    /// Whose, if it is about an order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Uuid>,
    /// Of what, if it is about a product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// The record, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<Place>,
}

impl Violation {
    pub(crate) fn new(rule: &'static str, detail: impl Into<String>) -> Self {
        Self { rule, detail: detail.into(), order: None, sku: None, record: None }
    }

    pub(crate) fn of_order(self, order: Uuid) -> Self {
        Self { order: Some(order), ..self }
    }

    pub(crate) fn of_sku(self, sku: impl Into<String>) -> Self {
        Self { sku: Some(sku.into()), ..self }
    }

    pub(crate) fn at(self, record: Place) -> Self {
        Self { record: Some(record), ..self }
    }

    /// Whether it was seen in one snapshot of one database, and so is wrong however much is under way.
    pub fn rests_on_one_database(&self) -> bool {
        matches!(
            self.rule,
            "units_conserved"
                | "item_is_sum_of_holds"
                | "version_counts_entries"
                | "ledger_adds_up"
                | "item_is_its_ledger"
                | "hold_is_in_ledger"
                | "charged_once"
                | "charge_is_its_movements"
                | "row_is_document"
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}
