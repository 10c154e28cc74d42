//! Figures of the api for Prometheus; served on the admin port only.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

const LATENCY_BUCKETS_SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0, 10.0];
const BATCH_BUCKETS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 500.0];

/// Requests by route, method and status.
#[derive(Debug, Clone)]
pub(crate) struct HttpMetrics {
    requests: IntCounterVec,
    latency: HistogramVec,
}

impl HttpMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("api_http_requests_total", "Answered requests by route, method and status"),
            &["route", "method", "status"],
        )?;
        let latency = HistogramVec::new(
            HistogramOpts::new("api_http_request_seconds", "Time from the request's head to its answer")
                .buckets(LATENCY_BUCKETS_SECONDS.to_vec()),
            &["route", "method"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(latency.clone()))?;
        Ok(Self { requests, latency })
    }

    pub(crate) fn answered(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let method = match *method {
            Method::GET | Method::POST | Method::PUT | Method::DELETE | Method::PATCH | Method::HEAD => {
                method.as_str()
            }
            _ => "other",
        };
        self.requests.with_label_values(&[route, method, status.as_str()]).inc();
        self.latency.with_label_values(&[route, method]).observe(took.as_secs_f64());
    }
}

/// Orders on their way through the intake.
#[derive(Debug, Clone)]
pub(crate) struct IntakeMetrics {
    pub(crate) batch: Histogram,
    pub(crate) outcomes: IntCounterVec,
}

impl IntakeMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let batch = Histogram::with_opts(
            HistogramOpts::new("api_intake_batch_orders", "Orders that share one INSERT")
                .buckets(BATCH_BUCKETS.to_vec()),
        )?;
        let outcomes = IntCounterVec::new(
            Opts::new("api_intake_total", "Submitted orders by what became of them"),
            &["outcome"],
        )?;
        registry.register(Box::new(batch.clone()))?;
        registry.register(Box::new(outcomes.clone()))?;
        Ok(Self { batch, outcomes })
    }
}
