//! What has to hold of a whole system.

use std::time::Duration;

use uuid::Uuid;

use crate::{Client, System};

/// Waits until no order is on its way.
pub async fn all_at_rest(customer: &Client, orders: &[String]) {
    const AT_REST: [&str; 8] = [
        "AWAITING_PAYMENT",
        "PAID",
        "SHIPPED",
        "DELIVERED",
        "CANCELLED",
        "REJECTED",
        "PAYMENT_FAILED",
        "EXPIRED",
    ];
    for order in orders {
        testkit::eventually(Duration::from_secs(60), &format!("{order} is at rest"), async || {
            let seen = customer.see(order).await;
            if AT_REST.iter().any(|state| seen["state"] == **state) { Ok(()) } else { Err(seen.to_string()) }
        })
        .await;
    }
}

impl System {
    /// What the auditor reads.
    pub async fn databases(&self) -> auditor::Databases {
        auditor::Databases {
            stock: self.all_databases("stock").await,
            payment: self.all_databases("payment").await,
            api: self.database("api").await,
        }
    }

    /// The audit, as soon as nothing is on its way; panics if it does not become clean, if somebody was served out of turn,
    /// or if an order went a way that it may not.
    pub async fn audited(&self) -> auditor::Report {
        let report = self.audited_databases().await;
        let turns = self.turns().await;
        assert_eq!(turns.violations, [], "first come, first served");
        let databases = self.databases().await;
        assert_eq!(self.trails(&databases).await.violations, [], "each order went a legal way");
        // What is stored is what the log leads to.
        self.sagactl(&["replay", "--all"]).expect(0);
        report
    }

    /// The same, of the databases alone: quick, also after many orders.
    pub async fn audited_databases(&self) -> auditor::Report {
        let databases = self.databases().await;
        testkit::eventually(Duration::from_secs(90), "the audit is clean", async || {
            let report = auditor::audit(&databases).await.map_err(|error| error.to_string())?;
            if report.is_clean() {
                Ok(report)
            } else {
                Err(format!("{:?} {:?}", report.violations, report.unsettled))
            }
        })
        .await
    }

    /// Makes the databases of orchestrator and api anew from Kafka alone; panics unless they are equal to the live ones.
    pub async fn rebuilt(&self) {
        for service in ["orchestrator", "api"] {
            let database = self.database(service).await;
            let name = format!("{service}_{}", Uuid::new_v4().simple());
            let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
            sqlx::raw_sql(sql).execute(&database).await.unwrap();
            let endpoints = self.endpoints();
            let live = endpoints["postgres"][service][0].as_str().unwrap();
            let (server, _) = live.rsplit_once('/').unwrap();
            let said = self.sagactl(&[
                "rebuild",
                "--service",
                service,
                "--into",
                &format!("{server}/{name}"),
                "--json",
            ]);
            let rebuilt = said.json(0);
            assert!(
                rebuilt["compared"].as_object().unwrap().values().any(|entries| entries.as_u64() > Some(0)),
                "{rebuilt}"
            );
        }
    }

    /// Which way each order went, by the logs.
    pub async fn trails(&self, databases: &auditor::Databases) -> auditor::trail::Trails {
        let (kafka, shown) = (self.kafka(), auditor::trail::shown(databases).await.unwrap());
        let checked = tokio::task::spawn_blocking(move || auditor::trail::check_logs(&kafka, &shown));
        checked.await.unwrap().unwrap()
    }

    /// Who was served when, by the logs.
    pub async fn turns(&self) -> auditor::first_come::FirstCome {
        let kafka = self.kafka();
        tokio::task::spawn_blocking(move || auditor::first_come::check_logs(&kafka)).await.unwrap().unwrap()
    }

    /// Each order that was accepted is in the read model.
    pub async fn no_order_is_missing(&self, accepted: &[Uuid]) {
        let found = sqlx::query_scalar("SELECT count(*) FROM orders WHERE order_id = ANY($1)").bind(accepted);
        let found: i64 = found.fetch_one(&self.database("api").await).await.unwrap();
        assert_eq!(usize::try_from(found).unwrap(), accepted.len());
        println!("{} orders were accepted, and all are there", accepted.len());
    }
}
