//! The catalogue and admins' changes.

use domain_types::{RequestId, Sku};
use reqwest::{Method, Response, StatusCode};
use schemas::{
    Envelope, StockChangeApplied, StockChangeCode, StockChangeRefused, StockCommand, StockEvent, StockLevel,
    Topic,
};
use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{Log, Node, SOON, World, admin_token, level, problem, read, won};

fn new_sku() -> Sku {
    Sku::new(testkit::unique("SKU", '-').to_uppercase()).unwrap()
}

fn definition(name: &str, initial_stock: Option<u32>) -> Value {
    json!({"name": name, "option": null, "category": "shoes", "kind": "normal",
           "price": {"amount": 5_000, "currency": "KRW"}, "initial_stock": initial_stock})
}

fn put(node: &Node, sku: &Sku, body: &Value) -> impl Future<Output = Response> + use<> {
    let request = node.request(Method::PUT, &format!("/v1/admin/products/{sku}"), Some(&admin_token()));
    let request = request.json(body);
    async move { request.send().await.unwrap() }
}

fn restock(
    node: &Node,
    admin: &str,
    sku: &Sku,
    key: &str,
    quantity: i64,
) -> impl Future<Output = Response> + use<> {
    let request = node.request(Method::POST, &format!("/v1/admin/products/{sku}/restock"), Some(admin));
    let request =
        request.header("Idempotency-Key", key).json(&json!({"quantity": quantity, "reason": "delivery"}));
    async move { request.send().await.unwrap() }
}

/// The stock worker's part.
struct Worker<'a> {
    world: &'a World,
    commands: Log,
}

impl Worker<'_> {
    /// The `number`-th command for the sku.
    async fn command(&self, sku: &Sku, number: usize) -> (RequestId, StockCommand) {
        let record = eventually(SOON, "the stock command is in the log", async || {
            self.commands.of_key(sku.as_str()).get(number - 1).cloned().ok_or("no record")
        })
        .await;
        let command = Envelope::<StockCommand>::decode(&record.value).unwrap().message;
        let id = match &command {
            StockCommand::DefineProduct(define) => define.request_id,
            StockCommand::ChangeStock(change) => change.request_id,
            other => panic!("{other:?}"),
        };
        assert_eq!(record.parking_key().0, id.to_string());
        (id, command)
    }

    async fn apply_definition(&self, sku: &Sku, number: usize, version: i64) {
        let (request_id, command) = self.command(sku, number).await;
        let StockCommand::DefineProduct(define) = command else { panic!("{command:?}") };
        let applied =
            StockChangeApplied { request_id, sku: sku.clone(), quantity: None, stock_version: version };
        self.answer(sku, StockEvent::StockChangeApplied(applied)).await;
        let new = StockLevel { product: define.product, ..level(sku, version, won(0)) };
        self.world.level(new).await;
    }

    async fn answer(&self, sku: &Sku, event: StockEvent) {
        self.world.publish(Topic::StockEvents, sku.as_str(), None, event).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_defined_product_can_be_read_on_every_node_once_the_answer_is_201_or_200() {
    let world = World::shared().await;
    let (node, other) = world.two_nodes().await;
    let worker = Worker { world: &world, commands: world.follow(Topic::StockCommands) };
    let (sku, name) = (new_sku(), testkit::unique("Shoe", ' '));
    let required = put(&node, &sku, &definition(&name, None)).await;
    let found = problem(required, 422, "invalid_request").await;
    assert_eq!(found["errors"][0]["pointer"], "/initial_stock");

    let body = definition(&name, Some(10));
    let (response, ()) = tokio::join!(put(&node, &sku, &body), worker.apply_definition(&sku, 1, 1));
    let (status, product) = read(response).await;
    assert_eq!(status, StatusCode::CREATED, "{product}");
    let (status, seen) = read(other.get(&format!("/v1/products/{sku}"), None).await).await;
    assert_eq!((status, &seen), (StatusCode::OK, &product));
    assert_eq!(seen["price"], json!({"amount": 5_000, "currency": "KRW"}));
    assert_eq!((seen["available"].as_i64(), seen["sold_out"].as_bool()), (Some(10), Some(false)));
    assert!(seen["option"].is_null() && seen["sale"].is_null() && seen["limit_per_customer"].is_null());

    // The name is taken, on every node; with an option it is another one.
    let thief = new_sku();
    problem(put(&other, &thief, &body).await, 409, "duplicate_name").await;
    assert!(worker.commands.of_key(thief.as_str()).is_empty());
    let mut red = body.clone();
    red["option"] = json!("red");
    assert_ne!(put(&other, &thief, &red).await.status(), StatusCode::CONFLICT);

    // Renamed: the old name is free, the new one taken.
    let renamed = definition(&format!("{name} II"), None);
    let (response, ()) = tokio::join!(put(&node, &sku, &renamed), worker.apply_definition(&sku, 2, 2));
    assert_eq!(response.status(), StatusCode::OK);
    problem(put(&other, &new_sku(), &renamed_with_stock(&renamed)).await, 409, "duplicate_name").await;
    let heir = new_sku();
    eventually(SOON, "the old name is free", async || {
        let status = put(&other, &heir, &body).await.status();
        if status == StatusCode::ACCEPTED { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_an_edit_that_is_answered_200_is_shown_by_every_node_though_they_had_cached_the_product() {
    let world = World::shared().await;
    // The one that has no Redis can't write through what it projects: half of the products, or all.
    let mut without_redis = world.settings();
    without_redis.redis_urls = vec![nowhere()];
    let (node, other) = world.two_nodes_with(world.settings(), without_redis).await;
    let worker = Worker { world: &world, commands: world.follow(Topic::StockCommands) };
    for product in 0..8 {
        let (sku, name) = (new_sku(), testkit::unique("Shoe", ' '));
        let path = format!("/v1/products/{sku}");
        for number in 1..=2_usize {
            let body = definition(&format!("{name} {number}"), Some(10));
            let version = i64::try_from(number).unwrap();
            let (response, ()) =
                tokio::join!(put(&node, &sku, &body), worker.apply_definition(&sku, number, version));
            let (status, answer) = read(response).await;
            assert_eq!(status, if number == 1 { StatusCode::CREATED } else { StatusCode::OK }, "{answer}");
            assert_eq!(answer["name"], body["name"]);
            for node in [&other, &node] {
                let shown = read(node.get(&path, None).await).await.1;
                assert_eq!(shown, answer, "product {product}, edit {number}");
            }
        }
    }
}

/// A Redis that is not there.
fn nowhere() -> String {
    format!("redis://127.0.0.1:{}/", local_stack::free_port().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_without_redis_a_new_product_is_201_and_an_edit_that_a_cache_may_hide_is_202() {
    let mut world = World::shared().await;
    world.redis_url = nowhere();
    let node = world.node().await;
    let worker = Worker { world: &world, commands: world.follow(Topic::StockCommands) };
    let (sku, name) = (new_sku(), testkit::unique("Shoe", ' '));
    for (number, status) in [(1, StatusCode::CREATED), (2, StatusCode::ACCEPTED)] {
        let body = definition(&format!("{name} {number}"), Some(10));
        let version = i64::try_from(number).unwrap();
        let (response, ()) =
            tokio::join!(put(&node, &sku, &body), worker.apply_definition(&sku, number, version));
        let location = response.headers()["location"].to_str().unwrap().to_owned();
        assert_eq!(response.status(), status);
        let shown = read(node.get(&format!("/v1/products/{sku}"), None).await).await.1;
        assert_eq!(shown["name"], body["name"]);
        let (found, answer) = read(node.get(&location, Some(&admin_token())).await).await;
        assert_eq!(found, StatusCode::OK);
        assert!(number == 1 || answer["state"] == "applied", "{answer}");
    }
}

fn renamed_with_stock(body: &Value) -> Value {
    let mut body = body.clone();
    body["initial_stock"] = json!(1);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_definition_without_an_answer_is_202_and_a_refused_one_frees_its_name() {
    let world = World::shared().await;
    let node = world.node().await;
    let worker = Worker { world: &world, commands: world.follow(Topic::StockCommands) };
    let (sku, name) = (new_sku(), testkit::unique("Hat", ' '));
    let response = put(&node, &sku, &definition(&name, Some(1))).await;
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let (status, change) = read(response).await;
    assert_eq!((status, change["state"].as_str()), (StatusCode::ACCEPTED, Some("pending")), "{change}");
    assert!(change["quantity"].is_null());
    let admin = admin_token();
    assert_eq!(read(node.get(&location, Some(&admin)).await).await, (StatusCode::OK, change));
    problem(put(&node, &new_sku(), &definition(&name, Some(1))).await, 409, "duplicate_name").await;

    let (request_id, _) = worker.command(&sku, 1).await;
    let refused = StockChangeRefused {
        request_id,
        sku: sku.clone(),
        quantity: None,
        code: StockChangeCode::InitialStockRequired,
    };
    worker.answer(&sku, StockEvent::StockChangeRefused(refused)).await;
    eventually(SOON, "the change is refused", async || {
        let change = read(node.get(&location, Some(&admin)).await).await.1;
        if change["state"] == "refused" && change["code"] == "initial_stock_required" {
            Ok(())
        } else {
            Err(change)
        }
    })
    .await;
    let other = new_sku();
    assert_eq!(put(&node, &other, &definition(&name, Some(1))).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_change_of_stock_is_sent_once_per_key_and_its_answer_can_be_read() {
    let world = World::shared().await;
    let node = world.node().await;
    let worker = Worker { world: &world, commands: world.follow(Topic::StockCommands) };
    let admin = admin_token();
    problem(restock(&node, &admin, &new_sku(), "k", 5).await, 404, "not_found").await;
    let sku = world.product(&node, won(1_000)).await;
    let response = restock(&node, &admin, &sku, "k", -5).await;
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let (status, change) = read(response).await;
    assert_eq!((status, change["quantity"].as_i64()), (StatusCode::ACCEPTED, Some(-5)), "{change}");
    assert_eq!(change["state"], "pending");
    problem(restock(&node, &admin, &sku, "k", -6).await, 422, "idempotency_key_reused").await;
    let (id, command) = worker.command(&sku, 1).await;
    assert!(matches!(command, StockCommand::ChangeStock(change) if change.quantity == -5));
    assert_eq!(change["id"], json!(id));

    let code = StockChangeCode::NotEnoughAvailable;
    let refused = StockChangeRefused { request_id: id, sku: sku.clone(), quantity: Some(-5), code };
    worker.answer(&sku, StockEvent::StockChangeRefused(refused)).await;
    eventually(SOON, "the change is refused", async || {
        let change = read(node.get(&location, Some(&admin)).await).await.1;
        if change["state"] == "refused" && change["code"] == "not_enough_available" {
            Ok(())
        } else {
            Err(change)
        }
    })
    .await;
    // Answered: the same key is not sent again.
    let repeat = restock(&node, &admin, &sku, "k", -5).await;
    assert_eq!(repeat.headers()["location"], location);
    assert_eq!(read(repeat).await.1["state"], "refused");
    assert_eq!(worker.commands.of_key(sku.as_str()).len(), 1);
    for bad in [
        json!({"quantity": 0, "reason": "r"}),
        json!({"quantity": 1}),
        json!({"quantity": 1.5, "reason": "r"}),
    ] {
        let path = format!("/v1/admin/products/{sku}/restock");
        let request =
            node.request(Method::POST, &path, Some(&admin)).header("Idempotency-Key", "z").json(&bad);
        problem(request.send().await.unwrap(), 422, "invalid_request").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_the_catalogue_is_listed_by_name_and_a_stale_level_changes_nothing() {
    let world = World::shared().await;
    let node = world.node().await;
    let mine = testkit::unique("Zz", ' ');
    let mut skus = Vec::new();
    for number in 0..5 {
        let sku = new_sku();
        let mut new = level(&sku, 7, won(100 + number));
        new.product.name = format!("{mine} {}", 9 - number);
        new.available = if number == 0 { 0 } else { 4 };
        world.level(new.clone()).await;
        world.caught_up(Topic::StockLevels).await;
        world.level(StockLevel { version: 6, available: 99, ..new }).await;
        skus.push(sku);
    }
    world.caught_up(Topic::StockLevels).await;
    let last = world.product(&node, won(1)).await;
    skus.reverse();
    let mut found = Vec::new();
    let mut path = "/v1/products?limit=2".to_owned();
    let mut names = Vec::new();
    loop {
        let (status, page) = read(node.get(&path, None).await).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        for item in page["items"].as_array().unwrap() {
            names.push(item["name"].as_str().unwrap().to_owned());
            if item["name"].as_str().unwrap().starts_with(&mine) {
                found.push(item.clone());
            }
        }
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/products?limit=2&after={next}");
    }
    assert!(names.is_sorted(), "{names:?}");
    let order: Vec<&str> = found.iter().map(|item| item["sku"].as_str().unwrap()).collect();
    assert_eq!(order, skus.iter().map(Sku::as_str).collect::<Vec<_>>());
    let sold_out: Vec<bool> = found.iter().map(|item| item["sold_out"].as_bool().unwrap()).collect();
    assert_eq!(sold_out, [false, false, false, false, true]);
    assert_eq!(found[0]["available"], 4);
    assert!(!order.contains(&last.as_str()));
}
