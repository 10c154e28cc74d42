//! The door on a Redis Cluster: what belongs together is on one node, whichever that is.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use domain_types::Sku;
use futures::future::join_all;
use local_stack::{GuardedChild, GuardedCommand, Signal, free_port};
use reqwest::StatusCode;
use serde_json::json;
use testkit::eventually;

use crate::admission::stock;
use crate::support::{Node, SOON, World, customer_token, new_customer, one_of, problem, read};

/// Three masters on ports of their own.
struct Cluster {
    nodes: Vec<GuardedChild>,
    addresses: Vec<String>,
}

impl Cluster {
    async fn start(dir: &Path) -> Self {
        let (mut nodes, mut addresses) = (Vec::new(), Vec::new());
        for number in 0..3 {
            let folder = dir.join(format!("redis-{number}"));
            std::fs::create_dir_all(&folder).unwrap();
            let (port, bus) = (free_port().unwrap(), free_port().unwrap());
            let node = GuardedCommand::new("redis-server", folder.join("log"))
                .args(["--port", &port.to_string(), "--cluster-port", &bus.to_string()])
                .args(["--bind", "127.0.0.1", "--cluster-enabled", "yes", "--save", "", "--daemonize", "no"])
                .arg("--dir")
                .arg(&folder)
                .spawn()
                .unwrap();
            nodes.push(node);
            addresses.push(format!("127.0.0.1:{port}"));
        }
        let cluster = Self { nodes, addresses };
        eventually(SOON, "the cluster is made", async || {
            let made = Command::new("redis-cli")
                .args(["--cluster", "create"])
                .args(&cluster.addresses)
                .arg("--cluster-yes")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&made.stdout).into_owned();
            if made.status.success() || said.contains("is not empty") { Ok(()) } else { Err(said) }
        })
        .await;
        eventually(SOON, "every node knows all slots", async || {
            let states = cluster.addresses.iter().map(|address| cluster.ask(address, &["cluster", "info"]));
            let states: Vec<String> = states.collect();
            let fine = states.iter().all(|state| state.contains("cluster_state:ok"));
            if fine { Ok(()) } else { Err(states.join("\n")) }
        })
        .await;
        cluster
    }

    fn ask(&self, address: &str, arguments: &[&str]) -> String {
        let (_, port) = address.split_once(':').unwrap();
        let output = Command::new("redis-cli").args(["-c", "-p", port]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn counts(&self, sku: &Sku) -> bool {
        self.ask(&self.addresses[0], &["exists", &format!("door:{{{sku}}}")]).trim() == "1"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_works_on_a_redis_cluster_and_without_one_of_its_nodes() {
    let world = World::shared().await;
    let mut cluster = Cluster::start(&world.dir).await;
    let mut settings = world.settings();
    settings.redis_urls = cluster.addresses.iter().map(|address| format!("redis://{address}/")).collect();
    settings.redis_cluster = true;
    let node = Node::start(settings).await;
    // Enough skus for each node of the cluster to have some.
    let offers: Vec<_> = (0..12).map(|_| stock(3, Some(2), None)).collect();
    let mut skus: Vec<Sku> = offers.iter().map(|offer| offer.sku.clone()).collect();
    skus.sort_unstable();
    for offer in offers {
        world.level(offer).await;
    }
    eventually(SOON, "all can be ordered", async || {
        for sku in &skus {
            let status = node.get(&format!("/v1/products/{sku}"), None).await.status();
            if status != StatusCode::OK || !cluster.counts(sku) {
                return Err(format!("{sku}: {status}"));
            }
        }
        Ok(())
    })
    .await;
    for sku in &skus {
        let body = one_of(sku);
        let buyers = (0..8)
            .map(async |_| read(node.post("/v1/orders", &customer_token(new_customer()), &body).await).await);
        let answers = join_all(buyers).await;
        let accepted = answers.iter().filter(|(status, _)| *status == StatusCode::ACCEPTED).count();
        assert_eq!(accepted, 3, "{sku}: {answers:?}");
    }
    let lines: Vec<_> = skus.iter().map(|sku| json!({"sku": sku, "quantity": 1})).collect();
    let all = json!({"lines": lines});
    problem(node.post("/v1/orders", &customer_token(new_customer()), &all).await, 409, "sold_out").await;

    // A node lost, its slots with it: nobody is turned away, and nobody waits.
    cluster.nodes[0].end(Signal::Kill, Duration::from_secs(5)).await.unwrap();
    let began = Instant::now();
    eventually(SOON, "orders for the lost slots are accepted", async || {
        let (status, answer) =
            read(node.post("/v1/orders", &customer_token(new_customer()), &all).await).await;
        if status == StatusCode::ACCEPTED { Ok(()) } else { Err(format!("{:?} {answer}", began.elapsed())) }
    })
    .await;
    node.wait_until_ready().await;
}
