//! Cursors of lists: opaque, bound to the list they came from, and refused once edited.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::problem::{FieldError, Problem};

/// Bytes of the checksum in front of the position. It finds edits; it is no secret: a cursor only says where in a
/// list the caller may read anyway.
const CHECKSUM_BYTES: usize = 12;

fn checksum(list: &str, position: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::new().chain_update(list).chain_update([0]).chain_update(position).finalize();
    let mut sum = [0; CHECKSUM_BYTES];
    for (to, from) in sum.iter_mut().zip(digest) {
        *to = from;
    }
    sum
}

/// The cursor for `position` of `list`. `list` names the list with its owner and filters.
pub(crate) fn encode<P: Serialize>(list: &str, position: &P) -> String {
    let position = serde_json::to_vec(position).unwrap_or_default();
    let mut bytes = checksum(list, &position).to_vec();
    bytes.extend_from_slice(&position);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The position a cursor of `list` stands for.
///
/// # Errors
/// `422` `invalid_cursor` if this list never gave it out.
pub(crate) fn decode<P: DeserializeOwned>(list: &str, cursor: &str) -> Result<P, Problem> {
    let invalid = || {
        let detail = "this list did not give out this cursor";
        let error = FieldError::new("after", "invalid_cursor", detail);
        Problem::unprocessable("invalid_cursor", detail, vec![error])
    };
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_not_base64| invalid())?;
    let (sum, position) = bytes.split_at_checked(CHECKSUM_BYTES).ok_or_else(invalid)?;
    if sum != checksum(list, position) {
        return Err(invalid());
    }
    serde_json::from_slice(position).map_err(|_other_shape| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_cursor_or_one_of_another_list_is_refused() {
        let cursor = encode("orders", &(1_i64, "x"));
        assert_eq!(decode::<(i64, String)>("orders", &cursor).unwrap(), (1, "x".to_owned()));
        assert!(decode::<(i64, String)>("products", &cursor).is_err());
        for index in 0..cursor.len() {
            let mut edited = cursor.clone().into_bytes();
            edited[index] = if edited[index] == b'A' { b'B' } else { b'A' };
            assert!(
                decode::<(i64, String)>("orders", &String::from_utf8(edited).unwrap()).is_err(),
                "{index}"
            );
        }
    }
}
