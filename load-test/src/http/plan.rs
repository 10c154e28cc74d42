//! What is sent when: fixed before it begins, so that no answer, however late, delays what comes after it.

use std::time::Duration;

use schemas::OrderState;
use serde::Serialize;

/// Shares of a hundred. What is left of orders is paid.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Mix {
    /// Of the orders, those whose payment is declined.
    pub(crate) declined: u32,
    /// Of the orders, those whose payment the customer abandons.
    pub(crate) abandoned: u32,
    /// Of the orders, those that come without a payment and wait for it.
    pub(crate) unpaid: u32,
    /// Of the orders, those whose payment the provider takes three seconds to approve.
    pub(crate) slow: u32,
    /// Of all requests, those that only read.
    pub(crate) reads: u32,
}

/// How an order is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payment {
    Approved,
    Declined,
    Abandoned,
    /// Approved, after three seconds.
    Slow,
    None,
}

impl Payment {
    /// What the order is to become.
    pub(crate) const fn wanted(self) -> OrderState {
        match self {
            Self::Approved | Self::Slow => OrderState::Paid,
            Self::Declined | Self::Abandoned => OrderState::PaymentFailed,
            Self::None => OrderState::AwaitingPayment,
        }
    }

    /// As it stands in an order.
    pub(crate) const fn json(self) -> &'static str {
        match self {
            Self::Approved => r#","payment":{"method":"tok_approve"}"#,
            Self::Declined => r#","payment":{"method":"tok_decline"}"#,
            Self::Abandoned => r#","payment":{"method":"tok_abandon"}"#,
            Self::Slow => r#","payment":{"method":"tok_slow"}"#,
            Self::None => "",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// One unit.
    Order(Payment),
    /// A product.
    Product,
    /// The customer's latest five orders.
    Latest,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    /// When it is to be sent, from the beginning.
    pub(crate) at: Duration,
    /// Whether it counts: not while everything warms up.
    pub(crate) is_counted: bool,
    pub(crate) asked: Asked,
    pub(crate) sku: usize,
    pub(crate) customer: usize,
}

/// Requests at even distances, first to warm up, then to be counted.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Plan {
    pub(crate) per_second: f64,
    pub(crate) warm_up: Duration,
    pub(crate) steady: Duration,
    pub(crate) mix: Mix,
    pub(crate) skus: usize,
    pub(crate) customers: usize,
    pub(crate) seed: u64,
}

impl Plan {
    /// In the order in which they are sent. The same seed makes the same requests.
    pub(crate) fn requests(&self) -> impl Iterator<Item = Planned> + '_ {
        let end = self.warm_up + self.steady;
        (0_u64..).map(|number| self.request(number)).take_while(move |request| request.at < end)
    }

    fn request(&self, number: u64) -> Planned {
        let at = Duration::from_secs_f64(to_f64(number) / self.per_second);
        let mut random = Random(self.seed ^ number.wrapping_mul(0xA076_1D64_78BD_642F));
        let asked = if random.below(100) < u64::from(self.mix.reads) {
            if random.below(2) == 0 { Asked::Product } else { Asked::Latest }
        } else {
            Asked::Order(self.mix.payment(random.below(100)))
        };
        let mut one_of = |count: usize| {
            let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
            usize::try_from(random.below(count)).unwrap_or_default()
        };
        let (sku, customer) = (one_of(self.skus), one_of(self.customers));
        Planned { at, is_counted: at >= self.warm_up, asked, sku, customer }
    }
}

impl Mix {
    fn payment(self, of_hundred: u64) -> Payment {
        let Self { declined, abandoned, unpaid, slow, reads: _ } = self;
        let below = |share: u32| of_hundred < u64::from(share);
        if below(declined) {
            Payment::Declined
        } else if below(declined + abandoned) {
            Payment::Abandoned
        } else if below(declined + abandoned + unpaid) {
            Payment::None
        } else if below(declined + abandoned + unpaid + slow) {
            Payment::Slow
        } else {
            Payment::Approved
        }
    }
}

/// A number of requests, exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "nobody sends 2^53 requests")]
pub(crate) const fn to_f64(number: u64) -> f64 {
    number as f64
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough to spread requests, and the same everywhere.
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    const fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            per_second: 1_000.0,
            warm_up: Duration::from_secs(2),
            steady: Duration::from_secs(8),
            mix: Mix { declined: 10, abandoned: 20, unpaid: 0, slow: 4, reads: 50 },
            skus: 7,
            customers: 11,
            seed: 4_711,
        }
    }

    #[test]
    fn requests_are_sent_evenly_whatever_is_answered() {
        let all: Vec<Planned> = plan().requests().collect();
        assert_eq!(all.len(), 10_000);
        for pair in all.windows(2) {
            let apart = pair[1].at - pair[0].at;
            assert!(apart.as_micros().abs_diff(1_000) <= 1, "{apart:?}");
        }
        assert_eq!(all.iter().filter(|request| request.is_counted).count(), 8_000);
        assert_eq!(all[2_000].at, Duration::from_secs(2));
        assert!(all[2_000].is_counted && !all[1_999].is_counted);
    }

    #[test]
    fn the_same_seed_sends_the_same() {
        let all = |seed| Plan { seed, ..plan() }.requests().collect::<Vec<_>>();
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
    }

    #[test]
    fn shares_are_as_asked_for() {
        let share = |is: fn(&Planned) -> bool| {
            let plan = plan();
            plan.requests().filter(is).count()
        };
        let reads = share(|request| matches!(request.asked, Asked::Product | Asked::Latest));
        let declined = share(|request| request.asked == Asked::Order(Payment::Declined));
        let abandoned = share(|request| request.asked == Asked::Order(Payment::Abandoned));
        let slow = share(|request| request.asked == Asked::Order(Payment::Slow));
        assert!((100..300).contains(&slow), "{slow} is not about 200");
        for (found, expected) in [(reads, 5_000_usize), (declined, 500), (abandoned, 1_000)] {
            assert!(found.abs_diff(expected) < 200, "{found} is not about {expected}");
        }
        let skus: std::collections::HashSet<usize> = plan().requests().map(|request| request.sku).collect();
        assert_eq!(skus.len(), 7);
    }
}
