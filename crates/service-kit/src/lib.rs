#![doc = include_str!("../README.md")]

pub mod admin;
pub mod database;
mod entry;
mod settings;

pub use entry::{Service, main_entry, shutdown_signal};
pub use settings::{SettingsError, load_settings};
