//! Control records: what operators decide about parked records. They are on the same topic and key as the
//! records they are about, and are read by the consumer's runtime, not by its handler.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::messages;

messages! {
    /// A decision about parked records of one consumer group.
    ControlMessage on None;
    /// Apply the parked records now, in order.
    RedriveParked = 1,
    /// Drop the parked records for good.
    DiscardParked = 1,
    /// Apply another value in place of a parked record's.
    ReplaceParked = 1,
}

/// See [`ControlMessage::RedriveParked`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RedriveParked {
    /// The group whose records are meant; other groups skip this record.
    pub consumer_group: String,
    /// The parking key of the records.
    pub parking_key: String,
    /// The offsets of the records, ascending. They must be the first ones parked under the key.
    pub offsets: Vec<i64>,
    /// Who decided.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// See [`ControlMessage::DiscardParked`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiscardParked {
    /// The group whose records are meant; other groups skip this record.
    pub consumer_group: String,
    /// The parking key of the records.
    pub parking_key: String,
    /// The offsets of the records.
    pub offsets: Vec<i64>,
    /// Who decided.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// See [`ControlMessage::ReplaceParked`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplaceParked {
    /// The group whose record is meant; other groups skip this record.
    pub consumer_group: String,
    /// The parking key of the record.
    pub parking_key: String,
    /// The offset of the record. It must be the first one parked under the key.
    pub offset: i64,
    /// The value (a whole envelope) that is applied in its place.
    pub value: String,
    /// Who decided.
    pub operator: String,
    /// Why.
    pub reason: String,
}
