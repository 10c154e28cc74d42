//! One try of one customer, and what became of the order.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

/// How often something is looked at that is on its way.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The pause after an answer that does not say how long it is to be, or after none.
const PAUSE: Duration = Duration::from_secs(1);

/// What is sold where.
pub(super) struct Shop {
    pub(super) client: Client,
    /// Base URLs of all nodes.
    pub(super) apis: Vec<String>,
    pub(super) sku: String,
    /// As many requests at once as there may be connections.
    pub(super) gate: Semaphore,
}

/// What became of one try.
pub(super) struct Tried {
    pub(super) ended: Ended,
    /// Every answer, also those that asked to come again: status and code.
    pub(super) answers: Vec<String>,
    /// From the instant at which the customer came to the first request: what this program was late.
    pub(super) sent_after: Duration,
    /// From the same instant to the last answer.
    pub(super) ended_after: Duration,
}

pub(super) enum Ended {
    /// An order; its id.
    Accepted(String),
    /// The problem's code.
    Refused(String),
    /// Time was up.
    Unanswered,
}

impl Shop {
    /// The base URL of a node, counted around.
    pub(super) fn api(&self, node: usize) -> &str {
        self.apis.get(node % self.apis.len().max(1)).map_or("", String::as_str)
    }

    /// Orders one unit at that node, under one key until there is an answer that is none to come again on.
    pub(super) async fn try_to_buy(
        &self,
        node: usize,
        token: &str,
        method: &str,
        comes: Instant,
        deadline: Instant,
    ) -> Tried {
        let key = Uuid::new_v4().to_string();
        let body = json!({"lines": [{"sku": self.sku, "quantity": 1}], "payment": {"method": method}});
        let url = format!("{}/v1/orders", self.api(node));
        let (mut answers, mut sent_after) = (Vec::new(), None);
        let ended = loop {
            let pause = {
                let _connection = self.gate.acquire().await;
                sent_after.get_or_insert_with(|| comes.elapsed());
                let request = self.client.post(&url).bearer_auth(token).header("idempotency-key", &key);
                match request.json(&body).send().await {
                    Ok(answer) => {
                        let (status, pause) = (answer.status(), retry_after(&answer));
                        let body: Value = answer.json().await.unwrap_or_default();
                        answers.push(
                            format!("{} {}", status.as_u16(), text(&body, "code")).trim_end().to_owned(),
                        );
                        if status.is_success() {
                            break Ended::Accepted(text(&body, "id").to_owned());
                        }
                        if !is_passing(status) {
                            break Ended::Refused(text(&body, "code").to_owned());
                        }
                        pause
                    }
                    Err(_no_answer) => {
                        answers.push("none".to_owned());
                        PAUSE
                    }
                }
            };
            if Instant::now() + pause > deadline {
                break Ended::Unanswered;
            }
            tokio::time::sleep(pause).await;
        };
        let (sent_after, ended_after) = (sent_after.unwrap_or_default(), comes.elapsed());
        Tried { ended, answers, sent_after, ended_after }
    }

    /// Looks at an order until it is not on its way any more: its state, and its reason if it has one.
    pub(super) async fn follow(&self, node: usize, order: &str, token: &str, deadline: Instant) -> String {
        let url = format!("{}/v1/orders/{order}", self.api(node));
        loop {
            let last = match self.client.get(&url).bearer_auth(token).send().await {
                Ok(answer) => {
                    let order: Value = answer.json().await.unwrap_or_default();
                    let state = text(&order, "state");
                    let is_final = order.get("final").and_then(Value::as_bool).unwrap_or_default();
                    let seen = format!("{state} {}", text(&order, "reason")).trim_end().to_owned();
                    if is_final || is_sold(state) {
                        return seen;
                    }
                    seen
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                return format!("on its way: {last}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// With a short day it may be delivered before anybody looks.
pub(super) fn is_sold(state: &str) -> bool {
    matches!(state, "PAID" | "SHIPPED" | "DELIVERED")
}

/// An answer that is worth trying again with the same key.
fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE
}

/// How long the answer asks to wait.
pub(super) fn retry_after(answer: &Response) -> Duration {
    let header = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
    header.and_then(|seconds| seconds.parse().ok()).map_or(PAUSE, Duration::from_secs)
}

/// A field of a JSON object as text; empty if it isn't there.
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
