//! The port to payment providers, and the two there are.

pub(crate) mod http;
pub(crate) mod simulated;

use std::future::Future;

use domain_types::Money;
use payment_domain::{ChargeAnswer, ProviderCall, QueryAnswer, RefundAnswer, Terms, VoidAnswer};

use http::HttpProvider;
use simulated::SimulatedProvider;

/// A payment provider. Every call may be repeated: the keys in [`ProviderCall`] make one of all repeats. An adapter never
/// guesses: what it does not know for certain is `Unknown`. Dropping a call is safe, its outcome is then unknown.
pub trait Provider: Send + Sync + 'static {
    /// Takes the money, at most once per charge key.
    fn charge(&self, call: &ProviderCall, terms: &Terms) -> impl Future<Output = ChargeAnswer> + Send;

    /// Tells the fate of the charge key.
    fn query(&self, call: &ProviderCall) -> impl Future<Output = QueryAnswer> + Send;

    /// Bars the charge key, also against requests that have yet to arrive; an approved charge is left as it is.
    fn void(&self, call: &ProviderCall) -> impl Future<Output = VoidAnswer> + Send;

    /// Gives an approved charge back, at most once.
    fn refund(&self, call: &ProviderCall, amount: Money) -> impl Future<Output = RefundAnswer> + Send;
}

/// The provider that the settings ask for.
pub(crate) enum AnyProvider {
    Simulated(SimulatedProvider),
    Http(HttpProvider),
}

impl Provider for AnyProvider {
    async fn charge(&self, call: &ProviderCall, terms: &Terms) -> ChargeAnswer {
        match self {
            Self::Simulated(provider) => provider.charge(call, terms).await,
            Self::Http(provider) => provider.charge(call, terms).await,
        }
    }

    async fn query(&self, call: &ProviderCall) -> QueryAnswer {
        match self {
            Self::Simulated(provider) => provider.query(call).await,
            Self::Http(provider) => provider.query(call).await,
        }
    }

    async fn void(&self, call: &ProviderCall) -> VoidAnswer {
        match self {
            Self::Simulated(provider) => provider.void(call).await,
            Self::Http(provider) => provider.void(call).await,
        }
    }

    async fn refund(&self, call: &ProviderCall, amount: Money) -> RefundAnswer {
        match self {
            Self::Simulated(provider) => provider.refund(call, amount).await,
            Self::Http(provider) => provider.refund(call, amount).await,
        }
    }
}
