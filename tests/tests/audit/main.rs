//! The auditor itself: good data of every kind of order, then one kind of corruption after the other. Each is found, named by its
//! order or sku, and nothing else is.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use auditor::door::Redis;
use auditor::settled::{Patience, audit_settled};
use auditor::{Databases, Violation};
use domain_types::{Attempt, LineNumber, MessageId, OrderId, Timestamp};
use futures::future::join_all;
use schemas::{
    Envelope, OrderChanged, OrderEvent, OrderSagaMessage, OrderState, ReserveRefusal, StockRefused,
};
use serde_json::json;
use sqlx::AssertSqlSafe;
use system_tests::{Client, SOON, System};
use uuid::Uuid;

mod damages;

use damages::{DAMAGES, Damage, Of};

/// An order that nobody placed.
const GHOST: &str = "00000000-0000-4000-8000-000000000000";

struct Sale {
    system: System,
    databases: Databases,
    sku: String,
    paid: Uuid,
    cancelled: Uuid,
    declined: Uuid,
}

impl Sale {
    /// About thirty orders of every kind, all of them final.
    async fn over() -> Self {
        let short = ["--set", "day=1500ms", "--set", "pay_within=2s"];
        let system = System::up("audit", &short).await;
        let (admin, customer) = (system.admin(), system.customer());
        let sku = admin.new_product(25, &json!({})).await;
        let buy = async |count: usize, method: Option<&str>| {
            join_all((0..count).map(|_| customer.ordered(&sku, 1, method))).await
        };
        // The first one is served before all others.
        let first = buy(1, Some("tok_approve")).await;
        customer.until(&first[0], &["PAID"]).await;
        let cancelled = buy(2, Some("tok_approve")).await;
        join_all(cancelled.iter().map(|order| cancel(&customer, order))).await;
        let returned = buy(2, Some("tok_approve")).await;
        let declined = buy(5, Some("tok_decline")).await;
        let (_expired, _unknown) = (buy(4, None).await, buy(3, Some("tok_unknown_approve")).await);
        join_all((0..14).map(|_| customer.order(&sku, 1, Some("tok_approve")))).await;
        join_all(returned.iter().map(|order| give_back(&customer, order))).await;
        let id = |order: &String| order.parse().unwrap();
        let databases = system.databases().await;
        let (paid, cancelled, declined) = (id(&first[0]), id(&cancelled[0]), id(&declined[0]));
        let sale = Self { system, databases, sku, paid, cancelled, declined };
        testkit::eventually(SOON, "every order is final", async || {
            let open = "SELECT count(*) FROM orders WHERE NOT is_final";
            let open: i64 = sqlx::query_scalar(open).fetch_one(&sale.databases.api).await.unwrap();
            if open == 0 { Ok(()) } else { Err(format!("{open} are not")) }
        })
        .await;
        sale.system.audited().await;
        testkit::eventually(SOON, "redis agrees", async || match sale.door().await {
            found if found.is_empty() => Ok(()),
            found => Err(format!("{found:?}")),
        })
        .await;
        sale
    }

    fn redis_url(&self) -> String {
        self.system.endpoints()["redis"].as_str().unwrap().to_owned()
    }

    async fn door(&self) -> Vec<Violation> {
        auditor::door::check(&Redis::new(self.redis_url(), None), &self.databases).await.unwrap().violations
    }

    async fn trails(&self) -> Vec<Violation> {
        self.system.trails(&self.databases).await.violations
    }

    async fn audit(&self) -> Vec<Violation> {
        auditor::audit(&self.databases).await.unwrap().violations
    }

    async fn run(&self, of: Of, sql: &str) {
        let pool = match of {
            Of::Stock => &self.databases.stock[0],
            Of::Payment => &self.databases.payment[0],
            Of::Api => &self.databases.api,
        };
        let sql = sql
            .replace("SKU", &self.sku)
            .replace("PAID", &self.paid.to_string())
            .replace("CANCELLED", &self.cancelled.to_string())
            .replace("DECLINED", &self.declined.to_string())
            .replace("GHOST", GHOST);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap();
    }

    /// Does damage, looks, and puts everything back.
    async fn judge(&self, Damage(of, table, sql, rules): &Damage) {
        self.run(*of, &format!("CREATE TABLE kept AS TABLE {table}")).await;
        self.run(*of, sql).await;
        let mut found = self.audit().await;
        if *of == Of::Api {
            found.extend(self.trails().await);
        }
        self.run(*of, &format!("TRUNCATE {table}; INSERT INTO {table} TABLE kept; DROP TABLE kept")).await;
        if sql.contains("DROP CONSTRAINT") {
            let check = "CHECK (initial + restocked = available + held + sold)";
            self.run(*of, &format!("ALTER TABLE items ADD CONSTRAINT items_balanced {check}")).await;
        }
        self.expect(sql, &found, rules);
    }

    /// Exactly these rules are broken, and each violation names who or what it is about.
    #[track_caller]
    fn expect(&self, what: &str, found: &[Violation], rules: &[&str]) {
        let broken: BTreeSet<&str> = found.iter().map(|violation| violation.rule).collect();
        let rules: BTreeSet<&str> = rules.iter().copied().collect();
        assert_eq!(broken, rules, "{what}\n{found:#?}");
        let ghost = GHOST.parse().unwrap();
        for violation in found {
            let of_order = violation.order.filter(|order| {
                [self.paid, self.cancelled, self.declined, ghost].contains(order)
                    && violation.detail.contains(&order.to_string())
            });
            let of_sku =
                violation.sku.as_ref().filter(|sku| **sku == self.sku && violation.detail.contains(*sku));
            assert!(of_order.is_some() || of_sku.is_some(), "{what}: {violation:?}");
        }
    }

    async fn redis(&self, command: &[&str]) {
        let client = redis::Client::open(self.redis_url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut sent = redis::cmd(command[0]);
        command[1..].iter().for_each(|argument| {
            sent.arg(*argument);
        });
        sent.query_async::<redis::Value>(&mut connection).await.unwrap();
    }
}

async fn cancel(customer: &Client, order: &str) {
    customer.until(order, &["PAID"]).await;
    customer.post(&format!("/v1/orders/{order}/cancellation"), &json!({})).await.expect(202);
    customer.until(order, &["CANCELLED"]).await;
}

async fn give_back(customer: &Client, order: &str) {
    customer.until(order, &["DELIVERED"]).await;
    customer.post(&format!("/v1/orders/{order}/return"), &json!({})).await.expect(202);
    customer.until(order, &["RETURNED"]).await;
}

fn envelope<M: schemas::Message>(order: Uuid, message: impl Into<M>) -> String {
    let envelope: Envelope<M> = Envelope {
        message_id: MessageId(Uuid::new_v4()),
        order_id: Some(OrderId(order)),
        causation_id: None,
        occurred_at: Timestamp::from_millis(0),
        message: message.into(),
    };
    String::from_utf8(envelope.encode()).unwrap()
}

fn changed(order: Uuid, version: i64, state: OrderState) -> String {
    envelope::<OrderEvent>(
        order,
        OrderChanged {
            version,
            state,
            reason: None,
            is_final: false,
            payment: None,
            return_before: None,
            request: None,
            stock: Vec::new(),
            at: Timestamp::from_millis(0),
        },
    )
}

#[tokio::test]
async fn each_kind_of_corruption_is_found_and_named_and_nothing_else_is() {
    let sale = Sale::over().await;
    for damage in &DAMAGES {
        sale.judge(damage).await;
    }
    sale.run(Of::Api, "UPDATE products SET available = available + 1 WHERE sku = 'SKU'").await;
    sale.expect("a product shows one more", &sale.audit().await, &["product_is_item"]);
    sale.run(Of::Api, "UPDATE products SET available = available - 1 WHERE sku = 'SKU'").await;

    // The operator's tool names it in its first round.
    sale.run(Of::Stock, "UPDATE items SET sold = sold - 1, available = available + 1 WHERE sku = 'SKU'")
        .await;
    let watched = sale.system.sagactl(&["audit", "--watch", "--rounds", "1", "--json"]).json(1);
    let found = watched["violations"].as_array().unwrap();
    let rules: BTreeSet<&str> = found.iter().map(|found| found["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, BTreeSet::from(["item_is_its_ledger", "item_is_sum_of_holds", "product_is_item"]));
    assert!(found.iter().all(|found| found["sku"] == sale.sku), "{watched}");
    sale.run(Of::Stock, "UPDATE items SET sold = sold + 1, available = available - 1 WHERE sku = 'SKU'")
        .await;

    // Redis: what it has forgotten is not wrong.
    let (door, cache) = (format!("door:{{{}}}", sale.sku), format!("product:{{{}}}:1", sale.sku));
    sale.redis(&["HINCRBY", &door, "granted", "1"]).await;
    sale.expect("the door counts one more", &sale.door().await, &["door_agrees"]);
    sale.redis(&["DEL", &door]).await;
    sale.redis(&["HSET", &cache, "version", "1", "product", "{\"available\":1}"]).await;
    sale.expect("an old product is cached", &sale.door().await, &["cache_agrees"]);
    sale.redis(&["DEL", &cache]).await;

    // What waits for an end to everything that is on its way sees that this stays, long before its patience ends.
    sale.run(Of::Stock, "UPDATE holds SET quantity = quantity + 1").await;
    let patience = Patience { unchanged: Duration::from_secs(1), total: Duration::from_secs(600) };
    let kafka = sale.system.kafka();
    let whole = audit_settled(&sale.databases, &kafka, patience);
    let whole = tokio::time::timeout(SOON, whole).await.expect("it ends with what stays wrong").unwrap();
    assert_eq!(whole.claims.iter().map(|claim| claim.holds).collect::<Vec<_>>(), [false, true, true]);
    assert!(whole.notes.len() > 1, "one is always in the same order: {:?}", whole.notes);
    sale.run(Of::Stock, "UPDATE holds SET quantity = quantity - 1").await;

    // All of it was put back.
    sale.system.sagactl(&["audit"]).expect(0);

    // What is in a topic stays there. A reply that contradicts what was granted; the saga does not wait for it.
    let refused = StockRefused {
        line: LineNumber(0),
        attempt: Attempt::FIRST,
        reason: ReserveRefusal::SoldOut,
        stock_version: 1,
    };
    let paid = sale.paid.to_string();
    let reply = envelope::<OrderSagaMessage>(sale.paid, refused);
    sale.system.produce("order-saga", Some(&paid), None, &reply);
    let turns = sale.system.turns().await.violations;
    let rules: BTreeSet<&str> = turns.iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, BTreeSet::from(["first_come", "ticket"]), "{turns:#?}");
    for found in &turns {
        assert!(found.detail.contains(&paid) && found.record.is_some(), "{found:?}");
    }

    // An event that says an old version otherwise, one behind an order's end, one of an order that nobody placed.
    let newest = "SELECT version FROM orders WHERE order_id = $1";
    let newest = sqlx::query_scalar(newest).bind(sale.paid).fetch_one(&sale.databases.api).await;
    let newest: i64 = newest.unwrap();
    for (order, version, state) in [
        (paid.as_str(), 3, OrderState::Compensating),
        (&paid, newest + 1, OrderState::Charging),
        (GHOST, 7, OrderState::Paid),
    ] {
        let record = changed(order.parse().unwrap(), version, state);
        sale.system.produce("order-events", Some(order), None, &record);
    }
    let trails = sale.trails().await;
    for (order, rule, what) in [
        (paid.as_str(), "said_one_way", "version 3"),
        (&paid, "legal_path", "CHARGING comes behind DELIVERED"),
        (GHOST, "legal_path", "it begins as PAID"),
        (GHOST, "event_has_a_cause", "nobody placed it"),
    ] {
        let is_it = |found: &&Violation| found.rule == rule && found.detail.contains(order);
        let found = trails.iter().find(is_it).unwrap_or_else(|| panic!("{rule} of {order}: {trails:#?}"));
        let at = found.record.unwrap();
        assert!(at.topic == "order-events" && at.offset > 0 || order == GHOST, "{found:?}");
        assert!(found.detail.contains(what) && found.detail.contains(&at.to_string()), "{found:?}");
    }
}
