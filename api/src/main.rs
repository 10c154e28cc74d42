//! The api as a process of its own.

use std::process::ExitCode;

use service_kit::{Service, main_entry};

fn main() -> ExitCode {
    let service = Service {
        name: "api",
        about: "The HTTP API of Firstcome",
        env_prefix: "API",
        example_settings: api::EXAMPLE_SETTINGS,
    };
    main_entry(service, api::run)
}
