#![doc = include_str!("../README.md")]

mod address;
mod brokers;
mod child;
mod error;
mod folder;
mod jars;
mod java;
mod kafka;
mod options;
mod pidfile;
mod ports;
mod postgres;
mod redis;
mod stack;
pub mod topics;

pub use brokers::{Brokers, Replicas};
pub use child::{GuardedChild, GuardedCommand, Signal};
pub use error::StackError;
pub use folder::last_lines;
pub use options::{Jit, Part, Progress, RelayedListener, SecuredListener, Server, StackOptions};
pub use pidfile::PidFile;
pub use ports::{free_port, free_ports};
pub use stack::{Stack, probe};
