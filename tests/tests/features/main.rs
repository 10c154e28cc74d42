//! Rows of the feature list, each through the public API of one running system.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "tests")]

use std::path::Path;
use std::sync::OnceLock;

use local_stack::{GuardedChild, GuardedCommand};
use system_tests::System;
use tokio::sync::OnceCell;

mod catalogue;
mod edge;
mod lifecycle;
mod live;
mod notices;
mod openapi;
mod operator;
mod orders;
mod past;
mod topics;
mod traces;

static SYSTEM: OnceCell<System> = OnceCell::const_new();

/// A collector of traces for all tests here, and where it listens.
static COLLECTOR: OnceLock<(GuardedChild, String)> = OnceLock::new();

/// The collector's URL.
fn collector() -> &'static str {
    let (_, url) = COLLECTOR.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-tools");
        let python = folder.join("python/bin/python");
        assert!(python.is_file(), "{} is missing: run scripts/setup.sh --test", python.display());
        let port = local_stack::free_port().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/features/otlp_receiver.py");
        let receiver =
            GuardedCommand::new(python, folder.join("otlp-receiver.log")).arg(script).arg(port.to_string());
        (receiver.spawn().unwrap(), format!("http://127.0.0.1:{port}"))
    });
    url
}

/// One system for all tests here: a day has 3 seconds, two of each service. Requests are traced if their caller says so.
async fn system() -> &'static System {
    SYSTEM
        .get_or_init(|| async {
            System::up_with(
                "features",
                &[
                    "--set",
                    "day=3s",
                    "--set",
                    "pay_within=6s",
                    "--set",
                    "charge_within=6s",
                    "--replicas",
                    "api=2",
                    "--replicas",
                    "order-orchestrator=2",
                    "--replicas",
                    "stock-worker=2",
                    "--replicas",
                    "payment-worker=2",
                ],
                &[
                    ("OTEL_EXPORTER_OTLP_ENDPOINT", collector()),
                    ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
                ],
            )
            .await
        })
        .await
}
