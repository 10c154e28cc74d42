//! The envelope around every message, and the macro that turns a list of messages into a topic's type.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use domain_types::{MessageId, OrderId, Timestamp};
use schemars::Schema;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::Topic;

/// Why a record's value is no message that this build can read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No JSON envelope, or `data` is not what type and version promise.
    #[error("malformed {message_type} message")]
    Malformed {
        /// The type the envelope names; `unreadable` if it names none before what can't be read.
        message_type: String,
        /// What the decoder found.
        #[source]
        source: serde_json::Error,
    },
    /// A type or version this build does not know; a later build may.
    #[error("unknown message {message_type} version {version}")]
    Unknown {
        /// The type the envelope names.
        message_type: String,
        /// The version the envelope names.
        version: u16,
    },
    /// An order that begins with a definition of the saga this build does not know; a later build may.
    #[error("unknown definition {definition} of the saga")]
    UnknownDefinition {
        /// Its version.
        definition: u16,
    },
}

/// Bytes of a value that seldom has to grow while it is written.
const MOSTLY_ENOUGH: usize = 768;

/// One record's value. `M` is the enum of all messages its topic may hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<M> {
    /// This message; a repeated publication has the same id.
    pub message_id: MessageId,
    /// The order it is about, if it is about one.
    pub order_id: Option<OrderId>,
    /// The message that led to this one.
    pub causation_id: Option<MessageId>,
    /// When the writer wrote it, by the log time of what it answers; for people, not for decisions.
    pub occurred_at: Timestamp,
    /// The message.
    pub message: M,
}

/// All messages of one topic.
pub trait Message: Sized {
    /// The name its envelope carries in `type`.
    fn type_name(&self) -> &'static str;
    /// The version its envelope carries.
    fn version(&self) -> u16;
    /// Reads `data` of the given type and version; `None` if this build does not know them.
    ///
    /// # Errors
    /// If it is not what type and version promise.
    fn decode<'de, D: Deserializer<'de>>(
        message_type: &str,
        version: u16,
        data: D,
    ) -> Result<Option<Self>, D::Error>;
    /// Serializes the `data` part.
    fn data<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
    /// The messages of this topic that this build can read.
    fn specs() -> Vec<MessageSpec>;
}

/// One message version, for generated documents.
#[derive(Debug, Clone)]
pub struct MessageSpec {
    /// Where it is found; `None`: control records, which may be on every topic with an owner.
    pub topic: Option<Topic>,
    /// The envelope's `type`.
    pub message_type: &'static str,
    /// The envelope's `version`.
    pub version: u16,
    /// What it means.
    pub description: &'static str,
    /// JSON Schema of `data`.
    pub data_schema: Schema,
}

/// The envelope's fields.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    MessageId,
    Type,
    Version,
    OrderId,
    CausationId,
    OccurredAt,
    Data,
    #[serde(other)]
    Later,
}

/// Reads an envelope in one pass: `data` is read as what type and version say, which our writers put before it.
struct WireIn<'t, 'de, M> {
    /// The type, for whoever has to say what can't be read.
    message_type: &'t mut Option<Cow<'de, str>>,
    message: PhantomData<M>,
}

/// `data` of a known type and version.
struct DataIn<'t, M> {
    message_type: &'t str,
    version: u16,
    message: PhantomData<M>,
}

impl<'de, M: Message> DeserializeSeed<'de> for DataIn<'_, M> {
    type Value = Option<M>;

    fn deserialize<D: Deserializer<'de>>(self, data: D) -> Result<Option<M>, D::Error> {
        M::decode(self.message_type, self.version, data)
    }
}

impl<'de, M: Message> DeserializeSeed<'de> for WireIn<'_, 'de, M> {
    type Value = Result<Envelope<M>, DecodeError>;

    fn deserialize<D: Deserializer<'de>>(self, envelope: D) -> Result<Self::Value, D::Error> {
        envelope.deserialize_map(self)
    }
}

impl<'de, M: Message> Visitor<'de> for WireIn<'_, 'de, M> {
    type Value = Result<Envelope<M>, DecodeError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut message_id, mut version, mut occurred_at) = (None, None, None);
        let (mut order_id, mut causation_id) = (None, None);
        let (mut message, mut early): (Option<Option<M>>, Option<&'de RawValue>) = (None, None);
        while let Some(field) = map.next_key()? {
            match field {
                Field::MessageId => once(&mut message_id, "message_id", map.next_value()?)?,
                Field::Type => once(self.message_type, "type", map.next_value::<Text<'de>>()?.0)?,
                Field::Version => once(&mut version, "version", map.next_value()?)?,
                Field::OrderId => once(&mut order_id, "order_id", map.next_value()?)?,
                Field::CausationId => once(&mut causation_id, "causation_id", map.next_value()?)?,
                Field::OccurredAt => once(&mut occurred_at, "occurred_at", map.next_value()?)?,
                Field::Data if message.is_some() || early.is_some() => {
                    return Err(de::Error::duplicate_field("data"));
                }
                Field::Data => match (&*self.message_type, version) {
                    (Some(message_type), Some(version)) => {
                        let data = DataIn { message_type, version, message: PhantomData };
                        message = Some(map.next_value_seed(data)?);
                    }
                    _ => early = Some(map.next_value()?),
                },
                Field::Later => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let message_type = self.message_type.as_deref().ok_or_else(|| de::Error::missing_field("type"))?;
        let version = version.ok_or_else(|| de::Error::missing_field("version"))?;
        let message_id = message_id.ok_or_else(|| de::Error::missing_field("message_id"))?;
        let occurred_at = occurred_at.ok_or_else(|| de::Error::missing_field("occurred_at"))?;
        let message = match (message, early) {
            (Some(message), _) => message,
            (None, Some(data)) => {
                let mut json = serde_json::Deserializer::from_str(data.get());
                M::decode(message_type, version, &mut json).map_err(de::Error::custom)?
            }
            (None, None) => return Err(de::Error::missing_field("data")),
        };
        let unknown = || DecodeError::Unknown { message_type: message_type.to_owned(), version };
        Ok(message.ok_or_else(unknown).map(|message| Envelope {
            message_id,
            order_id: order_id.flatten(),
            causation_id: causation_id.flatten(),
            occurred_at,
            message,
        }))
    }
}

/// A string that is borrowed where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn once<T, E: de::Error>(field: &mut Option<T>, name: &'static str, value: T) -> Result<(), E> {
    if field.replace(value).is_some() { Err(E::duplicate_field(name)) } else { Ok(()) }
}

#[derive(Serialize)]
#[serde(bound = "")]
struct WireOut<'a, M: Message> {
    message_id: MessageId,
    #[serde(rename = "type")]
    message_type: &'static str,
    version: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<OrderId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation_id: Option<MessageId>,
    occurred_at: Timestamp,
    data: Data<'a, M>,
}

struct Data<'a, M>(&'a M);

impl<M: Message> Serialize for Data<'_, M> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.data(serializer)
    }
}

impl<M: Message> Envelope<M> {
    /// Reads a record's value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut message_type = None;
        let mut json = serde_json::Deserializer::from_slice(value);
        let wire = WireIn { message_type: &mut message_type, message: PhantomData };
        let read = wire.deserialize(&mut json).and_then(|read| json.end().map(|()| read));
        read.unwrap_or_else(|source| {
            let message_type = message_type.map_or_else(|| "unreadable".to_owned(), Cow::into_owned);
            Err(DecodeError::Malformed { message_type, source })
        })
    }

    /// Writes a record's value.
    pub fn encode(&self) -> Vec<u8> {
        let wire = WireOut {
            message_id: self.message_id,
            message_type: self.message.type_name(),
            version: self.message.version(),
            order_id: self.order_id,
            causation_id: self.causation_id,
            occurred_at: self.occurred_at,
            data: Data(&self.message),
        };
        let mut value = Vec::with_capacity(MOSTLY_ENOUGH);
        #[expect(
            clippy::expect_used,
            reason = "our own messages have string keys only and no failing serializer"
        )]
        serde_json::to_writer(&mut value, &wire).expect("messages serialize");
        value
    }
}

/// Makes the enum of a topic's messages: `Variant(Payload) = version` for the version that is written.
macro_rules! messages {
    ($(#[$doc:meta])* $name:ident on $topic:expr; $($(#[doc = $variant_doc:literal])* $variant:ident = $version:literal,)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $($(#[doc = $variant_doc])* $variant($variant),)*
        }

        $(impl From<$variant> for $name {
            fn from(message: $variant) -> Self {
                Self::$variant(message)
            }
        })*

        impl $crate::Message for $name {
            fn type_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($variant),)* }
            }

            fn version(&self) -> u16 {
                match self { $(Self::$variant(_) => $version,)* }
            }

            fn decode<'de, D: serde::Deserializer<'de>>(
                message_type: &str,
                version: u16,
                data: D,
            ) -> Result<Option<Self>, D::Error> {
                match (message_type, version) {
                    $((stringify!($variant), $version) => serde::Deserialize::deserialize(data)
                        .map(|message| Some(Self::$variant(message))),)*
                    _ => <serde::de::IgnoredAny as serde::Deserialize>::deserialize(data).map(|_| None),
                }
            }

            fn data<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Self::$variant(message) => serde::Serialize::serialize(message, serializer),)* }
            }

            fn specs() -> Vec<$crate::MessageSpec> {
                vec![$($crate::MessageSpec {
                    topic: $topic,
                    message_type: stringify!($variant),
                    version: $version,
                    description: concat!($($variant_doc),*),
                    data_schema: schemars::schema_for!($variant),
                },)*]
            }
        }
    };
}
pub(crate) use messages;
