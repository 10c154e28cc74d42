//! Row X3: what was, as the logs tell it: an order's charge, an order that a deadline ended.

use serde_json::{Value, json};
use system_tests::{SOON, System};

use crate::system;

/// Where the payment worker has the charge.
async fn stored(system: &System, order: &str) -> String {
    let sql = "SELECT state FROM charges WHERE order_id = $1::uuid";
    let found = sqlx::query_scalar(sql).bind(order).fetch_optional(&system.database("payment").await).await;
    found.unwrap().unwrap_or_else(|| "none".to_owned())
}

fn charge_at(system: &System, order: &str, when: &[&str]) -> Value {
    let said = system.sagactl(&[&["at", order, "--charge", "--json"], when].concat());
    assert!(said.code < 2, "{said:?}");
    serde_json::from_str(&said.out).unwrap()
}

#[tokio::test]
async fn x3_a_charge_is_seen_as_it_was_and_ends_as_it_is_stored() {
    let system = system().await;
    let customer = system.customer();
    let sku = system.admin().new_product(20, &json!({})).await;
    let cancel = async |order: &str| {
        customer.post(&format!("/v1/orders/{order}/cancellation"), &json!({})).await.expect(202);
        customer.until(order, &["CANCELLED"]).await;
    };
    // Paid, then cancelled: taken and given back.
    let refunded = customer.ordered(&sku, 1, Some("tok_approve")).await;
    customer.until(&refunded, &["PAID"]).await;
    cancel(&refunded).await;
    let declined = customer.ordered(&sku, 1, Some("tok_unknown_decline")).await;
    customer.until(&declined, &["PAYMENT_FAILED"]).await;
    // Cancelled while the provider takes its time.
    let closed = customer.ordered(&sku, 1, Some("tok_slow")).await;
    customer.until(&closed, &["CHARGING"]).await;
    cancel(&closed).await;
    let approved = customer.ordered(&sku, 1, Some("tok_unknown_approve")).await;
    customer.until(&approved, &["PAID", "SHIPPED", "DELIVERED"]).await;
    for order in [&refunded, &declined, &closed, &approved] {
        testkit::eventually(SOON, "the logs tell what is stored", async || {
            let (told, stored) = (charge_at(system, order, &["--time", "0s"]), stored(system, order).await);
            if told["charge"]["state"] == *stored { Ok(()) } else { Err(format!("{stored} {told}")) }
        })
        .await;
    }

    let shown = system.sagactl(&["show", &refunded, "--json"]).json(0);
    let entry = |rule: &str| {
        let timeline = shown["timeline"].as_array().unwrap();
        timeline.iter().find(|entry| entry["rule"] == rule).unwrap()["at"].as_str().unwrap().to_owned()
    };
    let now = charge_at(system, &refunded, &["--time", "0s"]);
    assert_eq!(now["after"]["rule"], "PaymentRefunded");
    let (amount, charge) = (&now["charge"]["charged"], &now["charge"]);
    assert_eq!((amount, amount), (&json!(129_000), &charge["refunded"]), "{now}");
    let paid = charge_at(system, &refunded, &["--time", &entry("PaymentApproved")]);
    assert_eq!(
        (&paid["charge"]["state"], &paid["charge"]["refunded"]),
        (&json!("approved"), &json!(0)),
        "{paid}"
    );
    assert_eq!(paid["charge"]["reference"], charge["reference"]);
    assert!(charge["refund_reference"].is_string(), "{now}");
    let times = ["diff", &refunded, "--charge", "--from", &entry("PaymentApproved"), "--to", "0s", "--json"];
    let changes = system.sagactl(&times).json(0)["changes"].clone();
    let change = json!({"field": "state", "from": "approved", "to": "refunded"});
    assert!(changes.as_array().unwrap().contains(&change), "{changes}");

    // By offsets of payment-commands: each command, before it was answered.
    let before = charge_at(system, &refunded, &["--time", &entry("PlaceOrder")]);
    assert_eq!(before, json!({"after": null, "charge": null}));
    let closing = charge_at(system, &closed, &["--offset", "1000000000"]);
    assert_eq!(
        (&closing["charge"]["state"], &closing["after"]["rule"]),
        (&json!("closing"), &json!("ClosePayment"))
    );
    let offset = closing["after"]["offset"].as_i64().unwrap() - 1;
    let requested = charge_at(system, &closed, &["--offset", &offset.to_string()]);
    assert_eq!(requested["charge"]["state"], "requested");
    let text = system.sagactl(&["at", &refunded, "--charge", "--time", "0s"]).expect(0).to_owned();
    assert!(text.contains("was refunded") && text.contains("129000 charged, 129000 given back"), "{text}");
    system.sagactl(&["at", &sku, "--charge", "--time", "0s"]).expect(2);
}

#[tokio::test]
async fn x3_an_order_that_a_deadline_ended_is_listed_and_shown_with_the_time_that_ended_it() {
    let system = system().await;
    let customer = system.customer();
    let sku = system.admin().new_product(20, &json!({})).await;
    let order = customer.ordered(&sku, 1, None).await;
    customer.until(&order, &["EXPIRED"]).await;
    let of = customer.id.to_string();
    let listed = system.sagactl(&["list", "--state", "EXPIRED", "--customer", &of, "--json"]).json(0);
    assert_eq!(listed["orders"][0]["order_id"], json!(order), "{listed}");
    let shown = system.sagactl(&["show", &order, "--json"]).json(0);
    let timeline = shown["timeline"].as_array().unwrap();
    let at = |rule: &str| {
        let entry = timeline.iter().find(|entry| entry["rule"] == rule);
        entry.unwrap_or_else(|| panic!("{rule} is missing: {shown}"))["at"].as_str().unwrap().to_owned()
    };
    let (before, after) = (at("StockReserved"), at("TimerFired"));
    let times = ["diff", &order, "--from", &before, "--to", &after, "--json"];
    let changes = system.sagactl(&times).json(0)["changes"].clone();
    let change = json!({"field": "state", "from": "AWAITING_PAYMENT", "to": "COMPENSATING"});
    assert!(changes.as_array().unwrap().contains(&change), "{changes}");
}
