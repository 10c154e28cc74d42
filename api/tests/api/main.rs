//! The api on a real Kafka and PostgreSQL. The tests play the part of the saga and the stock worker.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod admission;
mod bad_input;
mod catalogue;
mod edge;
mod intake;
mod live_stock;
mod notices;
mod openapi;
mod orders;
mod outages;
mod product_list;
mod redis_cluster;
mod requests;
mod security;
mod streams;
mod support;
mod tokens;
