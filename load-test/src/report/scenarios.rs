//! What a report runs, in turn, and how long.

use crate::http::Http;
use crate::sale::Sale;
use crate::{bare, locks, rivals, sagas, steps, stored, users};

/// Sizes of all scenarios.
pub(super) struct Sizes {
    pub(super) bare: bare::Options,
    pub(super) stored: stored::Options,
    /// Before anything is measured.
    pub(super) warm_up: sagas::Closed,
    pub(super) uniform: sagas::Closed,
    pub(super) hot: sagas::Closed,
    pub(super) idle: sagas::Idle,
    pub(super) paced: sagas::paced::Options,
    /// With what each is called.
    pub(super) http: Vec<(&'static str, Http)>,
    pub(super) unpaid: (&'static str, Http),
    /// As FcomeFserve describes its load.
    pub(super) steady: Http,
    /// As buyme describes its.
    pub(super) burst: Http,
    pub(super) some_users: users::Options,
    pub(super) many_users: users::Options,
    pub(super) steps: steps::Options,
    pub(super) sale: Sale,
    pub(super) locks: locks::Options,
    pub(super) rivals: rivals::Options,
}

impl Sizes {
    /// Small ones, or as large as figures need to hold still.
    pub(super) fn new(is_short: bool, seed: u64, stored: Option<usize>) -> Self {
        let orders = if is_short { 12_000 } else { 60_000 };
        let (seconds, warm_up) = if is_short { (6, 3) } else { (30, 10) };
        let closed = |skus| sagas::Closed::of(orders, skus);
        let http = |rate| Http { seed, ..Http::at(rate, seconds, warm_up, 1_000) };
        let users = |users| users::Options { users, skus: 1_000, declined: 10, seconds, warm_up };
        let rates: &[u32] = if is_short {
            &[500, 1_000, 2_000, 3_000]
        } else {
            &[100, 300, 500, 1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 6_000, 8_000]
        };
        let stored = stored.unwrap_or(if is_short { 50_000 } else { 1_000_000 });
        Self {
            stored: if is_short {
                stored::Options::sized(stored, 3, seconds, orders / 2)
            } else {
                stored::Options::sized(stored, 7, 15, 20_000)
            },
            bare: bare::Options {
                orders,
                in_flight: 4_000,
                rounds: if is_short { 3 } else { 7 },
                seconds: if is_short { 1 } else { 3 },
                connections: 64,
                singles: if is_short { 500 } else { 2_000 },
            },
            warm_up: sagas::Closed::of(if is_short { 20_000 } else { 60_000 }, 1_000),
            uniform: closed(1_000),
            hot: closed(1),
            idle: sagas::Idle { orders: if is_short { 150 } else { 1_000 }, pause_ms: 50 },
            paced: sagas::paced::Options {
                rates: vec![100, 300, 1_000, 3_000, 10_000],
                skus: 1_000,
                seconds: if is_short { 3 } else { 10 },
                warm_up: if is_short { 2 } else { 5 },
                declined: 10,
            },
            http: vec![
                ("Steady 1,000 orders/s over HTTP", http(1_000)),
                ("Reads and writes mixed", Http { reads: 50, ..http(1_000) }),
            ],
            unpaid: ("Orders taken, none of them paid", Http { declined: 0, unpaid: 100, ..http(1_000) }),
            steady: Http {
                abandoned: 20,
                declined: 20,
                seconds: if is_short { seconds } else { 300 },
                ..http(1_000)
            },
            burst: Http { declined: 0, seconds: 10, warm_up: 1, ..http(1_000) },
            some_users: users(40),
            many_users: users(200),
            steps: steps::Options {
                rates: rates.to_vec(),
                skus: vec![1_000, 1],
                seconds: if is_short { 3 } else { 10 },
                warm_up: if is_short { 2 } else { 5 },
            },
            sale: Sale::default(),
            locks: locks::Options {
                buyers: if is_short { 2_000 } else { 8_000 },
                units: if is_short { 1_000 } else { 4_000 },
                connections: 64,
            },
            rivals: rivals::Options::sized(if is_short { 4 } else { 10 }, orders),
        }
    }
}
