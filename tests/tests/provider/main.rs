//! A payment provider over HTTP that fails, hangs and comes back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use futures::future::join_all;
use local_stack::{GuardedChild, GuardedCommand};
use serde_json::json;
use system_tests::{SOON, System};

struct Provider {
    url: String,
    _process: GuardedChild,
}

impl Provider {
    async fn start() -> Self {
        let port = local_stack::free_port().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/provider/provider.py");
        let log = testkit::fresh_folder("provider").join("provider.log");
        let python = GuardedCommand::new("/usr/bin/python3", log).arg(script).arg(port.to_string());
        let provider = Self { url, _process: python.spawn().unwrap() };
        testkit::eventually(SOON, "the provider answers", async || reqwest::get(provider.at("book")).await)
            .await;
        provider
    }

    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.url)
    }

    async fn is(&self, mode: &str) {
        reqwest::Client::new().post(self.at(&format!("mode/{mode}"))).send().await.unwrap();
    }

    /// The keys that were charged.
    async fn book(&self) -> Vec<String> {
        reqwest::get(self.at("book")).await.unwrap().json().await.unwrap()
    }
}

/// The circuit breaker of the payment worker comes to this state: 0 closed, 2 open.
async fn until_breaker(system: &System, state: &str) {
    let metrics = system.endpoints()["metrics"]["payment-worker-1"].as_str().unwrap().to_owned();
    testkit::eventually(SOON, &format!("the breaker is {state}"), async || {
        let text = reqwest::get(&metrics).await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with("payment_provider_breaker_state"));
        match line {
            Some(line) if line.ends_with(state) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn x2_a_provider_that_fails_hangs_and_comes_back_holds_up_charges_alone_and_charges_once() {
    let provider = Provider::start().await;
    let environment = [
        ("PAYMENT_WORKER__HTTP_PROVIDER__BASE_URL", provider.url.as_str()),
        ("PAYMENT_WORKER__HTTP_PROVIDER__TIMEOUT_MS", "1000"),
        ("PAYMENT_WORKER__HTTP_PROVIDER__RETRIES", "0"),
        ("PAYMENT_WORKER__HTTP_PROVIDER__BREAKER_FAILURES", "3"),
        ("PAYMENT_WORKER__HTTP_PROVIDER__BREAKER_OPEN_MS", "300"),
        ("PAYMENT_WORKER__CALLS__FIRST_RETRY_MS", "50"),
        ("PAYMENT_WORKER__CALLS__LONGEST_RETRY_MS", "500"),
    ];
    let system = System::up_with("provider", &["--separate"], &environment).await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = &admin.new_product(100, &json!({})).await;
    let pay =
        async |method: &'static str| join_all((0..10).map(|_| customer.ordered(sku, 1, Some(method)))).await;
    let are_paid = async |orders: &[String]| {
        join_all(orders.iter().map(|order| customer.until(order, &["PAID"]))).await;
    };

    for mode in ["failing", "hanging"] {
        provider.is(mode).await;
        let orders = pay("card").await;
        until_breaker(&system, "2").await;
        // Whoever needs no charge is not held up.
        let other = customer.ordered(sku, 1, None).await;
        customer.until(&other, &["AWAITING_PAYMENT"]).await;
        customer.post(&format!("/v1/orders/{other}/cancellation"), &json!({})).await.expect(202);
        customer.until(&other, &["CANCELLED"]).await;
        for order in &orders {
            assert_eq!(customer.see(order).await["state"], "CHARGING", "{mode}");
        }
        provider.is("fine").await;
        are_paid(&orders).await;
        until_breaker(&system, "0").await;
    }

    // One customer's bank is slow: it delays nobody else.
    let slow = customer.ordered(sku, 1, Some("card_slow")).await;
    customer.until(&slow, &["CHARGING"]).await;
    are_paid(&pay("card").await).await;
    assert_eq!(customer.see(&slow).await["state"], "CHARGING");
    provider.is("released").await;
    are_paid(&[slow]).await;

    let book = provider.book().await;
    assert_eq!(book.len(), 31, "each order has one key: {book:?}");
    customer.until_available(sku, 100 - 31).await;
}
