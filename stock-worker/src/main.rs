//! The stock worker.

use std::process::ExitCode;

fn main() -> ExitCode {
    let service = service_kit::Service {
        name: "stock-worker",
        about: "Holds, sells and takes back units of sellable items.",
        env_prefix: "STOCK_WORKER",
        example_settings: stock_worker::EXAMPLE_SETTINGS,
    };
    service_kit::main_entry(service, stock_worker::run)
}
