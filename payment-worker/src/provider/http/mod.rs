//! A provider over HTTP: time-out, retry with the same key, circuit breaker. What is not certain is unknown.

mod breaker;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain_types::Money;
use payment_domain::{
    ChargeAnswer, IdempotencyKey, ProviderCall, QueryAnswer, RefundAnswer, Terms, VoidAnswer,
};
use prometheus::IntGauge;
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};

use crate::provider::Provider;
use crate::settings::HttpSettings;
use breaker::Breaker;
use wire::{ChargeRequest, Exchange, RefundRequest};

/// Largest body that is read.
const BODY_BYTES: usize = 64 * 1024;
/// Idle connections are closed before most servers would.
const IDLE: Duration = Duration::from_secs(20);

/// Why the settings make no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpProviderError {
    #[error("http_provider.base_url is no http(s) URL")]
    BaseUrl,
    #[error("the http client can't be made")]
    Client(#[source] reqwest::Error),
}

/// See the module.
pub(crate) struct HttpProvider {
    client: Client,
    base: Url,
    token: Option<SecretString>,
    retries: u32,
    retry_pause: Duration,
    breaker: Mutex<Breaker>,
    gauge: IntGauge,
    started: Instant,
}

impl HttpProvider {
    pub(crate) fn new(settings: &HttpSettings, gauge: IntGauge) -> Result<Self, HttpProviderError> {
        let base = Url::parse(&settings.base_url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let client = Client::builder()
            .timeout(Duration::from_millis(settings.timeout_ms))
            .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
            .pool_idle_timeout(IDLE)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .build()
            .map_err(HttpProviderError::Client)?;
        let limits = breaker::Limits {
            failures: settings.breaker_failures,
            open_for: Duration::from_millis(settings.breaker_open_ms),
        };
        Ok(Self {
            client,
            base: base.ok_or(HttpProviderError::BaseUrl)?,
            token: settings.token.clone(),
            retries: settings.retries,
            retry_pause: Duration::from_millis(settings.retry_pause_ms),
            breaker: Mutex::new(Breaker::new(limits)),
            gauge,
            started: Instant::now(),
        })
    }

    fn request(&self, method: Method, path: &[&str], call: &ProviderCall) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        match &call.traceparent {
            Some(traceparent) => request.header(schemas::HEADER_TRACEPARENT, traceparent),
            None => request,
        }
    }

    /// Sends until there is an answer, as often as the settings allow. Every request here may be repeated: it carries its key.
    async fn exchange(&self, request: RequestBuilder) -> Exchange {
        let mut pause = self.retry_pause;
        let mut tries_left = self.retries;
        // What one lost request may have done, a later one that was not sent does not undo.
        let mut lost_one = false;
        loop {
            let Some(try_now) = request.try_clone() else { return Exchange::Lost };
            let exchange = self.guarded(try_now).await;
            match exchange {
                Exchange::Answered(body) => return Exchange::Answered(body),
                Exchange::Lost => lost_one = true,
                Exchange::NotSent => {}
            }
            if tries_left == 0 {
                return if lost_one { Exchange::Lost } else { Exchange::NotSent };
            }
            tries_left -= 1;
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2);
        }
    }

    /// One request, if the breaker lets it through.
    async fn guarded(&self, request: RequestBuilder) -> Exchange {
        if !self.with_breaker(|breaker, now| breaker.lets_through(now)) {
            return Exchange::NotSent;
        }
        let (exchange, answered) = send(request).await;
        self.with_breaker(|breaker, now| breaker.ended(answered, now));
        exchange
    }

    fn with_breaker<T>(&self, change: impl FnOnce(&mut Breaker, Duration) -> T) -> T {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut breaker, self.started.elapsed());
        self.gauge.set(breaker.level());
        result
    }
}

/// How the request ended, and whether the provider is there.
async fn send(request: RequestBuilder) -> (Exchange, bool) {
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(%error, "the provider did not answer");
            let exchange =
                if error.is_connect() || error.is_builder() { Exchange::NotSent } else { Exchange::Lost };
            return (exchange, false);
        }
    };
    let status = response.status();
    let has_news = status.is_success()
        || matches!(
            status,
            StatusCode::PAYMENT_REQUIRED
                | StatusCode::NOT_FOUND
                | StatusCode::CONFLICT
                | StatusCode::UNPROCESSABLE_ENTITY
        );
    if !has_news {
        tracing::debug!(%status, "the provider answered without news");
        let exchange =
            if status == StatusCode::TOO_MANY_REQUESTS { Exchange::NotSent } else { Exchange::Lost };
        return (exchange, !status.is_server_error());
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return (Exchange::Answered(body), true),
            Ok(Some(chunk)) if body.len() + chunk.len() <= BODY_BYTES => body.extend_from_slice(&chunk),
            Ok(Some(_)) => return (Exchange::Lost, true),
            Err(_) => return (Exchange::Lost, false),
        }
    }
}

const IDEMPOTENCY_KEY: &str = "idempotency-key";

impl Provider for HttpProvider {
    async fn charge(&self, call: &ProviderCall, terms: &Terms) -> ChargeAnswer {
        let body = ChargeRequest {
            order_id: call.order_id,
            customer_id: call.customer_id,
            amount: terms.amount,
            method: &terms.method,
        };
        let request = self
            .request(Method::POST, &["charges"], call)
            .header(IDEMPOTENCY_KEY, call.charge_key.as_str())
            .json(&body);
        wire::to_charge(&self.exchange(request).await)
    }

    async fn query(&self, call: &ProviderCall) -> QueryAnswer {
        let request = self.request(Method::GET, &["charges", call.charge_key.as_str()], call);
        wire::to_query(&self.exchange(request).await)
    }

    async fn void(&self, call: &ProviderCall) -> VoidAnswer {
        let request = self
            .request(Method::POST, &["charges", call.charge_key.as_str(), "void"], call)
            .header(IDEMPOTENCY_KEY, format!("void-{}", call.order_id));
        wire::to_void(&self.exchange(request).await)
    }

    async fn refund(&self, call: &ProviderCall, amount: Money) -> RefundAnswer {
        let request = self
            .request(Method::POST, &["charges", call.charge_key.as_str(), "refunds"], call)
            .header(IDEMPOTENCY_KEY, IdempotencyKey::refund(call.order_id).as_str())
            .json(&RefundRequest { amount });
        wire::to_refund(&self.exchange(request).await)
    }
}
