//! What live answers share on one node: how many there may be, and that they end with it.

use std::sync::Arc;

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Limits of live answers. See `settings.toml`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiveSettings {
    /// Most open event streams.
    pub max_streams: usize,
    /// Most requests that wait because of `Prefer: wait`; others are answered at once.
    pub max_waits: usize,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self { max_streams: 5_000, max_waits: 5_000 }
    }
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The order is final: there is nothing more to tell.
    Final,
    /// The client hung up.
    Client,
    /// The client did not take what was sent.
    Stalled,
    /// The node ends.
    Shutdown,
}

impl End {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::Client => "client",
            Self::Stalled => "stalled",
            Self::Shutdown => "shutdown",
        }
    }
}

/// A place for a stream or a wait; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    taken: IntGauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.dec();
    }
}

/// The places of one node. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    streams: Arc<Semaphore>,
    waits: Arc<Semaphore>,
    /// When cancelled, streams and waits end.
    pub(crate) end: CancellationToken,
    open_streams: IntGauge,
    open_waits: IntGauge,
    ended: IntCounterVec,
}

impl Live {
    /// # Errors
    /// If the metrics are registered already.
    pub(crate) fn new(
        settings: LiveSettings,
        end: CancellationToken,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let open_streams = IntGauge::new("api_streams_open", "Open event streams")?;
        let open_waits = IntGauge::new("api_waits_open", "Requests that wait because of Prefer: wait")?;
        let ended = IntCounterVec::new(
            Opts::new("api_streams_ended_total", "Ended event streams, by why they ended"),
            &["why"],
        )?;
        registry.register(Box::new(open_streams.clone()))?;
        registry.register(Box::new(open_waits.clone()))?;
        registry.register(Box::new(ended.clone()))?;
        Ok(Self {
            streams: Arc::new(Semaphore::new(settings.max_streams)),
            waits: Arc::new(Semaphore::new(settings.max_waits)),
            end,
            open_streams,
            open_waits,
            ended,
        })
    }

    /// A place for a stream; `None` if all are taken.
    pub(crate) fn stream(&self) -> Option<Place> {
        place(&self.streams, &self.open_streams)
    }

    /// A place for a wait; `None` if all are taken.
    pub(crate) fn wait(&self) -> Option<Place> {
        place(&self.waits, &self.open_waits)
    }

    pub(crate) fn ended(&self, why: End) {
        self.ended.with_label_values(&[why.as_str()]).inc();
    }
}

fn place(free: &Arc<Semaphore>, taken: &IntGauge) -> Option<Place> {
    let permit = Arc::clone(free).try_acquire_owned().ok()?;
    taken.inc();
    Some(Place { _permit: permit, taken: taken.clone() })
}
