//! Sends a plan at its own pace, on connections of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use domain_types::{CustomerId, OrderId, Sku};
use hyper::Method;
use hyper::header::HeaderValue;
use messaging::{Cluster, Publisher};
use tokio::sync::{Mutex, mpsc};
use tool_kit::Signer;
use uuid::Uuid;

use super::client::{Answer, Call, Connection, problem_code};
use super::plan::{Asked, Payment, Plan, Planned};
use crate::catalogue;
use crate::endpoints::Endpoints;

/// How long tokens are valid: longer than any run.
const TOKENS_FOR: Duration = Duration::from_secs(6 * 3_600);
/// Between the decision to begin and the first request.
const LEAD: Duration = Duration::from_millis(100);
/// How long the api may take to hear of new products.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

/// What is sold where, to whom.
pub(crate) struct Shop {
    /// `HOST:PORT` of each node.
    pub(crate) addresses: Vec<String>,
    pub(crate) skus: Vec<Sku>,
    /// `Bearer TOKEN` of each customer.
    pub(crate) customers: Vec<HeaderValue>,
}

impl Shop {
    /// Defines products of so many units each, and waits until every node knows them.
    pub(crate) async fn open(
        endpoints: &Endpoints,
        skus: usize,
        units: u32,
        customers: &[CustomerId],
    ) -> anyhow::Result<Self> {
        let cluster: Cluster = endpoints.cluster();
        let publisher = Publisher::new(&cluster, "load-test")?;
        let skus = catalogue::define(&cluster, &publisher, skus.max(1), units).await?;
        let signer = Signer::read(&endpoints.keys())?;
        let shop = Self {
            addresses: endpoints.addresses()?,
            skus,
            customers: customers
                .iter()
                .map(|customer| bearer(&signer, *customer))
                .collect::<Result<_, _>>()?,
        };
        shop.wait_until_known().await?;
        Ok(shop)
    }

    async fn wait_until_known(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        for address in &self.addresses {
            let mut connection = Connection::new(address)?;
            for sku in &self.skus {
                let path = format!("/v1/products/{sku}");
                let call =
                    || Call { method: Method::GET, path: &path, authorization: None, body: Bytes::new() };
                while !connection.send(call()).await?.status.is_success() {
                    anyhow::ensure!(began.elapsed() < KNOWN_WITHIN, "{address} does not know {sku}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        Ok(())
    }

    /// An order that does not count: what was answered.
    pub(crate) async fn order_once(&self, connection: &mut Connection) -> anyhow::Result<Answer> {
        let body = self.order(0, Payment::Approved)?;
        let authorization = self.customers.first();
        connection.send(Call { method: Method::POST, path: "/v1/orders", authorization, body }).await
    }

    /// One unit, as JSON.
    pub(crate) fn order(&self, sku: usize, payment: Payment) -> anyhow::Result<Bytes> {
        let sku = self.skus.get(sku).context("no product")?;
        let payment = payment.json();
        Ok(format!(r#"{{"lines":[{{"sku":"{sku}","quantity":1}}]{payment}}}"#).into())
    }
}

/// New customers.
pub(crate) fn customers(count: usize) -> Vec<CustomerId> {
    (0..count).map(|_| CustomerId(Uuid::new_v4())).collect()
}

/// `Bearer TOKEN` of a customer.
fn bearer(signer: &Signer, customer: CustomerId) -> anyhow::Result<HeaderValue> {
    let token = signer.sign(customer.uuid(), &["customer".to_owned()], None, TOKENS_FOR)?;
    Ok(HeaderValue::from_str(&format!("Bearer {token}"))?)
}

/// What became of one request.
pub(crate) struct Answered {
    pub(crate) planned: Planned,
    /// From the instant at which it was to be sent, to the one at which it was: what this program was late.
    pub(crate) sent_after: Duration,
    /// From the same instant to the answer.
    pub(crate) answered_after: Duration,
    /// Status and code, or that there was none.
    pub(crate) answer: String,
    /// The order, if one was taken.
    pub(crate) order: Option<OrderId>,
}

/// Sends everything that is planned, each at its instant from `begin` on. Hands answers over as they come; the channel
/// closes when all have been answered.
pub(crate) fn drive(
    shop: &Arc<Shop>,
    plan: &Plan,
    connections: usize,
) -> anyhow::Result<(Instant, mpsc::UnboundedReceiver<Answered>)> {
    let begin = Instant::now() + LEAD;
    let (due, queue) = mpsc::unbounded_channel::<Planned>();
    let queue = Arc::new(Mutex::new(queue));
    let (answers, answered) = mpsc::unbounded_channel();
    for number in 0..connections.max(1) {
        let address = shop.addresses.get(number % shop.addresses.len().max(1)).context("no api")?;
        let (shop, queue, answers) = (Arc::clone(shop), Arc::clone(&queue), answers.clone());
        let mut connection = Connection::new(address)?;
        tokio::spawn(async move {
            loop {
                let next = queue.lock().await.recv().await;
                let Some(planned) = next else { return };
                let answered = ask(&shop, &mut connection, planned, begin).await;
                if answers.send(answered).is_err() {
                    return;
                }
            }
        });
    }
    let plan = plan.clone();
    // A thread of its own: it wakes up within a tenth of a millisecond, where the runtime's timers take a whole one.
    std::thread::Builder::new().name("plan".to_owned()).spawn(move || {
        for planned in plan.requests() {
            let wait = (begin + planned.at).saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                std::thread::sleep(wait);
            }
            if due.send(planned).is_err() {
                return;
            }
        }
    })?;
    Ok((begin, answered))
}

async fn ask(shop: &Shop, connection: &mut Connection, planned: Planned, begin: Instant) -> Answered {
    let intended = begin + planned.at;
    let sent_after = intended.elapsed();
    let answer = exchange(shop, connection, planned).await;
    let answered_after = intended.elapsed();
    let order = answer.as_ref().ok().and_then(order_of);
    Answered { planned, sent_after, answered_after, answer: said(&answer), order }
}

/// Status and code; `none`: no answer.
pub(crate) fn said(answer: &anyhow::Result<Answer>) -> String {
    match answer {
        Ok(Answer { status, .. }) if status.is_success() => status.as_u16().to_string(),
        Ok(Answer { status, body, .. }) => {
            format!("{} {}", status.as_u16(), problem_code(body)).trim_end().to_owned()
        }
        Err(_unheard) => "none".to_owned(),
    }
}

async fn exchange(shop: &Shop, connection: &mut Connection, planned: Planned) -> anyhow::Result<Answer> {
    let authorization = shop.customers.get(planned.customer);
    let latest = "/v1/orders?limit=5".to_owned();
    let (method, path, body) = match planned.asked {
        Asked::Order(payment) => (Method::POST, "/v1/orders".to_owned(), shop.order(planned.sku, payment)?),
        Asked::Product => {
            let sku = shop.skus.get(planned.sku).context("no product")?;
            (Method::GET, format!("/v1/products/{sku}"), Bytes::new())
        }
        Asked::Latest => (Method::GET, latest, Bytes::new()),
    };
    connection.send(Call { method, path: &path, authorization, body }).await
}

/// The order that an answer says was made.
pub(crate) fn order_of(answer: &Answer) -> Option<OrderId> {
    let location = answer.location.as_ref()?.to_str().ok()?;
    Uuid::parse_str(location.rsplit('/').next()?).ok().map(OrderId)
}
