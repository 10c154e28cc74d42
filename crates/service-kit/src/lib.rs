#![doc = include_str!("../README.md")]

pub mod admin;
pub mod database;
mod entry;
mod settings;
pub mod worker;

/// Of every binary that links this crate. glibc's took a quarter of our own time under load: records are allocated by one
/// thread and freed by another. librdkafka keeps the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub use entry::{DEFAULT_LOGS, Service, log_filter, main_entry, shutdown_signal};
pub use settings::{SettingsError, load_settings};
