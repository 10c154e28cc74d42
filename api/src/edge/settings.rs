//! Settings of the edge.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::HeaderValue;
use serde::{Deserialize, Deserializer};

use crate::edge::address::Network;

/// Settings of the edge. See `settings.toml` for what each means.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeSettings {
    /// Most open connections, streams included; the next one is told `503`.
    pub max_connections: usize,
    /// Most requests at once; the next one is told `503`.
    pub max_in_flight: usize,
    /// How long a request's head may take, and a connection may be idle, milliseconds.
    pub header_within_ms: u64,
    /// How long a request's body may take, milliseconds.
    pub body_within_ms: u64,
    /// How long a client may take nothing of its answer before it is dropped, milliseconds.
    pub write_within_ms: u64,
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<Network>,
    /// Requests of one address (IPv6: one /64).
    pub address: Rate,
    /// Whether addresses of this machine are limited as well.
    pub limit_loopback: bool,
    /// Requests of one customer or admin, at this node.
    pub customer: Rate,
    /// Sites whose pages may call this api.
    pub allowed_origins: Vec<Origin>,
    /// `max-age` of HSTS, seconds; told only to those who came by TLS. 0: none.
    pub hsts_max_age_s: u32,
}

impl Default for EdgeSettings {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_in_flight: 8_192,
            header_within_ms: 30_000,
            body_within_ms: 10_000,
            write_within_ms: 30_000,
            trusted_proxies: Vec::new(),
            address: Rate { per_second: NonZeroU32::new(500), burst: NonZeroU32::new(2_000) },
            limit_loopback: false,
            customer: Rate { per_second: NonZeroU32::new(200), burst: NonZeroU32::new(1_000) },
            allowed_origins: Vec::new(),
            hsts_max_age_s: 31_536_000,
        }
    }
}

impl EdgeSettings {
    pub(crate) fn header_within(&self) -> Duration {
        Duration::from_millis(self.header_within_ms)
    }

    pub(crate) fn write_within(&self) -> Duration {
        Duration::from_millis(self.write_within_ms)
    }

    pub(crate) fn body_within(&self) -> Duration {
        Duration::from_millis(self.body_within_ms)
    }
}

/// How many requests are let in: `burst` at once, `per_second` in the long run. Either one 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// In the long run.
    #[serde(deserialize_with = "zero_is_none")]
    pub per_second: Option<NonZeroU32>,
    /// At once, after a quiet time.
    #[serde(deserialize_with = "zero_is_none")]
    pub burst: Option<NonZeroU32>,
}

fn zero_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    u32::deserialize(deserializer).map(NonZeroU32::new)
}

/// A site: scheme, host and port, as a browser writes it (`https://shop.example`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// A text that is no origin.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no origin: scheme, host and maybe a port, without a path; never *")]
pub struct InvalidOrigin(String);

impl Origin {
    /// Checks the text.
    ///
    /// # Errors
    /// If a browser would never send it.
    pub fn new(text: &str) -> Result<Self, InvalidOrigin> {
        let invalid = || InvalidOrigin(text.to_owned());
        let host =
            text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(invalid)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:[]".contains(&b);
        if host.is_empty() || !host.bytes().all(plain) {
            return Err(invalid());
        }
        HeaderValue::from_str(text).map(Self).map_err(|_no_header| invalid())
    }

    pub(crate) const fn header(&self) -> &HeaderValue {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for good in ["https://shop.example", "http://localhost:3000", "http://[::1]:3000"] {
            assert!(Origin::new(good).is_ok(), "{good}");
        }
        for bad in ["*", "null", "shop.example", "https://shop.example/", "https://Shop.example", "https://"]
        {
            assert!(Origin::new(bad).is_err(), "{bad}");
        }
    }
}
