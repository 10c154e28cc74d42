//! What happened to sagas, as it is stored: one row of `saga_history` per batch, with an entry per input that changed
//! something. The entry's cause is the record at `offset` of the row's partition of `order-saga`.

use domain_types::{OrderId, Timestamp};
use saga::{Event, Saga, evolve};
use serde::{Deserialize, Serialize};

/// The first byte of a body: JSON array of [`HistoryEntry`], LZ4 block with its size in front.
const FORMAT_LZ4_JSON: u8 = 1;

/// The number of a batch's history within its partition, in the order in which it was applied; 0: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HistorySeq(pub i64);

impl HistorySeq {
    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The one before it.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0 - 1)
    }
}

/// What one input did to a saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The input's offset in its partition of `order-saga`.
    #[serde(rename = "o")]
    pub offset: i64,
    /// The order.
    #[serde(rename = "i")]
    pub order_id: OrderId,
    /// The rule that decided: the input's message type.
    #[serde(rename = "r")]
    pub rule: String,
    /// W3C trace id of the input, if it had one.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The saga's time: fold the events with it.
    #[serde(rename = "n", with = "millis")]
    pub now: Timestamp,
    /// The facts, in order.
    #[serde(rename = "e")]
    pub events: Vec<Event>,
}

/// Why a body can't be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A later build wrote it, or nobody did.
    #[error("unknown format {0:?} of a saga_history body")]
    UnknownFormat(Option<u8>),
    /// It is damaged.
    #[error("a saga_history body can't be decompressed")]
    Compression(#[from] lz4_flex::block::DecompressError),
    /// Its content is not what its format promises.
    #[error("a saga_history body can't be read")]
    Content(#[from] serde_json::Error),
}

impl HistoryEntry {
    /// Folds what happened into the saga.
    #[must_use]
    pub fn fold(&self, saga: Option<Saga>) -> Option<Saga> {
        self.events.iter().fold(saga, |saga, event| evolve(saga, self.now, event))
    }
}

/// Reads `saga_history.body`.
///
/// # Errors
/// See [`HistoryError`].
pub fn decode(body: &[u8]) -> Result<Vec<HistoryEntry>, HistoryError> {
    let (format, rest) = body.split_first().ok_or(HistoryError::UnknownFormat(None))?;
    if *format != FORMAT_LZ4_JSON {
        return Err(HistoryError::UnknownFormat(Some(*format)));
    }
    let text = lz4_flex::decompress_size_prepended(rest)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Writes `saga_history.body`.
pub(crate) fn encode(entries: &[HistoryEntry]) -> Result<Vec<u8>, serde_json::Error> {
    let mut body = vec![FORMAT_LZ4_JSON];
    body.extend(lz4_flex::compress_prepend_size(&serde_json::to_vec(entries)?));
    Ok(body)
}

mod millis {
    use domain_types::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(time.as_millis())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_body_is_read_back_as_it_was_written_and_others_are_refused() {
        let entry = HistoryEntry {
            offset: 7,
            order_id: OrderId(Uuid::from_u128(1)),
            rule: "PaymentClosed".into(),
            trace_id: None,
            now: Timestamp::from_millis(1_795_237_200_000),
            events: vec![Event::Closed, Event::Published],
        };
        let entries = vec![entry; 3];
        let body = encode(&entries).unwrap();
        assert_eq!(decode(&body).unwrap(), entries);
        assert!(matches!(decode(&[]), Err(HistoryError::UnknownFormat(None))));
        assert!(matches!(decode(&[9, 0]), Err(HistoryError::UnknownFormat(Some(9)))));
        assert!(matches!(decode(&body[..body.len() / 2]), Err(HistoryError::Compression(_))));
    }
}
