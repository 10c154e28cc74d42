//! Who may do what. Most of it is asked of every route that the document names, so that a route which is added later is
//! looked at as well.

use domain_types::{OrderId, Sku};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use schemas::{OrderEvent, Topic};
use serde_json::{Map, Value, json};
use testkit::eventually;
use uuid::Uuid;

use crate::support::{
    Node, SECRET, SOON, World, admin_token, claims, customer_token, id_of, new_customer, now, one_of,
    order_at, placed, problem, product_data, read, sign, won,
};

/// What needs no token.
const PUBLIC: [&str; 4] = ["get_product", "healthz", "list_products", "readyz"];
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];

fn document() -> Value {
    serde_json::from_str(&api::openapi_json().unwrap()).unwrap()
}

/// A method of a path, as the document names it.
struct Operation {
    id: String,
    method: Method,
    path: String,
    role: Option<String>,
}

fn operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, methods) in document()["paths"].as_object().unwrap() {
        for (method, said) in methods.as_object().unwrap() {
            operations.push(Operation {
                id: said["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                role: said["security"][0]["bearer"][0].as_str().map(str::to_owned),
            });
        }
    }
    operations
}

impl Operation {
    /// As somebody sends it who may: with an order, a product, and a body that is right.
    fn request(&self, node: &Node, order: OrderId, sku: &Sku, token: Option<&str>) -> RequestBuilder {
        let path = self.path.replace("{id}", &order.to_string()).replace("{sku}", sku.as_str());
        let request = node.request(self.method.clone(), &path, token).header("idempotency-key", &self.id);
        match self.id.as_str() {
            "place_order" => request.json(&one_of(sku)),
            "pay_order" => request.json(&json!({"method": "tok_approve"})),
            "define_product" => request.json(&product_data(sku, won(1))),
            "restock_product" => request.json(&json!({"quantity": 1, "reason": "delivery"})),
            _ => request,
        }
    }
}

/// The status first: an answer that should not be there may be a stream without an end.
async fn refused(request: RequestBuilder, status: u16, code: &str) -> Value {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), status, "{}", response.url());
    problem(response, status, code).await
}

#[tokio::test(flavor = "multi_thread")]
async fn u7_another_customers_order_is_not_there() {
    let world = World::shared().await;
    let node = world.node().await;
    let log = world.follow(Topic::OrderSaga);
    let (owner, stranger) = (new_customer(), customer_token(new_customer()));
    let mine = customer_token(owner);
    let sku = world.product(&node, won(1_000)).await;
    let in_intake = id_of(&read(node.order_with_key(&mine, "k", &one_of(&sku)).await).await.1);
    let in_projection = OrderId(Uuid::now_v7());
    world.event(in_projection, OrderEvent::from(placed(owner, now()))).await;
    order_at(&node, &mine, in_projection, 2).await;
    let routes: Vec<Operation> =
        operations().into_iter().filter(|route| route.path.starts_with("/v1/orders/{id}")).collect();
    assert!(routes.len() >= 5, "{}", routes.len());
    for (id, published) in [(in_intake, 1), (in_projection, 0)] {
        let path = format!("/v1/orders/{id}");
        let before = read(node.get(&path, Some(&mine)).await).await;
        for route in &routes {
            let of = |id: OrderId| route.request(&node, id, &sku, Some(&stranger));
            let told = refused(of(id), 404, "not_found").await;
            let nothing = refused(of(OrderId(Uuid::now_v7())), 404, "not_found").await;
            assert_eq!(told["detail"], nothing["detail"], "{}: it can be told that it is there", route.id);
        }
        assert_eq!(read(node.get(&path, Some(&mine)).await).await, before);
        let remembered = "SELECT count(*) FROM order_requests WHERE order_id = $1";
        assert_eq!(world.count(remembered, id.uuid()).await, 0);
        // The owner's command is the first one: the log has none of the stranger's before it.
        let cancelled = node.request(Method::POST, &format!("{path}/cancellation"), Some(&mine)).send();
        assert_eq!(cancelled.await.unwrap().status(), StatusCode::ACCEPTED);
        assert_eq!(log.commands(id, published + 1).await.len(), published + 1);
    }
    let (_, list) = read(node.get("/v1/orders", Some(&stranger)).await).await;
    assert_eq!(list["items"], json!([]));
    // A key is its customer's own: the stranger's names another order.
    let (status, other) = read(node.order_with_key(&stranger, "k", &one_of(&sku)).await).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_ne!(id_of(&other), in_intake);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_for_its_role_alone_and_keeps_nothing_of_others() {
    let world = World::shared().await;
    let node = world.node().await;
    let (orders, stock) = (world.follow(Topic::OrderSaga), world.follow(Topic::StockCommands));
    let me = new_customer();
    let token = |roles: &[&str]| sign(Some("dev"), SECRET, &claims(me, roles, 600));
    let sku = world.product(&node, won(1_000)).await;
    let order = OrderId(Uuid::now_v7());
    world.event(order, OrderEvent::from(placed(me, now()))).await;
    order_at(&node, &token(&["customer"]), order, 2).await;
    let (closed, open): (Vec<Operation>, Vec<Operation>) =
        operations().into_iter().partition(|route| route.role.is_some());
    let mut public: Vec<&str> = open.iter().map(|route| route.id.as_str()).collect();
    public.sort_unstable();
    assert_eq!(public, PUBLIC, "whatever needs no token is listed here");

    for route in &closed {
        refused(route.request(&node, order, &sku, None), 401, "unauthorized").await;
        let role = route.role.as_deref().unwrap();
        let other = if role == "admin" { "customer" } else { "admin" };
        for roles in [&[][..], &[other], &["operator", "*", "Admin", "CUSTOMER", "admin,customer", " admin"]]
        {
            let asked = route.request(&node, order, &sku, Some(&token(roles)));
            let told = refused(asked, 403, "forbidden").await;
            assert!(told["detail"].as_str().unwrap().contains(role), "{}: {told}", route.id);
        }
    }
    let kept = async || -> Vec<i64> {
        let kept = "SELECT count(*) FROM intake WHERE customer_id = $1
            UNION ALL SELECT count(*) FROM order_requests WHERE order_id = $2
            UNION ALL SELECT count(*) FROM product_names WHERE sku = $3 AND change_id IS NOT NULL
            UNION ALL SELECT count(*) FROM stock_changes WHERE sku = $3";
        let kept = sqlx::query_scalar(kept).bind(me.uuid()).bind(order.uuid()).bind(sku.as_str());
        kept.fetch_all(&world.pool).await.unwrap()
    };
    assert_eq!(kept().await, [0, 0, 0, 0]);
    // The same requests with the right role are let in, and what they send is all there is.
    for route in &closed {
        let right = token(&[route.role.as_deref().unwrap()]);
        let answer = route.request(&node, order, &sku, Some(&right)).send().await.unwrap();
        let status = answer.status();
        assert!(status.is_success() || route.id == "get_stock_change", "{}: {status}", route.id);
    }
    assert_eq!(orders.commands(order, 3).await.len(), 3, "payment, cancellation, return");
    eventually(SOON, "the admin's commands are in the log", async || {
        let sent = stock.of_key(sku.as_str()).len();
        if sent >= 2 { Ok(()) } else { Err(sent) }
    })
    .await;
    assert_eq!(stock.of_key(sku.as_str()).len(), 2, "definition, restock");
    assert_eq!(kept().await, [1, 3, 1, 2]);
}

/// The names of a schema's fields.
fn fields(document: &Value, schema: &str) -> Vec<String> {
    let described = &document["components"]["schemas"][schema];
    assert_eq!(described["type"], "object", "{schema}");
    described["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

/// What `shown` has and `taken` has not, and what is nobody's business.
fn not_to_be_said(document: &Value, shown: &str, taken: &str) -> Vec<String> {
    let taken = fields(document, taken);
    let mut names: Vec<String> = shown.split(' ').flat_map(|schema| fields(document, schema)).collect();
    names.extend(["customer_id", "sub", "roles", "price_minor", "ticket", "__proto__"].map(str::to_owned));
    names.retain(|name| !taken.contains(name));
    names.sort();
    names.dedup();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sets_a_field_that_is_not_theirs_to_set_and_answers_show_what_is_documented() {
    let world = World::shared().await;
    let node = world.node().await;
    let document = document();
    let customer = new_customer();
    let (token, admin) = (customer_token(customer), admin_token());
    let sku = world.product(&node, won(1_000)).await;
    let order = OrderId(Uuid::now_v7());
    world.event(order, OrderEvent::from(placed(customer, now()))).await;
    order_at(&node, &token, order, 2).await;

    let line = json!({"sku": sku, "quantity": 1});
    let with_payment = json!({"lines": [line], "payment": {"method": "tok_approve"}});
    let one = format!("/v1/orders/{order}");
    let product = format!("/v1/admin/products/{sku}");
    let definition = serde_json::to_value(product_data(&sku, won(1))).unwrap();
    let restock = json!({"quantity": 1, "reason": "delivery"});
    let (method, nothing) = (json!({"method": "tok_approve"}), json!({}));
    // Method, path, body, where in it, what is shown there, what is taken there.
    let cases = [
        (Method::POST, "/v1/orders".to_owned(), &with_payment, "", "Order", "NewOrder"),
        (Method::POST, "/v1/orders".to_owned(), &with_payment, "/lines/0", "Line Product", "NewLine"),
        (Method::POST, "/v1/orders".to_owned(), &with_payment, "/payment", "Payment", "NewPayment"),
        (Method::POST, format!("{one}/payment"), &method, "", "Payment Order", "NewPayment"),
        (Method::POST, format!("{one}/cancellation"), &nothing, "", "Payment Order", "Nothing"),
        (Method::POST, format!("{one}/return"), &nothing, "", "Payment Order", "Nothing"),
        (Method::PUT, product.clone(), &definition, "", "Product", "ProductDefinition"),
        (Method::POST, format!("{product}/restock"), &restock, "", "StockChange Product", "StockIncrement"),
    ];
    for (verb, path, good, pointer, shown, taken) in cases {
        let token = if path.starts_with("/v1/admin") { &admin } else { &token };
        for name in not_to_be_said(&document, shown, taken) {
            for value in [json!(1), Value::Null] {
                let mut body = good.clone();
                body.pointer_mut(pointer).unwrap()[&name] = value;
                let request = node.request(verb.clone(), &path, Some(token)).header("idempotency-key", "k");
                let told = refused(request.json(&body), 422, "invalid_request").await;
                let expected = json!({"pointer": format!("{pointer}/{name}"), "code": "unknown_field",
                                      "detail": "there is no such field"});
                assert_eq!(told["errors"], json!([expected]), "{path}: {body}");
            }
        }
    }
    assert_eq!(world.intake_rows(customer).await, 0);
    let remembered = "SELECT count(*) FROM order_requests WHERE order_id = $1";
    assert_eq!(world.count(remembered, order.uuid()).await, 0);

    let (_, placed) = read(node.post("/v1/orders", &token, &with_payment).await).await;
    assert_eq!(placed["customer_id"], json!(customer));
    assert_eq!((&placed["state"], &placed["total"]["amount"]), (&json!("ACCEPTED"), &json!(1_000)));
    let (_, product) = read(node.get(&format!("/v1/products/{sku}"), None).await).await;
    let names = |shown: &Value| -> Vec<String> {
        let shown: &Map<String, Value> = shown.as_object().unwrap();
        shown.keys().cloned().collect()
    };
    for (shown, schema) in [(&placed, "Order"), (&placed["lines"][0], "Line"), (&product, "Product")] {
        assert_eq!(names(shown), fields(&document, schema), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answers_but_the_documented_methods_of_the_documented_paths() {
    let world = World::shared().await;
    let node = world.node().await;
    let sku = world.product(&node, won(1_000)).await;
    let (order, operations) = (OrderId(Uuid::now_v7()), operations());
    let admin = sign(Some("dev"), SECRET, &claims(new_customer(), &["admin", "customer"], 600));
    let mut served: Vec<(String, Vec<&str>)> =
        vec![("/openapi.json".into(), vec!["GET"]), ("/docs/".into(), vec!["GET"])];
    for operation in &operations {
        let path = operation.path.replace("{id}", &order.to_string()).replace("{sku}", sku.as_str());
        match served.iter_mut().find(|(known, _)| *known == path) {
            Some((_, methods)) => methods.push(operation.method.as_str()),
            None => served.push((path, vec![operation.method.as_str()])),
        }
    }
    assert!(served.len() > 12, "{served:?}");
    for (path, methods) in &served {
        for method in METHODS.into_iter().filter(|method| !methods.contains(method)) {
            let request = node.request(method.parse().unwrap(), path, Some(&admin));
            refused(request.json(&json!({})), 405, "method_not_allowed").await;
        }
    }
    for path in [
        "/",
        "/v1",
        "/v2/orders",
        "/orders",
        "/V1/orders",
        "//v1/orders",
        "/v1/orders/",
        "/healthz/",
        "/metrics",
        "/docs/..%2fmetrics",
        "/docs/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v1/products/..%2fadmin",
        "/v1/admin",
        "/v1/admin/orders",
        "/v1/admin/products",
        "/v1/admin/sagas",
        "/v1/customers",
        "/v1/admin/stock-changes",
        "/debug/pprof",
        "/actuator/env",
        "/server-status",
        "/.env",
        "/.git/config",
        "/openapi.yaml",
        "/swagger.json",
        "/graphql",
    ] {
        refused(node.request(Method::GET, path, Some(&admin)), 404, "not_found").await;
    }
    // The other port has nothing of this one.
    let asked = node.client.get(format!("http://{}/v1/products", node.addresses.admin)).send().await.unwrap();
    assert_eq!(asked.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_customer_can_not_take_the_live_places_of_all_others() {
    let world = World::shared().await;
    let mut settings = world.settings();
    settings.live.max_per_customer = 2;
    let node = Node::start(settings).await;
    let (greedy, other) = (new_customer(), new_customer());
    let sku = world.product(&node, won(1_000)).await;
    let mut orders = Vec::new();
    for customer in [greedy, other] {
        let token = customer_token(customer);
        let order = node.place(&token, &one_of(&sku)).await;
        orders.push((token, format!("/v1/orders/{order}/events")));
    }
    let [(greedy, mine), (other, theirs)] = &orders[..] else { panic!("two") };
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(node.get(mine, Some(greedy)).await);
        assert_eq!(open.last().unwrap().status(), StatusCode::OK);
    }
    refused(node.request(Method::GET, mine, Some(greedy)), 429, "too_many_requests").await;
    assert_eq!(node.get(theirs, Some(other)).await.status(), StatusCode::OK);
    open.pop();
    eventually(SOON, "the place of a stream that was left is free", async || {
        let status = node.get(mine, Some(greedy)).await.status();
        if status == StatusCode::OK { Ok(()) } else { Err(status) }
    })
    .await;

    let wait = |token: &str, seconds: u8| {
        let request = node.request(Method::POST, "/v1/orders", Some(token)).json(&one_of(&sku));
        request.header("prefer", format!("wait={seconds}")).send()
    };
    let waiting = [tokio::spawn(wait(greedy, 30)), tokio::spawn(wait(greedy, 30))];
    eventually(SOON, "two requests wait", async || {
        let metrics = node.metrics().await;
        if metrics.contains("api_waits_open 2") { Ok(()) } else { Err(metrics) }
    })
    .await;
    let applied = |response: Response| response.headers().contains_key("preference-applied");
    assert!(!applied(wait(greedy, 30).await.unwrap()), "one more is not waited for");
    assert!(applied(wait(other, 1).await.unwrap()));
    assert!(waiting.iter().all(|request| !request.is_finished()));
}
