//! Row X3: what operators see and do, with `sagactl` against the running system.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_cluster::Cluster;
use order_orchestrator::SagaReader;
use reqwest::StatusCode;
use saga::{Decision, Saga};
use sagactl::{DriftKind, Selection};
use schemas::{DeclineReason, OrderSagaMessage, PaymentDeclined, PlaceOrder};
use serde_json::{Value, json};
use system_tests::{Client, SOON, Said, System};

use crate::system;

async fn buyer_of(system: &System) -> (Client, String) {
    (system.customer(), system.admin().new_product(20, &json!({})).await)
}

/// The orders that `list` finds.
fn listed(system: &System, arguments: &[&str]) -> Value {
    let said = system.sagactl(&[&["list", "--json", "--limit", "100000"], arguments].concat());
    said.json(0)["orders"].clone()
}

fn ids(orders: &Value, holds: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let orders = orders.as_array().unwrap().iter().filter(|order| holds(order));
    orders.map(|order| order["order_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn x3_show_tells_what_happened_and_what_may_be_done() {
    let system = system().await;
    let (customer, sku) = buyer_of(system).await;
    let id = customer.ordered(&sku, 2, Some("tok_decline")).await;
    customer.until(&id, &["PAYMENT_FAILED"]).await;

    let shown = system.sagactl(&["show", &id, "--json"]).json(0);
    assert_eq!(
        (&shown["state"], &shown["reason"], &shown["final"]),
        (&json!("PAYMENT_FAILED"), &json!("declined"), &json!(true))
    );
    let timeline = shown["timeline"].as_array().unwrap();
    let rules: Vec<&str> = timeline.iter().map(|entry| entry["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["PlaceOrder", "StockReserved", "PaymentDeclined", "StockReleased"]);
    let declined = &timeline[2];
    assert!(
        declined["reply_ms"].is_u64() && declined["offset"].is_i64() && declined["trace_id"].is_string(),
        "{declined}"
    );
    assert!(declined["facts"].as_array().unwrap().contains(&json!("declined: declined")), "{declined}");
    assert_eq!(shown["waiting_for"], json!([]));
    let refusal = |command: &str| {
        let operations = shown["operations"].as_array().unwrap();
        operations.iter().find(|operation| operation["command"] == command).unwrap()["refused"].clone()
    };
    assert_eq!((refusal("pause"), refusal("compensate")), (json!("already_final"), json!("not_cancellable")));

    let text = system.sagactl(&["show", &id, "--utc"]).expect(0).to_owned();
    for part in [
        &format!("Order {id} PAYMENT_FAILED (declined), final"),
        "line 0 released, 2 units came back",
        "not compensate: not_cancellable",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let graph = system.sagactl(&["graph", &id]).expect(0).to_owned();
    assert!(
        graph.starts_with("stateDiagram-v2\n")
            && graph.contains("CHARGING --> COMPENSATING: PaymentDeclined"),
        "{graph}"
    );
    assert!(system.sagactl(&["graph"]).expect(0).contains("AWAITING_PAYMENT --> COMPENSATING"));
}

#[tokio::test]
async fn x3_list_filters_and_counts() {
    let system = system().await;
    let (customer, sku) = buyer_of(system).await;
    let waiting = customer.ordered(&sku, 1, None).await;
    customer.until(&waiting, &["AWAITING_PAYMENT"]).await;
    let failed = customer.ordered(&sku, 1, Some("tok_over_limit")).await;
    customer.until(&failed, &["PAYMENT_FAILED"]).await;
    let of = customer.id.to_string();
    let found =
        |arguments: &[&str]| ids(&listed(system, &[&["--customer", &of], arguments].concat()), |_| true);
    let (waiting, failed) = (BTreeSet::from([waiting]), BTreeSet::from([failed]));
    assert_eq!(found(&[]), waiting, "final ones are not shown");
    assert_eq!(found(&["--state", "payment_failed"]), failed);
    assert_eq!(found(&["--all", "--reason", "over_limit"]), failed);
    assert_eq!(found(&["--waiting-for", "customer"]), waiting);
    assert_eq!(found(&["--sku", &sku, "--all"]).len(), 2);
    assert!(found(&["--older", "1h"]).is_empty() && found(&["--paused"]).is_empty());
    let counted =
        system.sagactl(&["list", "--all", "--customer", &of, "--count-by", "state", "--json"]).json(0);
    assert_eq!(counted, json!({"total": 2, "groups": {"AWAITING_PAYMENT": 1, "PAYMENT_FAILED": 1}}));
}

#[tokio::test]
async fn x3_pausing_withholds_commands_and_each_refusal_is_the_saga_s_own() {
    let system = system().await;
    let (customer, sku) = buyer_of(system).await;
    let id = customer.ordered(&sku, 1, None).await;
    customer.until(&id, &["AWAITING_PAYMENT"]).await;
    let act = |arguments: &[&str]| system.sagactl(&[arguments, &["--reason", "a test", "--json"]].concat());
    let outcome = |said: &Said, code| said.json(code)["requests"][0].clone();

    let dry = outcome(&act(&["pause", &id, "--dry-run"]), 0);
    assert_eq!(dry["outcome"], "would_be_done");
    assert_eq!(act(&["pause", &id]).code, 2, "nobody can be asked here, so --yes is needed");
    assert!(!listed(system, &["--paused"]).to_string().contains(&id), "neither did anything");

    assert_eq!(outcome(&act(&["pause", &id, "--yes"]), 0)["outcome"], "done");
    assert_eq!(outcome(&act(&["pause", &id, "--yes"]), 1)["code"], "already_paused");
    customer.post(&format!("/v1/orders/{id}/payment"), &json!({"method": "tok_approve"})).await.expect(202);
    let shown = system.sagactl(&["show", &id, "--json"]).json(0);
    assert_eq!(shown["waiting_for"][0], json!({"kind": "resume", "withheld": 1}));
    let facts = shown["timeline"].to_string();
    assert!(facts.contains("pause done by kim (a test)"), "{facts}");
    assert_eq!(outcome(&act(&["retry", &id, "--step", "charge", "--yes"]), 1)["code"], "command_withheld");
    assert_eq!(outcome(&act(&["resume", &id, "--yes"]), 0)["outcome"], "done");
    customer.until(&id, &["PAID", "SHIPPED"]).await;
    assert_eq!(outcome(&act(&["skip", &id, "--step", "reserve", "--yes"]), 1)["code"], "not_skippable");
    assert_eq!(act(&["retry", &id, "--yes"]).code, 1, "nothing failed");
    system.sagactl(&["replay", &id]).expect(0);
}

#[tokio::test]
async fn x3_many_orders_are_compensated_at_once_after_a_dry_run() {
    let system = system().await;
    let (customer, sku) = buyer_of(system).await;
    let mut orders = Vec::new();
    for _order in 0..3 {
        orders.push(customer.ordered(&sku, 1, None).await);
    }
    for order in &orders {
        customer.until(order, &["AWAITING_PAYMENT"]).await;
    }
    let meant = format!("customer={}", customer.id);
    let act = |how: &str| {
        let arguments = [
            "compensate",
            "--where",
            &meant,
            "--where",
            "state=AWAITING_PAYMENT",
            "--reason",
            "wrong price",
            "--json",
            how,
        ];
        system.sagactl(&arguments)
    };
    assert_eq!(act("--dry-run").json(0)["outcomes"], json!({"would_be_done": 3}));
    assert_eq!(act("--yes").json(0)["outcomes"], json!({"done": 3}));
    for order in &orders {
        customer.until(order, &["CANCELLED"]).await;
    }
    customer.until_available(&sku, 20).await;
    assert_eq!(act("--yes").code, 1, "none is left");
}

#[tokio::test]
async fn x3_a_stuck_refund_is_found_explained_retried_and_another_settled_by_hand() {
    let system = system().await;
    let (customer, sku) = buyer_of(system).await;
    let book = system.database("payment").await;
    let says = async |outcome: &str, order: &str| {
        let changed = sqlx::query("UPDATE simulated_charges SET outcome = $1 WHERE order_id = $2::uuid")
            .bind(outcome)
            .bind(order)
            .execute(&book)
            .await
            .unwrap();
        assert_eq!(changed.rows_affected(), 1);
    };
    let mut orders = Vec::new();
    for _order in 0..2 {
        let order = &customer.ordered(&sku, 1, Some("tok_approve")).await;
        customer.until(order, &["PAID"]).await;
        // The provider forgets what it took, and refuses to give it back.
        says("declined", order).await;
        customer.post(&format!("/v1/orders/{order}/cancellation"), &json!({})).await.expect(202);
        customer
            .until_order(order, "waits for an operator", |order| order["reason"] == "needs_operator")
            .await;
        orders.push(order.clone());
    }
    let [first, second] = orders.try_into().unwrap();
    let stuck = ids(&listed(system, &["--needs-operator"]), |_| true);
    assert!(stuck.contains(&first) && stuck.contains(&second), "{stuck:?}");
    let shown = system.sagactl(&["show", &first, "--json"]).json(0);
    let expected = json!({"kind": "operator", "step": "refund", "attempt": 1, "code": "not_refundable"});
    assert_eq!(shown["waiting_for"][0], expected);

    says("approved", &first).await;
    system.sagactl(&["retry", &first, "--reason", "the provider remembers", "--yes"]).expect(0);
    let cancelled = customer.until(&first, &["CANCELLED"]).await;
    assert_eq!(cancelled["payment"]["state"], "refunded", "{cancelled}");

    says("approved", &second).await;
    let skip = |more: &[&str]| {
        system
            .sagactl(&[&["skip", &second, "--reason", "paid back by bank", "--yes", "--json"], more].concat())
    };
    assert_eq!(skip(&[]).json(1)["requests"][0]["code"], "settlement_required");
    skip(&["--settled-by", "BANK-4711"]).json(0);
    customer.until(&second, &["CANCELLED"]).await;
    let shown = system.sagactl(&["show", &second, "--json"]).json(0);
    assert_eq!(shown["payment"]["settled_by"], "BANK-4711");
}

#[tokio::test]
async fn x3_replay_finds_no_drift_and_a_row_that_somebody_changed() {
    let system = system().await;
    let (customer, sku) = buyer_of(system).await;
    let id = customer.ordered(&sku, 1, Some("tok_decline")).await;
    customer.until(&id, &["PAYMENT_FAILED"]).await;
    let all = system.sagactl(&["replay", "--all", "--json"]).json(0);
    assert!(
        all["orders"].as_u64().unwrap() >= 1 && all["effects"].as_u64() > all["orders"].as_u64(),
        "{all}"
    );
    assert_eq!(all["drifted"], 0);

    let database = system.database("orchestrator").await;
    let damage = async |from: &str, to: &str| {
        testkit::eventually(SOON, "the saga's row is there", async || {
            let sql = "UPDATE sagas SET state = replace(state, $1, $2) WHERE order_id = $3::uuid AND position($1 IN state) > 0";
            let changed = sqlx::query(sql).bind(from).bind(to).bind(&id).execute(&database).await.unwrap();
            if changed.rows_affected() == 1 { Ok(()) } else { Err("not yet") }
        })
        .await;
    };
    damage("PAYMENT_FAILED", "CANCELLED").await;
    let found = system.sagactl(&["replay", &id, "--json"]);
    damage("CANCELLED", "PAYMENT_FAILED").await;
    let found = found.json(1);
    assert_eq!(found["kinds"], json!({"state": 1}));
    assert_eq!(found["drifts"][0]["stored"], "s = \"CANCELLED\"");
    assert_eq!(found["drifts"][0]["replayed"], "s = \"PAYMENT_FAILED\"");
    system.sagactl(&["replay", &id]).expect(0);
}

/// The sagas as they are stored now.
async fn snapshot(system: &System) -> SagaReader {
    SagaReader::open(&system.database("orchestrator").await).await.unwrap()
}

/// A build whose rule about over-limit cards is another one.
fn changed_rule(saga: Option<&Saga>, input: &OrderSagaMessage, time: domain_types::Timestamp) -> Decision {
    match input {
        OrderSagaMessage::PaymentDeclined(declined) if declined.reason == DeclineReason::OverLimit => {
            let declined = PaymentDeclined { reason: DeclineReason::Declined, ..declined.clone() };
            saga::decide(saga, &declined.into(), time)
        }
        input => saga::decide(saga, input, time),
    }
}

#[tokio::test]
async fn x3_a_build_with_a_changed_rule_names_exactly_the_sagas_it_would_treat_differently() {
    let system = system().await;
    let (customer, sku) = buyer_of(system).await;
    for method in ["tok_over_limit", "tok_decline", "tok_approve", "tok_over_limit"] {
        let id = customer.ordered(&sku, 1, Some(method)).await;
        customer.until(&id, &["PAYMENT_FAILED", "PAID", "SHIPPED"]).await;
    }
    let over_limit = || {
        let orders = listed(system, &["--all"]);
        ids(&orders, |order| order["payment"]["stage"] == json!({"declined": "over_limit"}))
    };
    let before = over_limit();
    let selection =
        Selection { order: None, since: None, states: vec![], describe: 1, memory: 1 << 30, progress: false };
    let snapshots = vec![snapshot(system).await];
    let cluster = Cluster::from(&system.kafka());
    let replayed = sagactl::replay(&cluster, snapshots, Arc::new(changed_rule), &selection).await.unwrap();
    let after = over_limit();
    let affected: BTreeSet<String> = replayed.affected.iter().map(ToString::to_string).collect();
    assert!(
        before.len() >= 2 && before.is_subset(&affected) && affected.is_subset(&after),
        "{affected:?} {before:?}"
    );
    let drift = &replayed.drifts[0];
    assert_eq!(drift.at.as_ref().map(|at| at.rule.as_str()), Some("PaymentDeclined"));
    assert!(
        drift.kinds.contains(&DriftKind::History) && drift.kinds.contains(&DriftKind::Effects),
        "{drift:?}"
    );
    assert!(
        drift.stored.contains("declined: over_limit") && drift.replayed.contains("declined: declined"),
        "{drift:?}"
    );
}

/// A build whose second definition still answers each confirm.
fn changed_definition(
    saga: Option<&Saga>,
    input: &OrderSagaMessage,
    time: domain_types::Timestamp,
) -> Decision {
    match input {
        OrderSagaMessage::PlaceOrder(order) => {
            saga::decide(saga, &PlaceOrder { definition: 1, ..order.clone() }.into(), time)
        }
        input => saga::decide(saga, input, time),
    }
}

#[tokio::test]
async fn x3_an_order_ends_under_the_definition_it_began_with_whatever_is_newest() {
    let system = system().await;
    let (customer, sku) = buyer_of(system).await;
    let new = customer.ordered(&sku, 1, None).await;
    // As an api of the time before the second definition placed it.
    let old = uuid::Uuid::now_v7().to_string();
    let mut place: Value =
        serde_json::from_str(include_str!("../../../schemas/golden/PlaceOrder.v1.json")).unwrap();
    place["message_id"] = json!(uuid::Uuid::now_v7());
    place["order_id"] = json!(old);
    let data = &mut place["data"];
    data["customer_id"] = json!(customer.id);
    data["publish_before"] = json!("2100-01-01T00:00:00Z");
    data["lines"][0]["sku"] = json!(sku);
    data["lines"][0].as_object_mut().unwrap().remove("ticket");
    data.as_object_mut().unwrap().remove("payment_method");
    assert_eq!(data["definition"], Value::Null);
    system.produce("order-saga", Some(&old), None, &place.to_string());
    let known = async || match customer.get(&format!("/v1/orders/{old}")).await.status {
        StatusCode::OK => Ok(()),
        status => Err(format!("GET answers {status}")),
    };
    testkit::eventually(SOON, "the older order is known", known).await;

    for order in [&new, &old] {
        customer.until(order, &["AWAITING_PAYMENT"]).await;
        customer
            .post(&format!("/v1/orders/{order}/payment"), &json!({"method": "tok_approve"}))
            .await
            .expect(202);
    }
    let rules = |order: &str| -> Vec<String> {
        let shown = system.sagactl(&["show", order, "--json"]).json(0);
        let timeline = shown["timeline"].as_array().unwrap();
        timeline.iter().map(|entry| entry["rule"].as_str().unwrap().to_owned()).collect()
    };
    for order in [&new, &old] {
        customer.until(order, &["DELIVERED"]).await;
        testkit::eventually(SOON, "its saga is final", async || {
            let shown = system.sagactl(&["show", order, "--json"]).json(0);
            if shown["final"] == true { Ok(()) } else { Err(shown["waiting_for"].to_string()) }
        })
        .await;
    }
    let delivery = ["TimerFired", "TimerFired", "TimerFired"];
    let begun = ["PlaceOrder", "StockReserved", "PayOrder", "PaymentApproved"];
    assert_eq!(rules(&old), [&begun[..], &["StockConfirmed"], &delivery].concat());
    assert_eq!(rules(&new), [&begun[..], &delivery, &["StockConfirmed"]].concat());
    let of = customer.id.to_string();
    let begun_with = |version: &str| {
        ids(&listed(system, &["--all", "--customer", &of, "--definition", version]), |_| true)
    };
    assert_eq!(
        (begun_with("1"), begun_with("2")),
        (BTreeSet::from([old.clone()]), BTreeSet::from([new.clone()]))
    );

    // The deploy gate: a build with another second definition would treat those that began with it otherwise, and no other.
    for (order, drifts) in [(&old, false), (&new, true)] {
        let order = Some(order.parse().unwrap());
        let selection =
            Selection { order, since: None, states: vec![], describe: 1, memory: 1 << 30, progress: false };
        let cluster = Cluster::from(&system.kafka());
        let builds: [(sagactl::Rules, bool); 2] =
            [(Arc::new(changed_definition), drifts), (Arc::new(saga::decide), false)];
        for (rules, drifted) in builds {
            let snapshots = vec![snapshot(system).await];
            let replayed = sagactl::replay(&cluster, snapshots, rules, &selection).await.unwrap();
            assert_eq!(replayed.drifted > 0, drifted, "{:?}", replayed.drifts);
        }
    }
}

#[tokio::test]
async fn x3_an_order_is_seen_as_it_was() {
    let system = system().await;
    let (customer, sku) = buyer_of(system).await;
    let id = customer.ordered(&sku, 1, None).await;
    customer.until(&id, &["AWAITING_PAYMENT"]).await;
    customer.post(&format!("/v1/orders/{id}/cancellation"), &json!({})).await.expect(202);
    customer.until(&id, &["CANCELLED"]).await;
    let shown = system.sagactl(&["show", &id, "--json"]).json(0);
    let entry = |rule: &str| {
        let timeline = shown["timeline"].as_array().unwrap();
        timeline.iter().find(|entry| entry["rule"] == rule).unwrap().clone()
    };
    let (held, cancelled) = (entry("StockReserved"), entry("CancelOrder"));
    let at = |offset: i64| system.sagactl(&["at", &id, "--offset", &offset.to_string(), "--json"]).json(0);
    assert_eq!(at(held["offset"].as_i64().unwrap())["saga"]["state"], "AWAITING_PAYMENT");
    assert_eq!(at(cancelled["offset"].as_i64().unwrap())["saga"]["state"], "COMPENSATING");
    let then = system.sagactl(&["at", &id, "--time", held["at"].as_str().unwrap(), "--json"]).json(0);
    assert_eq!(then["after"]["rule"], "StockReserved");
    system.sagactl(&["at", &id, "--time", "2020-01-01T00:00:00Z"]).expect(1);
    let times = ["diff", &id, "--from", held["at"].as_str().unwrap(), "--to", "0s", "--json"];
    let changes = system.sagactl(&times).json(0)["changes"].clone();
    let change = json!({"field": "state", "from": "AWAITING_PAYMENT", "to": "CANCELLED"});
    assert!(changes.as_array().unwrap().contains(&change), "{changes}");

    // The same of its product.
    let stock =
        system.sagactl(&["at", &sku, "--time", held["at"].as_str().unwrap(), "--json"]).json(0)["stock"]
            .clone();
    assert_eq!(
        (&stock["available"], &stock["held"], &stock["version"]),
        (&json!(19), &json!(1), &json!(2)),
        "{stock}"
    );
    let times = ["diff", &sku, "--from", held["at"].as_str().unwrap(), "--to", "0s", "--json"];
    let changes = system.sagactl(&times).json(0)["changes"].clone();
    assert!(changes.as_array().unwrap().contains(&json!({"field": "held", "from": 1, "to": 0})), "{changes}");
    system.sagactl(&["at", "NO-SUCH-SKU", "--time", "0s"]).expect(1);
}

#[tokio::test]
async fn x3_wrong_missing_and_hostile_arguments_are_one_clear_sentence() {
    let system = system().await;
    let nobody = "0199f0a1-7c3e-7cc1-b7a6-1c0d5c0a9a11";
    for (arguments, code, says) in [
        (vec!["show", nobody], 1, "there is no saga of order"),
        (vec!["show", "\u{1b}[2J"], 2, "invalid value"),
        (vec!["show"], 2, "required"),
        (vec!["replay"], 2, "required"),
        (vec!["replay", nobody, "--all"], 2, "cannot be used"),
        (vec!["at", nobody], 2, "required"),
        (vec!["at", nobody, "--time", "yesterday"], 2, "RFC 3339"),
        (vec!["list", "--state", "GONE"], 2, "states are ACCEPTED"),
        (vec!["list", "--older", "5"], 2, "a duration is"),
        (vec!["pause", nobody], 2, "--reason"),
        (vec!["pause", nobody, "--reason", " "], 2, "must not be empty"),
        (vec!["pause", nobody, "--reason", "x", "--yes"], 1, "there is no saga of order"),
        (vec!["retry", nobody, "--reason", "x", "--step", "dance"], 2, "steps are reserve"),
        (vec!["list", "--kafka", "127.0.0.1:1", "--database", "orchestrator"], 2, "SERVICE=URL"),
        (vec!["list", "--database", "orchestrator=postgres://127.0.0.1:1/x"], 3, "does not let us in"),
        (vec!["list", "--endpoints", "/nowhere.json"], 3, "can't be read"),
        (vec!["replay", "--all", "--kafka", "127.0.0.1:1"], 3, "does not answer"),
    ] {
        let said = system.sagactl(&arguments);
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        assert!(said.error.contains(says), "{arguments:?}: {said:?}");
        assert!(!said.error.contains('\u{1b}'), "{arguments:?}: {said:?}");
    }
}
