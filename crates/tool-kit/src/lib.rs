#![doc = include_str!("../README.md")]

pub mod duration;
mod keys;

pub use keys::{Signer, new_keys_file};
