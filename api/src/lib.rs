#![doc = include_str!("../README.md")]

mod admission;
mod app;
mod auth;
mod database;
mod edge;
mod http;
mod intake;
mod metrics;
mod notices;
mod openapi;
mod orders;
mod problem;
mod products;
mod projection;
pub mod rebuild;
mod redis;
mod remembered;
mod run;
mod settings;
mod wakeups;

pub use app::openapi_json;
pub use auth::KeysError;
pub use edge::{EdgeSettings, InvalidNetwork, InvalidOrigin, Network, Origin, Rate};
pub use notices::MailSettings;
pub use orders::live::LiveSettings;
pub use run::{Addresses, EXAMPLE_SETTINGS, run, run_reporting};
pub use settings::Settings;
