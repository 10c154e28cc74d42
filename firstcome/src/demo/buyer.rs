//! One customer: orders with a payment, never gives up on an answer, and looks until the order is settled.

use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::is_passing;
use crate::client::{answer, text};

const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Buyer {
    pub(super) client: Client,
    pub(super) api: String,
    pub(super) token: String,
    pub(super) sku: String,
    pub(super) method: &'static str,
    pub(super) deadline: Instant,
}

/// What became of one attempt to buy.
#[derive(Debug)]
pub(super) struct Purchase {
    pub(super) outcome: Outcome,
    /// `202` received, counted from the request that was answered with it.
    pub(super) accepted_after: Option<Duration>,
    /// Outcome known, counted from the first request.
    pub(super) settled_after: Option<Duration>,
    /// Requests repeated because no answer, or only a passing one, came.
    pub(super) repeats: u32,
    /// Minor units, from the order.
    pub(super) money: Money,
}

/// What the order says about money, minor units.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Money {
    pub(super) due: i64,
    pub(super) charged: i64,
    pub(super) refunded: i64,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Sold,
    /// Its units were held and given back.
    PaymentFailed {
        reason: String,
    },
    /// At the door or by the saga.
    Refused {
        reason: String,
    },
    /// A final state that this sale does not lead to.
    Other {
        state: String,
    },
    /// Not known when time was up.
    Unsettled {
        last: String,
    },
}

impl Buyer {
    pub(super) async fn buy(self) -> Purchase {
        let began = Instant::now();
        let mut purchase = Purchase {
            outcome: Outcome::Unsettled { last: "no answer yet".to_owned() },
            accepted_after: None,
            settled_after: None,
            repeats: 0,
            money: Money::default(),
        };
        if let Some(order) = self.place(&mut purchase).await {
            self.follow(&order, &mut purchase).await;
        }
        if !matches!(purchase.outcome, Outcome::Unsettled { .. }) {
            purchase.settled_after = Some(began.elapsed());
        }
        purchase
    }

    /// Repeats with the same key until an answer is one. The order's id, if there is one.
    async fn place(&self, purchase: &mut Purchase) -> Option<String> {
        let key = Uuid::new_v4().to_string();
        let body = json!({"lines": [{"sku": self.sku, "quantity": 1}], "payment": {"method": self.method}});
        let mut pause = FIRST_LOOK;
        loop {
            let sent = Instant::now();
            let request = self
                .client
                .post(format!("{}/v1/orders", self.api))
                .bearer_auth(&self.token)
                .header("Idempotency-Key", &key)
                .json(&body);
            let last = match answer(request).await {
                Ok((StatusCode::ACCEPTED | StatusCode::CREATED | StatusCode::OK, order)) => {
                    purchase.accepted_after = Some(sent.elapsed());
                    return Some(text(&order, "id").to_owned());
                }
                Ok((status, _)) if is_passing(status) => status.to_string(),
                Ok((_, problem)) => {
                    purchase.outcome = Outcome::Refused { reason: text(&problem, "code").to_owned() };
                    return None;
                }
                Err(error) => error.to_string(),
            };
            purchase.repeats += 1;
            if !self.pause(&mut pause).await {
                purchase.outcome = Outcome::Unsettled { last };
                return None;
            }
        }
    }

    /// Reads the order until it is settled.
    async fn follow(&self, order: &str, purchase: &mut Purchase) {
        let url = format!("{}/v1/orders/{order}", self.api);
        let mut pause = FIRST_LOOK;
        loop {
            let last = match answer(self.client.get(&url).bearer_auth(&self.token)).await {
                Ok((StatusCode::OK, order)) => {
                    purchase.money = money(&order);
                    if let Some(outcome) = outcome(&order) {
                        purchase.outcome = outcome;
                        return;
                    }
                    format!("order {} is {}", text(&order, "id"), text(&order, "state"))
                }
                Ok((status, _)) => format!("order {order}: {status}"),
                Err(error) => format!("order {order}: {error}"),
            };
            if !self.pause(&mut pause).await {
                purchase.outcome = Outcome::Unsettled { last };
                return;
            }
        }
    }

    /// Waits a little longer each time; `false` once time is up.
    async fn pause(&self, pause: &mut Duration) -> bool {
        if Instant::now() + *pause > self.deadline {
            return false;
        }
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// `None` while the order is on its way.
fn outcome(order: &Value) -> Option<Outcome> {
    let reason = text(order, "reason").to_owned();
    match text(order, "state") {
        // With a short day (`--set day=...`) it may be delivered before anybody looks.
        "PAID" | "SHIPPED" | "DELIVERED" => Some(Outcome::Sold),
        "PAYMENT_FAILED" => Some(Outcome::PaymentFailed { reason }),
        "REJECTED" => Some(Outcome::Refused { reason }),
        state if order.get("final").and_then(Value::as_bool).unwrap_or_default() => {
            Some(Outcome::Other { state: state.to_owned() })
        }
        _ => None,
    }
}

fn money(order: &Value) -> Money {
    let amount = |value: Option<&Value>| {
        value.and_then(|money| money.get("amount")).and_then(Value::as_i64).unwrap_or_default()
    };
    let payment = order.get("payment");
    Money {
        due: amount(order.get("amount_due")),
        charged: amount(payment.and_then(|payment| payment.get("charged"))),
        refunded: amount(payment.and_then(|payment| payment.get("refunded"))),
    }
}
