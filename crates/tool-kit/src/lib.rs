#![doc = include_str!("../README.md")]

pub mod duration;
mod keys;

pub use keys::{Signer, new_keys_file};

use std::path::PathBuf;

/// Where `firstcome up` says what runs where, unless told otherwise: in the folder that `FIRSTCOME_DATA_DIR` names, as for `firstcome`, else in
/// `.firstcome`.
#[must_use]
pub fn endpoints_file() -> PathBuf {
    let folder = std::env::var_os("FIRSTCOME_DATA_DIR").unwrap_or_else(|| ".firstcome".into());
    PathBuf::from(folder).join("endpoints.json")
}
