//! Products and stock.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Client, SOON, product_body};

use crate::system;

async fn restock(admin: &Client, sku: &str, key: &str, quantity: i64) -> Value {
    let request = admin
        .request(Method::POST, &format!("/v1/admin/products/{sku}/restock"))
        .header("idempotency-key", key)
        .json(&json!({"quantity": quantity, "reason": "test"}));
    let answer = admin.send(request).await;
    let location = answer.location().to_owned();
    answer.expect(202);
    testkit::eventually(SOON, "the change is answered", async || {
        let change = admin.get(&location).await.expect(200);
        if change["state"] == "pending" { Err(change.to_string()) } else { Ok(change) }
    })
    .await
}

#[tokio::test]
async fn c1_products_are_registered_edited_and_listed_and_names_are_unique() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = testkit::unique("C1", '-').to_uppercase();
    let path = format!("/v1/admin/products/{sku}");
    let body = product_body(&sku, 3, &json!({"option": "red"}));
    customer.put(&path, &body).await.expect_problem(403, "forbidden");
    admin.put(&path, &body).await.expect(201);
    for node in 0..2 {
        let seen = customer.at(node).product(&sku).await;
        assert_eq!((&seen["available"], &seen["sold_out"]), (&json!(3), &json!(false)), "node {node}");
        assert_eq!(seen["price"], json!({"amount": 129_000, "currency": "KRW"}));
    }
    let other = testkit::unique("C1", '-').to_uppercase();
    let other_path = format!("/v1/admin/products/{other}");
    admin.put(&other_path, &body).await.expect_problem(409, "duplicate_name");
    admin.put(&other_path, &product_body(&sku, 3, &json!({"option": "blue"}))).await.expect(201);
    let edited = product_body(&sku, 99, &json!({"option": "red", "category": "boots"}));
    admin.put(&path, &edited).await.expect(200);
    let seen = customer.product(&sku).await;
    assert_eq!(seen["category"], "boots");
    assert_eq!(seen["available"], 3, "initial_stock is ignored after creation");
    let mut listed = false;
    let mut page = customer.get("/v1/products?limit=100").await.expect(200);
    loop {
        listed |= page["items"].as_array().unwrap().iter().any(|item| item["sku"] == sku);
        let Some(next) = page["next"].as_str() else { break };
        page = customer.get(&format!("/v1/products?limit=100&after={next}")).await.expect(200);
    }
    assert!(listed);
    let mut without = product_body(&testkit::unique("n", '-'), 1, &json!({}));
    without.as_object_mut().unwrap().remove("initial_stock");
    let answer = admin
        .put(&format!("/v1/admin/products/{}", testkit::unique("C1", '-').to_uppercase()), &without)
        .await;
    assert_eq!(answer.status, 422, "{}", answer.body);
}

#[tokio::test]
async fn c2_c3_sale_windows_and_limits_are_told_at_the_door() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let closed =
        json!({"sale": {"opens_at": "2020-01-01T00:00:00.000Z", "closes_at": "2020-01-02T00:00:00.000Z"}});
    let closed = admin.new_product(5, &closed).await;
    for node in 0..2 {
        customer.at(node).order(&closed, 1, Some("tok_approve")).await.expect_problem(403, "sale_closed");
    }
    let limited = admin.new_product(5, &json!({"limit_per_customer": 2})).await;
    let first = customer.ordered(&limited, 2, Some("tok_approve")).await;
    customer.until(&first, &["PAID"]).await;
    customer.order(&limited, 1, Some("tok_approve")).await.expect_problem(409, "limit_exceeded");
    customer.post(&format!("/v1/orders/{first}/cancellation"), &json!({})).await.expect(202);
    customer.until(&first, &["CANCELLED"]).await;
    let third = testkit::eventually(SOON, "the door knows that the units came back", async || {
        let answer = customer.order(&limited, 2, Some("tok_approve")).await;
        if answer.status == 202 {
            Ok(answer.body["id"].as_str().unwrap().to_owned())
        } else {
            Err(answer.body)
        }
    })
    .await;
    customer.until(&third, &["PAID"]).await;
}

#[tokio::test]
async fn c4_an_order_keeps_name_price_and_option_of_its_time() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(5, &json!({"option": "270 mm"})).await;
    let id = customer.ordered(&sku, 1, Some("tok_approve")).await;
    let renamed = testkit::unique("renamed", '-');
    let changes = json!({"price": {"amount": 1, "currency": "KRW"}});
    admin.put(&format!("/v1/admin/products/{sku}"), &product_body(&renamed, 0, &changes)).await.expect(200);
    assert_eq!(customer.product(&sku).await["name"], renamed);
    let order = customer.until(&id, &["PAID", "SHIPPED"]).await;
    assert_eq!(order["lines"][0]["name"], sku);
    assert_eq!(order["lines"][0]["option"], "270 mm");
    assert_eq!(order["lines"][0]["unit_price"]["amount"], 129_000);
}

#[tokio::test]
async fn c6_changing_stock_is_applied_once_and_loses_no_concurrent_sale() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(50, &json!({})).await;
    let sales = join_all((0..40).map(|_| customer.ordered(&sku, 1, Some("tok_approve"))));
    let changes = async {
        for n in 0..5 {
            let change = restock(&admin, &sku, &format!("more-{n}"), 10).await;
            assert_eq!((&change["state"], &change["quantity"]), (&json!("applied"), &json!(10)));
        }
    };
    let (orders, ()) = tokio::join!(sales, changes);
    for id in &orders {
        customer.until(id, &["PAID", "SHIPPED", "DELIVERED"]).await;
    }
    customer.until_available(&sku, 60).await;
    // The same key is the same change.
    restock(&admin, &sku, "more-0", 10).await;
    let refused = restock(&admin, &sku, "too-many", -61).await;
    assert_eq!((&refused["state"], &refused["code"]), (&json!("refused"), &json!("not_enough_available")));
    let taken = restock(&admin, &sku, "all", -60).await;
    assert_eq!(taken["state"], "applied");
    customer.until_available(&sku, 0).await;
    let without_key = json!({"quantity": 1, "reason": "test"});
    let answer = admin.post(&format!("/v1/admin/products/{sku}/restock"), &without_key).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    let stock = system.database("stock").await;
    let entries: i64 = sqlx::query_scalar("SELECT version FROM items WHERE sku = $1")
        .bind(&sku)
        .fetch_one(&stock)
        .await
        .unwrap();
    assert_eq!(
        entries,
        1 + 40 * 2 + 5 + 1,
        "definition, reserve and confirm of each order, the changes applied"
    );
}

#[tokio::test]
async fn c1_c2_c5_lists_are_filtered_and_stock_is_live_on_every_node_and_304_until_a_sale() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let category = testkit::unique("c5", '-');
    let price = |amount: i64| json!({"amount": amount, "currency": "KRW"});
    let over = json!({"opens_at": "2020-01-01T00:00:00.000Z", "closes_at": "2020-01-02T00:00:00.000Z"});
    let cheap = admin.new_product(5, &json!({"category": category, "price": price(100)})).await;
    let dear = admin.new_product(5, &json!({"category": category, "price": price(900)})).await;
    let closed =
        admin.new_product(5, &json!({"category": category, "price": price(500), "sale": over})).await;
    for node in 0..2 {
        for (query, expected) in [
            ("sort=-price", vec![&dear, &closed, &cheap]),
            ("sort=price&min_price=101", vec![&closed, &dear]),
            ("sort=price&on_sale=true&kind=limited", vec![&cheap, &dear]),
            ("sort=price&on_sale=true&max_price=899", vec![&cheap]),
        ] {
            let path = format!("/v1/products?category={category}&{query}");
            let page = customer.at(node).get(&path).await.expect(200);
            let skus: Vec<&str> =
                page["items"].as_array().unwrap().iter().map(|item| item["sku"].as_str().unwrap()).collect();
            assert_eq!(skus, expected, "node {node}: {query}");
        }
    }
    let path = format!("/v1/products/{cheap}");
    let tag = customer.get(&path).await.headers["etag"].clone();
    let ask = async |node: usize| {
        let customer = customer.at(node);
        customer.send(customer.request(Method::GET, &path).header("if-none-match", &tag)).await
    };
    for node in 0..2 {
        assert_eq!(ask(node).await.status, 304, "node {node}");
    }
    let order = customer.ordered(&cheap, 2, Some("tok_approve")).await;
    customer.until(&order, &["PAID", "SHIPPED", "DELIVERED"]).await;
    for node in 0..2 {
        testkit::eventually(SOON, "the sale is shown", async || {
            let seen = ask(node).await;
            if seen.status == 200 && seen.body["available"] == 3 { Ok(()) } else { Err(seen.body) }
        })
        .await;
    }
}
