//! What comes from the log, and what goes to it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use domain_types::{MessageId, Timestamp};
use schemas::{Envelope, HEADER_CONTROL, HEADER_PARKING_KEY, HEADER_TRACEPARENT, Message, Topic};

/// The offset of a record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset(pub i64);

/// The offset of the next record to read: everything before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextOffset(pub i64);

impl Offset {
    /// The position once this record is done.
    pub const fn next(self) -> NextOffset {
        NextOffset(self.0.saturating_add(1))
    }
}

/// What is parked together: an order's id, an admin's request id, else the record's key, else that record alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParkingKey(pub String);

impl fmt::Display for ParkingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Headers in the order they were written.
pub type Headers = Vec<(String, Vec<u8>)>;

/// One record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it was read.
    pub topic: Arc<str>,
    /// Where it was read.
    pub partition: i32,
    /// Where it was read.
    pub offset: Offset,
    /// When the broker appended it (`LogAppendTime`).
    pub time: Timestamp,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Headers,
    /// Its value; empty for a tombstone.
    pub value: Vec<u8>,
}

impl Record {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_slice())
    }

    /// W3C trace context, if the writer sent one.
    pub fn traceparent(&self) -> Option<&str> {
        self.header(HEADER_TRACEPARENT).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// What the outputs of this record carry: the span of reading it as `group`, if its trace is sampled, else the same as
    /// it. `message_id` is what the record says; the answer depends on nothing else.
    pub fn onward(&self, group: &str, message_id: MessageId) -> Option<Cow<'_, str>> {
        traces::onward(self.traceparent(), group, message_id.0)
    }

    /// The key as text; `None` if there is none or it is no UTF-8.
    pub fn key_str(&self) -> Option<&str> {
        self.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
    }

    /// Whether the record is for the runtime and not for the handler.
    pub fn is_control(&self) -> bool {
        self.header(HEADER_CONTROL).is_some()
    }

    /// What is parked together with this record.
    pub fn parking_key(&self) -> ParkingKey {
        let key = self.header(HEADER_PARKING_KEY).or(self.key.as_deref());
        ParkingKey(match key {
            // Every control record has to name it.
            Some(key) if key.len() > MAX_PARKING_KEY_BYTES => {
                format!("long:{}", uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, key))
            }
            Some(key) => String::from_utf8_lossy(key).into_owned(),
            None => format!("offset:{}", self.offset.0),
        })
    }

    /// Bytes of key, headers and value.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.as_ref().map_or(0, Vec::len) + headers + self.value.len()
    }
}

/// Longer ones are replaced by a name made of them.
const MAX_PARKING_KEY_BYTES: usize = 1_024;

/// A record and what the handler's `decode` made of it.
#[derive(Debug, Clone)]
pub struct Received<I> {
    /// The record.
    pub record: Record,
    /// What it says.
    pub input: I,
}

/// A record to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub(crate) topic: Cow<'static, str>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Headers,
    pub(crate) value: Vec<u8>,
}

impl Output {
    /// `envelope` for the partition of `key`.
    pub fn new<M: Message>(topic: Topic, key: impl Into<String>, envelope: &Envelope<M>) -> Self {
        Self::raw(topic.name(), key, envelope.encode())
    }

    /// Any bytes for any topic: for services with contracts of their own.
    pub fn raw(topic: impl Into<Cow<'static, str>>, key: impl Into<String>, value: Vec<u8>) -> Self {
        Self { topic: topic.into(), key: Some(key.into().into_bytes()), headers: Headers::new(), value }
    }

    /// Sets its key, which need not be text.
    #[must_use]
    pub fn with_key(self, key: Vec<u8>) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Sets what this record is parked together with, where that is not its key.
    #[must_use]
    pub fn parking_key(self, key: impl ToString) -> Self {
        self.header(HEADER_PARKING_KEY, key.to_string())
    }

    /// Marks a control record.
    #[must_use]
    pub fn control(self, kind: &str) -> Self {
        self.header(HEADER_CONTROL, kind)
    }

    /// Passes on the trace context of the cause.
    #[must_use]
    pub fn traceparent(self, traceparent: Option<&str>) -> Self {
        match traceparent {
            Some(traceparent) => self.header(HEADER_TRACEPARENT, traceparent),
            None => self,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Where it goes.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Its key.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// Its headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Its value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Bytes of key, headers and value.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.as_ref().map_or(0, Vec::len) + headers + self.value.len()
    }
}

/// The outputs of one transaction, in the order they will be published.
#[derive(Debug, Default)]
pub struct Outputs(pub(crate) Vec<Output>);

impl Outputs {
    /// Adds one. It is published after the transaction has committed, and only then.
    pub fn push(&mut self, output: Output) {
        self.0.push(output);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
