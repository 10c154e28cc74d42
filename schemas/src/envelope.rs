//! The envelope around every message, and the macro that turns a list of messages into a topic's type.

use domain_types::{MessageId, OrderId, Timestamp};
use schemars::Schema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Topic;

/// Why a record's value is no message that this build can read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No JSON envelope, or `data` is not what type and version promise.
    #[error("malformed {message_type} message")]
    Malformed {
        /// The type the envelope names; `unreadable` if there is no envelope.
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
    /// Reads `data` of the given type and version.
    fn decode(message_type: &str, version: u16, data: &RawValue) -> Result<Self, DecodeError>;
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

#[derive(Deserialize)]
struct WireIn<'a> {
    message_id: MessageId,
    #[serde(rename = "type")]
    message_type: std::borrow::Cow<'a, str>,
    version: u16,
    #[serde(default)]
    order_id: Option<OrderId>,
    #[serde(default)]
    causation_id: Option<MessageId>,
    occurred_at: Timestamp,
    #[serde(borrow)]
    data: &'a RawValue,
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
        let wire: WireIn<'_> = serde_json::from_slice(value)
            .map_err(|source| DecodeError::Malformed { message_type: "unreadable".into(), source })?;
        Ok(Self {
            message_id: wire.message_id,
            order_id: wire.order_id,
            causation_id: wire.causation_id,
            occurred_at: wire.occurred_at,
            message: M::decode(&wire.message_type, wire.version, wire.data)?,
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
        #[expect(
            clippy::expect_used,
            reason = "our own messages have string keys only and no failing serializer"
        )]
        serde_json::to_vec(&wire).expect("messages serialize")
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

            fn decode(
                message_type: &str,
                version: u16,
                data: &serde_json::value::RawValue,
            ) -> Result<Self, $crate::DecodeError> {
                match (message_type, version) {
                    $((stringify!($variant), $version) => serde_json::from_str(data.get())
                        .map(Self::$variant)
                        .map_err(|source| $crate::DecodeError::Malformed {
                            message_type: message_type.to_owned(),
                            source,
                        }),)*
                    _ => Err($crate::DecodeError::Unknown { message_type: message_type.to_owned(), version }),
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
