//! Customers who buy all the time and remember every answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use system_tests::{Client, System, order_body};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

/// Customers who buy at once.
pub(crate) const BUYERS: u32 = 48;
/// Pause after an answer that asks for one, or after none.
const AGAIN_AFTER: Duration = Duration::from_millis(250);
/// How customers pay, in turn.
const METHODS: [&str; 8] = [
    "tok_approve",
    "tok_approve",
    "tok_decline",
    "tok_approve",
    "tok_unknown_approve",
    "tok_approve",
    "tok_over_limit",
    "tok_unknown_decline",
];

/// What customers were told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Orders that were accepted.
    pub(crate) accepted: Mutex<Vec<Uuid>>,
    /// How long each of them took from its first try to its answer, which waits for the end of the order.
    pub(crate) waits: Mutex<Vec<Duration>>,
    /// Answers by status, 0 for none.
    pub(crate) answers: Mutex<BTreeMap<u16, u64>>,
    requests: AtomicU64,
}

/// Customers at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    buyers: JoinSet<()>,
}

impl Load {
    /// They buy these products, the first one most of all, each of them one order `every` so often at most, until [`Load::end`].
    pub(crate) fn start(
        system: &System,
        customers: &[Client],
        skus: &[String],
        told: &Arc<Told>,
        every: Duration,
    ) -> Self {
        let (stop, mut buyers) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        let nodes = system.apis().len();
        for number in 0..BUYERS {
            let number = usize::try_from(number).unwrap();
            let customer = customers[number % customers.len()].clone();
            let (skus, told, stop) = (skus.to_vec(), Arc::clone(told), Arc::clone(&stop));
            buyers.spawn(async move {
                let mut turn = number;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let sku = if turn % 2 == 0 { &skus[0] } else { &skus[turn % skus.len()] };
                    let next = Instant::now() + every;
                    buy(&customer, sku, METHODS[turn % METHODS.len()], nodes, &told, &stop).await;
                    tokio::time::sleep_until(next).await;
                }
            });
        }
        Self { stop, buyers }
    }

    /// Returns once each of them has an answer about the order in hand, or has given it up: the system is to be whole by now.
    pub(crate) async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.buyers.join_next().await {
            ended.unwrap();
        }
    }
}

/// One order, insisted on under one key until there is an answer, at one node after the other.
async fn buy(customer: &Client, sku: &str, method: &str, nodes: usize, told: &Told, stop: &AtomicBool) {
    let (key, body) = (Uuid::new_v4().to_string(), order_body(&[(sku, 1)], Some(method)));
    let (mut tries, first_try) = (0, Instant::now());
    // Once all is to end, a few more tries.
    while !stop.load(Ordering::Relaxed) || tries < 40 {
        tries += 1;
        let node = usize::try_from(told.requests.fetch_add(1, Ordering::Relaxed)).unwrap() % nodes;
        let request = customer
            .at(node)
            .request(Method::POST, "/v1/orders")
            .header("idempotency-key", &key)
            .header("prefer", "wait=5")
            .json(&body);
        let answer = Client::try_send(request).await;
        let status = answer.as_ref().map_or(0, |answer| answer.status.as_u16());
        *told.answers.lock().await.entry(status).or_default() += 1;
        match answer {
            Ok(answer) if matches!(status, 200..=202) => {
                let id = answer.body["id"].as_str().unwrap().parse().unwrap();
                told.accepted.lock().await.push(id);
                told.waits.lock().await.push(first_try.elapsed());
                return;
            }
            // Sold out, or over the limit: an answer, and nothing was kept.
            Ok(answer) if status == 409 => {
                let code = answer.body["code"].as_str().unwrap_or_default().to_owned();
                assert!(["sold_out", "limit_exceeded"].contains(&code.as_str()), "{}", answer.body);
                return;
            }
            Ok(answer) if !matches!(status, 429 | 503) => panic!("{status} {}", answer.body),
            _ => tokio::time::sleep(AGAIN_AFTER).await,
        }
    }
}
