//! A consumer and a validator that nobody here wrote.

use std::process::Command;

use serde_json::{Value, json};

use crate::system;

const VALIDATE: &str = r#"
import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
validator = jsonschema.Draft202012Validator(schema)
count = 0
for line in sys.stdin:
    validator.validate(json.loads(line))
    count += 1
print(count)
"#;

#[tokio::test]
async fn records_read_by_kcat_meet_the_published_schemas() {
    let system = system().await;
    let (admin, customer) = (system.admin(), system.customer());
    let sku = admin.new_product(5, &json!({})).await;
    for method in ["tok_approve", "tok_decline"] {
        let id = customer.ordered(&sku, 1, Some(method)).await;
        customer.until(&id, &["PAID", "PAYMENT_FAILED"]).await;
    }
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/generated");
    for topic in
        ["order-events", "order-saga", "stock-commands", "payment-commands", "stock-events", "stock-levels"]
    {
        let read = Command::new("kcat")
            .args(["-b", &system.kafka(), "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%s\n"])
            .output()
            .unwrap();
        assert!(read.status.success(), "kcat: {}", String::from_utf8_lossy(&read.stderr));
        let lines = read.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        assert!(lines > 0, "{topic} is empty");
        let input = testkit_folder().join(format!("{topic}.jsonl"));
        std::fs::write(&input, &read.stdout).unwrap();
        let validated = Command::new("/usr/bin/python3")
            .args(["-c", VALIDATE, &format!("{schemas}/{topic}.schema.json")])
            .stdin(std::fs::File::open(&input).unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&validated.stderr);
        assert!(validated.status.success(), "{topic}: {said}");
        assert_eq!(String::from_utf8_lossy(&validated.stdout).trim(), lines.to_string(), "{topic}");
        let first: Value =
            serde_json::from_slice(read.stdout.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
        assert!(first["message_id"].is_string());
    }
}

fn testkit_folder() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("firstcome-topics-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
