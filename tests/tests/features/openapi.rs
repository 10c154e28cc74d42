//! A client that a generator made from the API's own description, against the running system.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::system;

const SHOP: &str = include_str!("generated_client.py");

fn tool(name: &str) -> PathBuf {
    let tool =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/test-tools/python/bin")).join(name);
    assert!(tool.is_file(), "{} is missing: run scripts/setup.sh --test", tool.display());
    tool
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// A package made from what the node serves.
fn generated(api: &str, folder: &Path) {
    let tools = tool("openapi-python-client");
    // The generator calls its own formatter, which is installed beside it.
    let path = format!("{}:{}", tools.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let said = run(Command::new(&tools)
        .args(["generate", "--meta", "none", "--fail-on-warning", "--overwrite"])
        .args(["--url", &format!("{api}/openapi.json")])
        .arg("--output-path")
        .arg(folder.join("firstcome_client"))
        .env("PATH", path));
    assert!(!said.to_lowercase().contains("warning"), "{said}");
}

#[tokio::test]
async fn x5_a_generated_client_places_follows_pays_and_cancels_orders() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(5, &json!({})).await;
    let folder = std::env::temp_dir().join(format!("firstcome-client-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    let api = &system.apis()[0];
    generated(api, &folder);
    std::fs::write(folder.join("shop.py"), SHOP).unwrap();
    let said = run(Command::new(tool("python"))
        .arg(folder.join("shop.py"))
        .args([api, &customer.token, &sku])
        .current_dir(&folder));
    let told: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let paid = customer.until(told["paid"].as_str().unwrap(), &["PAID", "SHIPPED", "DELIVERED"]).await;
    assert_eq!(paid["lines"][0]["sku"], json!(sku));
    customer.until(told["cancelled"].as_str().unwrap(), &["CANCELLED"]).await;
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn x5_property_based_requests_in_three_roles_meet_the_description() {
    let system = system().await;
    assert!(tool("schemathesis").is_file());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/fuzz.sh");
    // On the second node, with few examples; `make fuzz` has more.
    let said = run(Command::new(script)
        .arg(&system.apis()[1])
        .arg(system_tests::firstcome())
        .args(["8", "4711"])
        .env("PHASES", "examples,fuzzing")
        .env("FIRSTCOME_DATA_DIR", system.data()));
    let total = said.lines().last().unwrap_or_default();
    let requests: Option<u32> = total.split_whitespace().find_map(|word| word.parse().ok());
    assert!(requests > Some(200), "{said}");
}
