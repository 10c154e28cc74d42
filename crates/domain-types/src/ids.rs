//! Identifiers. Each has its own type, so that an order's id can't be passed where a customer's is meant.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A text that is no id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a UUID")]
pub struct InvalidId(pub String);

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The UUID itself.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self).map_err(|_not_a_uuid| InvalidId(text.to_owned()))
            }
        }
    )*};
}

uuid_id! {
    /// An order, and the saga that carries it out.
    OrderId;
    /// A customer: the subject of the access token.
    CustomerId;
    /// One request of a customer, an admin or an operator; its answer names it.
    RequestId;
    /// One message. A repeated publication has the same id.
    MessageId;
}

impl MessageId {
    /// The id of the `index`-th message that `cause` led to (UUIDv5 of both): the same cause and index
    /// always give the same id, so a repeated publication is recognisable.
    pub fn caused_by(cause: Self, index: u32) -> Self {
        Self(Uuid::new_v5(&cause.0, &index.to_be_bytes()))
    }
}

/// The position of a line in its order, from 0.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct LineNumber(pub u8);

impl fmt::Display for LineNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a try of one step, from 1. Replies carry the attempt they answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The first try.
    pub const FIRST: Self = Self(1);

    /// The try after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A stock keeping unit: `[A-Z0-9-]{1,40}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sku(Box<str>);

/// A text that is no sku.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a sku is 1 to 40 characters of A-Z, 0-9 and -")]
pub struct InvalidSku;

impl Sku {
    /// Checks the text and makes a sku of it.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, InvalidSku> {
        let text = text.into();
        let fits = (1..=40).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-');
        if fits { Ok(Self(text)) } else { Err(InvalidSku) }
    }

    /// The sku as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Sku {
    type Err = InvalidSku;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl Serialize for Sku {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Sku {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(text.as_ref()).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Sku {
    fn schema_name() -> Cow<'static, str> {
        "Sku".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Z0-9-]{1,40}$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sku_with_a_nul_or_lower_case_or_too_long_is_refused() {
        for bad in ["", "a", "A\0", "A B", &"A".repeat(41)] {
            assert_eq!(Sku::new(bad), Err(InvalidSku), "{bad:?}");
        }
        assert!(Sku::new("A".repeat(40)).is_ok());
    }

    #[test]
    fn the_same_cause_and_index_give_the_same_message_id() {
        let cause = MessageId(Uuid::from_u128(7));
        assert_eq!(MessageId::caused_by(cause, 1), MessageId::caused_by(cause, 1));
        assert_ne!(MessageId::caused_by(cause, 1), MessageId::caused_by(cause, 2));
    }
}
