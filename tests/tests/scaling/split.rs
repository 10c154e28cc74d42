//! The workers' partitions spread over two databases each.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use local_stack::Signal;
use sqlx::{AssertSqlSafe, PgPool};
use system_tests::{SOON, System, binary};

use crate::load::{Load, Told};
use crate::{alone, market};

const WORKERS: [(&str, &str); 3] =
    [("order-orchestrator", "orchestrator"), ("stock-worker", "stock"), ("payment-worker", "payment")];

/// A session times out after 6 s; then the group is joined anew.
const MOVED_WITHIN: Duration = Duration::from_secs(90);

/// Tables that are no partition's: who the databases are, and another company's book.
const OF_NO_PARTITION: [&str; 4] =
    ["messaging_database", "messaging_member", "_sqlx_migrations", "simulated_charges"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute; `make scaling`. The runtime's part of it is in every `cargo test -p messaging --test databases`"]
async fn partitions_over_two_databases_stay_apart_while_owners_are_frozen_and_killed_in_a_sale() {
    let _alone = alone().await;
    let mut options = vec!["--separate", "--databases", "2", "--partitions", "4"];
    let replicas = WORKERS.map(|(service, _)| format!("{service}=2"));
    options.extend(replicas.iter().flat_map(|replicas| ["--replicas", replicas]));
    let mut system = System::up("split", &options).await;
    let (skus, customers) = market(&system, 8).await;
    let told = Arc::<Told>::default();
    let load = Load::start(&system, &customers, &skus, &told, Duration::ZERO);

    // Frozen, half of the owners lose their partitions to the other half; thawed, they still believe that these are theirs.
    let mut pools = BTreeMap::new();
    for (_, service) in WORKERS {
        pools.insert(service, system.all_databases(service).await);
    }
    let before = owners(&pools).await;
    let frozen = WORKERS.map(|(service, _)| system.service_pid(&format!("{service}-1")).unwrap());
    frozen.iter().for_each(|pid| Signal::Stop.send(*pid).unwrap());
    for (_, service) in WORKERS {
        testkit::eventually(MOVED_WITHIN, &format!("{service}: partitions have other owners"), async || {
            let (now, before) = (&owners(&pools).await[service], &before[service]);
            let moved = now.iter().filter(|(partition, epoch)| before.get(partition) < Some(epoch)).count();
            if moved >= 2 { Ok(()) } else { Err(format!("{before:?}, now {now:?}")) }
        })
        .await;
    }
    frozen.iter().for_each(|pid| Signal::Continue.send(*pid).unwrap());
    for (service, _) in WORKERS {
        system.kill_service(&format!("{service}-2")).await;
    }
    let accepted = told.accepted.lock().await.len();
    testkit::eventually(SOON, "orders are accepted again", async || {
        let now = told.accepted.lock().await.len();
        if now > accepted + 50 { Ok(()) } else { Err(format!("{} since", now - accepted)) }
    })
    .await;
    load.end().await;
    system.ready_again().await;
    system.audited().await;
    system.no_order_is_missing(&told.accepted.lock().await).await;

    for (_, service) in WORKERS {
        each_partition_is_in_one_database(&system, service).await;
    }
    operators_see_both(&system, &told).await;
    system.rebuilt().await;
    another_list_is_refused(&system);
    system.down().await;
}

/// Epoch of each partition, by service.
async fn owners(pools: &BTreeMap<&'static str, Vec<PgPool>>) -> BTreeMap<&'static str, BTreeMap<i32, i64>> {
    let mut owners = BTreeMap::new();
    for (service, pools) in pools {
        let epochs: &mut BTreeMap<i32, i64> = owners.entry(*service).or_default();
        for database in pools {
            let rows = sqlx::query_as("SELECT partition_id, epoch FROM messaging_position");
            epochs.extend(rows.fetch_all(database).await.unwrap() as Vec<(i32, i64)>);
        }
    }
    owners
}

/// Every row's key leads with its partition, and a partition's rows are in its own database: 0 and 2 at home, 1 and 3 in the other.
async fn each_partition_is_in_one_database(system: &System, service: &str) {
    let databases = system.all_databases(service).await;
    assert_eq!(databases.len(), 2);
    for (database, own) in databases.iter().zip([[0, 2], [1, 3]]) {
        let mut seen = BTreeMap::new();
        for table in tables(database).await {
            let rows = format!("SELECT DISTINCT partition_id FROM {table} ORDER BY 1");
            let rows: Vec<i32> = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(database).await.unwrap();
            // The map is about all partitions, and at home only.
            if table != "messaging_map" {
                assert!(
                    rows.iter().all(|partition| own.contains(partition)),
                    "{service} {own:?}: {table} has {rows:?}"
                );
                seen.insert(table, rows);
            }
        }
        println!("{service} {own:?}: {seen:?}");
        assert_eq!(seen["messaging_position"], own, "{service}");
        let state =
            ["sagas", "holds", "done_charges"].into_iter().find(|table| seen.contains_key(*table)).unwrap();
        assert!(!seen[state].is_empty(), "{service} {own:?}: nothing is in {state}");
    }
}

/// Tables of partitions; panics at one whose key does not lead with the partition.
async fn tables(database: &PgPool) -> Vec<String> {
    let keys: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT t.tablename::text, a.attname::text FROM pg_catalog.pg_tables t
           LEFT JOIN pg_index i ON i.indrelid = t.tablename::regclass AND i.indisprimary
           LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
          WHERE t.schemaname = 'public' AND t.tablename <> ALL ($1)",
    )
    .bind(OF_NO_PARTITION.map(str::to_owned).to_vec())
    .fetch_all(database)
    .await
    .unwrap();
    for (table, leads) in &keys {
        assert_eq!(leads.as_deref(), Some("partition_id"), "{table}");
    }
    keys.into_iter().map(|(table, _)| table).collect()
}

/// What operators see is all of it: an order of each of the orchestrator's databases, and every saga.
async fn operators_see_both(system: &System, told: &Told) {
    let mut sagas = 0;
    for database in system.all_databases("orchestrator").await {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM sagas").fetch_one(&database).await.unwrap();
        let one: uuid::Uuid =
            sqlx::query_scalar("SELECT order_id FROM sagas LIMIT 1").fetch_one(&database).await.unwrap();
        assert!(system.sagactl(&["show", &one.to_string()]).expect(0).contains(&one.to_string()));
        sagas += count;
    }
    assert!(usize::try_from(sagas).unwrap() >= told.accepted.lock().await.len(), "{sagas} sagas");
    system.sagactl(&["audit"]).expect(0);
}

/// A replica that was given the list in another order, or only a part of it, ends and says why.
fn another_list_is_refused(system: &System) {
    let endpoints = system.endpoints();
    let url = |number: usize| endpoints["postgres"]["stock"][number].as_str().unwrap().to_owned();
    let said = |home: String, more: &[String]| {
        let output = Command::new(binary("stock-worker"))
            .env("STOCK_WORKER__BROKERS", system.kafka())
            .env("STOCK_WORKER__DATABASE_URL", home)
            .env("STOCK_WORKER__MORE_DATABASE_URLS", format!("{more:?}"))
            .env("STOCK_WORKER__ADMIN_LISTEN", "127.0.0.1:0")
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let swapped = said(url(1), &[url(0)]);
    assert!(swapped.contains("database 0 of the list is number 1 of the databases of home"), "{swapped}");
    let short = said(url(0), &[]);
    assert!(short.contains("the list has 1 databases, and home knows 2"), "{short}");
}
