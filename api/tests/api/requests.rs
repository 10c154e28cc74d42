//! Payment, cancellation and return: the saga's word, waited for.

use std::time::{Duration, Instant};

use domain_types::{CustomerId, OrderId};
use reqwest::{Method, Response, StatusCode};
use schemas::{OrderEvent, OrderSagaMessage, OrderState, RequestKind, RequestOutcome, RequestView, Topic};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    Log, Node, World, changed, customer_token, new_customer, now, order_at, placed, problem, read,
};

struct Scene {
    world: World,
    node: Node,
    log: Log,
    customer: CustomerId,
    token: String,
    order: OrderId,
}

impl Scene {
    async fn new() -> Self {
        let world = World::shared().await;
        let node = world.node().await;
        let log = world.follow(Topic::OrderSaga);
        let customer = new_customer();
        let (token, order) = (customer_token(customer), OrderId(Uuid::now_v7()));
        world.event(order, OrderEvent::from(placed(customer, now()))).await;
        order_at(&node, &token, order, 2).await;
        Self { world, node, log, customer, token, order }
    }

    fn ask(&self, node: &Node, what: &str, key: Option<&str>) -> impl Future<Output = Response> + use<> {
        let path = format!("/v1/orders/{}/{what}", self.order);
        let mut request = node.request(Method::POST, &path, Some(&self.token));
        if what == "payment" {
            request = request.json(&json!({"method": "tok_approve"}));
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        async move { request.send().await.unwrap() }
    }

    /// The saga's part: answers the `number`-th command for the order.
    async fn answer(
        &self,
        number: usize,
        version: i64,
        state: OrderState,
        code: Option<&str>,
    ) -> OrderSagaMessage {
        let command = self.log.commands(self.order, number).await.remove(number - 1);
        let (id, kind, customer) = match &command {
            OrderSagaMessage::PayOrder(pay) => (pay.request_id, RequestKind::Payment, pay.customer_id),
            OrderSagaMessage::CancelOrder(cancel) => {
                (cancel.request_id, RequestKind::Cancellation, cancel.customer_id)
            }
            OrderSagaMessage::ReturnOrder(back) => (back.request_id, RequestKind::Return, back.customer_id),
            other => panic!("{other:?}"),
        };
        assert_eq!(customer, self.customer);
        let outcome = if code.is_some() { RequestOutcome::Refused } else { RequestOutcome::Done };
        let mut event = changed(version, state, now());
        event.request = Some(RequestView { id, kind, outcome, code: code.map(str::to_owned), at: now() });
        self.world.event(self.order, event).await;
        command
    }
}

fn only_request(order: &Value) -> &Value {
    let requests = order["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 1, "{order}");
    &requests[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_saga_grants_is_202_with_its_order_and_what_it_refuses_is_409() {
    let scene = Scene::new().await;
    let payment = scene.ask(&scene.node, "payment", None);
    let (response, command) = tokio::join!(payment, scene.answer(1, 3, OrderState::Charging, None));
    assert!(matches!(command, OrderSagaMessage::PayOrder(pay) if pay.method.0 == "tok_approve"));
    assert_eq!(response.headers()["location"], format!("/v1/orders/{}", scene.order));
    let (status, order) = read(response).await;
    assert_eq!((status, order["version"].as_i64()), (StatusCode::ACCEPTED, Some(3)), "{order}");
    assert_eq!(order["state"], "CHARGING");
    assert_eq!(only_request(&order)["outcome"], "done");

    let refusals = [
        ("payment", 4, OrderState::Charging, "payment_in_progress"),
        ("cancellation", 5, OrderState::Shipped, "already_shipped"),
        ("return", 6, OrderState::Shipped, "not_delivered"),
    ];
    let mut quickest = Duration::MAX;
    for (number, (what, version, state, code)) in (2..).zip(refusals) {
        let began = Instant::now();
        let asked = scene.ask(&scene.node, what, None);
        let (response, _) = tokio::join!(asked, scene.answer(number, version, state, Some(code)));
        quickest = quickest.min(began.elapsed());
        problem(response, 409, code).await;
    }
    assert!(quickest < Duration::from_millis(800), "nobody was woken: {quickest:?}");
    let order = order_at(&scene.node, &scene.token, scene.order, 6).await;
    let outcomes: Vec<&Value> =
        order["requests"].as_array().unwrap().iter().map(|request| &request["outcome"]).collect();
    assert_eq!(outcomes, ["done", "refused", "refused", "refused"]);
    let pending = "SELECT count(*) FROM order_requests WHERE order_id = $1";
    assert_eq!(scene.world.count(pending, scene.order.uuid()).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_an_answer_shows_as_pending_on_every_node_and_its_answer_later() {
    let scene = Scene::new().await;
    let other = scene.world.node().await;
    let began = Instant::now();
    let (status, order) = read(scene.ask(&scene.node, "cancellation", Some("c")).await).await;
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(2_500)).contains(&took), "{took:?}");
    assert_eq!((status, order["version"].as_i64()), (StatusCode::ACCEPTED, Some(2)), "{order}");
    assert_eq!(only_request(&order)["outcome"], "pending");
    assert_eq!(only_request(&order)["kind"], "cancellation");
    let seen = order_at(&other, &scene.token, scene.order, 2).await;
    assert_eq!(only_request(&seen), only_request(&order));
    let list = read(other.get("/v1/orders", Some(&scene.token)).await).await.1;
    assert_eq!(only_request(&list["items"][0]), only_request(&order));

    scene.answer(1, 3, OrderState::Compensating, None).await;
    let seen = order_at(&other, &scene.token, scene.order, 3).await;
    assert_eq!(only_request(&seen)["outcome"], "done");
    assert_eq!(only_request(&seen)["id"], only_request(&order)["id"]);
    // The key names the request: its answer is there, nothing is sent again.
    let (status, repeat) = read(scene.ask(&other, "cancellation", Some("c")).await).await;
    assert_eq!((status, repeat["version"].as_i64()), (StatusCode::ACCEPTED, Some(3)));
    // Under the same key, another kind of request is another one.
    let give_back = scene.ask(&other, "return", Some("c"));
    let refusal = scene.answer(2, 4, OrderState::Compensating, Some("not_delivered"));
    problem(tokio::join!(give_back, refusal).0, 409, "not_delivered").await;
    problem(scene.ask(&scene.node, "return", Some("c")).await, 409, "not_delivered").await;
    assert_eq!(scene.log.of_key(&scene.order.to_string()).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_requests_are_checked() {
    let scene = Scene::new().await;
    let path = |what: &str| format!("/v1/orders/{}/{what}", scene.order);
    let payment = scene.node.post(&path("payment"), &scene.token, &json!({"method": 1})).await;
    problem(payment, 422, "invalid_request").await;
    let payment = scene.node.post(&path("payment"), &scene.token, &json!({"method": "x", "amount": 1})).await;
    problem(payment, 422, "invalid_request").await;
    let cancel = scene.node.post(&path("cancellation"), &scene.token, &json!({"why": 1})).await;
    problem(cancel, 422, "invalid_request").await;
    let pending = "SELECT count(*) FROM order_requests WHERE order_id = $1";
    assert_eq!(scene.world.count(pending, scene.order.uuid()).await, 0);
    assert!(scene.log.of_key(&scene.order.to_string()).is_empty());
}
