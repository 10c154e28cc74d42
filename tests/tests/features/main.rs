//! Rows of the feature list, each through the public API of one running system.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "tests")]

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
mod topics;

static SYSTEM: OnceCell<System> = OnceCell::const_new();

/// One system for all tests here: a day has 3 seconds, two of each service.
async fn system() -> &'static System {
    SYSTEM
        .get_or_init(|| {
            System::up(
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
            )
        })
        .await
}
