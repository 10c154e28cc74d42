//! The order orchestrator.

use std::process::ExitCode;

fn main() -> ExitCode {
    let service = service_kit::Service {
        name: "order-orchestrator",
        about: "Carries orders out: one saga per order, over stock and payment.",
        env_prefix: "ORDER_ORCHESTRATOR",
        example_settings: order_orchestrator::EXAMPLE_SETTINGS,
    };
    service_kit::main_entry(service, order_orchestrator::run)
}
