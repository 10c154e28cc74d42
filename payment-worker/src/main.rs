//! The payment worker.

use std::process::ExitCode;

fn main() -> ExitCode {
    let service = service_kit::Service {
        name: "payment-worker",
        about: "Charges, closes and refunds orders through a payment provider.",
        env_prefix: "PAYMENT_WORKER",
        example_settings: payment_worker::EXAMPLE_SETTINGS,
    };
    service_kit::main_entry(service, payment_worker::run)
}
