//! How outputs and headers are kept in the database: length-prefixed fields, outputs compressed with LZ4.

use std::borrow::Cow;

use crate::{Headers, Output};

/// A stored body that this build can't read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored outbox or parked row is damaged")]
pub struct Damaged;

/// No key is kept as this length.
const NONE: u32 = u32::MAX;

fn put(bytes: &mut Vec<u8>, field: &[u8]) {
    let length = u32::try_from(field.len()).unwrap_or(NONE - 1);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(field);
}

fn put_headers(bytes: &mut Vec<u8>, headers: &Headers) {
    bytes.extend_from_slice(&u32::try_from(headers.len()).unwrap_or(NONE).to_le_bytes());
    for (name, value) in headers {
        put(bytes, name.as_bytes());
        put(bytes, value);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = tail;
        Ok(head)
    }

    fn length(&mut self) -> Result<u32, Damaged> {
        let bytes = self.take(4)?.try_into().map_err(|_not_four_bytes| Damaged)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn field(&mut self) -> Result<&'a [u8], Damaged> {
        let length = self.length()?;
        self.take(usize::try_from(length).map_err(|_too_long| Damaged)?)
    }

    fn text(&mut self) -> Result<String, Damaged> {
        String::from_utf8(self.field()?.to_vec()).map_err(|_no_utf8| Damaged)
    }

    fn headers(&mut self) -> Result<Headers, Damaged> {
        let count = self.length()?;
        (0..count).map(|_| Ok((self.text()?, self.field()?.to_vec()))).collect()
    }
}

/// Headers for the `messaging_parked` table.
pub(crate) fn encode_headers(headers: &Headers) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_headers(&mut bytes, headers);
    bytes
}

/// Headers of a `messaging_parked` row.
///
/// # Errors
/// [`Damaged`] if the bytes are not what [`encode_headers`] writes.
pub fn decode_headers(bytes: &[u8]) -> Result<Headers, Damaged> {
    Reader(bytes).headers()
}

pub(crate) fn encode_outputs(outputs: &[Output]) -> Vec<u8> {
    let size: usize = outputs.iter().map(|output| output.size_bytes() + 64).sum();
    let mut bytes = Vec::with_capacity(size);
    for output in outputs {
        put(&mut bytes, output.topic.as_bytes());
        match &output.key {
            Some(key) => put(&mut bytes, key),
            None => bytes.extend_from_slice(&NONE.to_le_bytes()),
        }
        put_headers(&mut bytes, &output.headers);
        put(&mut bytes, &output.value);
    }
    lz4_flex::compress_prepend_size(&bytes)
}

pub(crate) fn decode_outputs(body: &[u8]) -> Result<Vec<Output>, Damaged> {
    let bytes = lz4_flex::decompress_size_prepended(body).map_err(|_no_lz4| Damaged)?;
    let mut reader = Reader(&bytes);
    let mut outputs = Vec::new();
    while !reader.0.is_empty() {
        let topic = Cow::Owned(reader.text()?);
        let key = match reader.length()? {
            NONE => None,
            length => Some(reader.take(usize::try_from(length).map_err(|_too_long| Damaged)?)?.to_vec()),
        };
        let headers = reader.headers()?;
        let value = reader.field()?.to_vec();
        outputs.push(Output { topic, key, headers, value });
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut keyless = Output::raw("b", "", vec![0; 70_000]);
        keyless.key = None;
        let outputs =
            vec![Output::raw("a", "k", b"{}".to_vec()).header("h", "v").header("parking-key", "p"), keyless];
        assert_eq!(decode_outputs(&encode_outputs(&outputs)), Ok(outputs));
        assert_eq!(decode_outputs(b"nonsense"), Err(Damaged));
    }
}
