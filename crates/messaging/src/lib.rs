#![doc = include_str!("../README.md")]

mod codec;
mod consumer;
mod crash;
mod databases;
mod error;
mod handler;
mod limits;
mod metrics;
pub mod owner;
mod pacing;
mod parking;
mod ports;
mod publisher;
mod reader;
mod record;
pub mod rules;
mod runtime;
mod status;
mod store;
mod trace;
mod tx;

pub use codec::{Damaged, decode_headers};
pub use crash::crash_point;
pub use databases::{Databases, DatabasesError};
pub use error::{BrokerAway, ErrorClass, HandlerError, PositionError, PublishError, RunError, classify};
pub use handler::{Handler, HandlerFactory, Ownership, Traced, Waker};
pub use kafka_cluster::Cluster;
pub use limits::{Limits, PARKED_RECORDS};
pub use metrics::Metrics;
pub use parking::{ParkCause, Parking, Parsed, RecordedParkings, dead_letter, record_parking};
pub use publisher::Publisher;
pub use rdkafka::error::KafkaError;
pub use reader::{LogReader, TailFrom, tail};
pub use record::{Headers, NextOffset, Offset, Output, Outputs, ParkingKey, Received, Record};
pub use runtime::{ConsumerConfig, run, wall_clock};
pub use status::Status;
pub use store::{
    GroupPosition, ParkedRecord, begin, is_empty_database, migrate, parked, positions, set_aside, set_outbox,
    set_position, snapshot,
};
pub use tx::Tx;
