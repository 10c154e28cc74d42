//! What live answers share on one node: how many there may be, and that they end with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain_types::CustomerId;
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
    /// Most of each that one customer has.
    pub max_per_customer: usize,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self { max_streams: 5_000, max_waits: 5_000, max_per_customer: 100 }
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

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// All are taken.
    Node,
    /// This customer has as many as one may have.
    Customer,
}

/// A place for a stream or a wait; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    customer: CustomerId,
    places: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.customer) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                held.remove(&self.customer);
            }
        }
        self.places.taken.dec();
    }
}

/// Places of one kind.
#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    /// How many each customer has, and may have: else one could take them from all others.
    held: Mutex<HashMap<CustomerId, usize>>,
    max_per_customer: usize,
    taken: IntGauge,
}

impl Places {
    fn new(most: usize, max_per_customer: usize, taken: IntGauge) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(most));
        Arc::new(Self { free, held: Mutex::default(), max_per_customer, taken })
    }

    fn take(self: &Arc<Self>, customer: CustomerId) -> Result<Place, Full> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let before = held.get(&customer).copied().unwrap_or_default();
        if before >= self.max_per_customer {
            return Err(Full::Customer);
        }
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_none_free| Full::Node)?;
        held.insert(customer, before + 1);
        self.taken.inc();
        Ok(Place { _permit: permit, customer, places: Arc::clone(self) })
    }
}

/// The places of one node. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    streams: Arc<Places>,
    waits: Arc<Places>,
    /// When cancelled, streams and waits end.
    pub(crate) end: CancellationToken,
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
            streams: Places::new(settings.max_streams, settings.max_per_customer, open_streams),
            waits: Places::new(settings.max_waits, settings.max_per_customer, open_waits),
            end,
            ended,
        })
    }

    /// A place for a customer's stream.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn stream(&self, customer: CustomerId) -> Result<Place, Full> {
        self.streams.take(customer)
    }

    /// A place for a customer's wait.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn wait(&self, customer: CustomerId) -> Result<Place, Full> {
        self.waits.take(customer)
    }

    pub(crate) fn ended(&self, why: End) {
        self.ended.with_label_values(&[why.as_str()]).inc();
    }
}
