//! Mails, through a mail server that nobody here wrote.

use std::path::{Path, PathBuf};
use std::time::Duration;

use domain_types::OrderId;
use local_stack::{GuardedChild, GuardedCommand, Signal};
use reqwest::Method;
use schemas::{OrderState, PaymentMethod, PaymentState, PaymentView};
use serde_json::json;
use testkit::eventually;

use crate::support::{SECRET, SOON, World, changed, claims, new_customer, now, placed, sign, won};

/// A real mail server that keeps what it gets in a Maildir.
fn mail_server(port: u16, dir: &Path) -> GuardedChild {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-tools/python/bin/python");
    assert!(python.is_file(), "{} is missing: scripts/setup.sh --test installs it", python.display());
    GuardedCommand::new(python, dir.join("smtp.log"))
        .args(["-m", "aiosmtpd", "-n", "-l", &format!("127.0.0.1:{port}"), "-c", "aiosmtpd.handlers.Mailbox"])
        .arg(dir.join("maildir"))
        .spawn()
        .unwrap()
}

fn arrived(dir: &Path) -> Vec<String> {
    let files = std::fs::read_dir(dir.join("maildir/new")).into_iter().flatten();
    let mut mails: Vec<String> =
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    mails.sort();
    mails
}

#[tokio::test]
async fn o16_mails_wait_for_their_server_and_an_event_that_comes_again_is_told_once() {
    let world = World::shared().await;
    let port = local_stack::free_port().unwrap();
    let mut settings = world.settings();
    settings.mail = serde_json::from_value(json!({
        "from": "Shop <orders@shop.example>",
        "smtp_url": format!("smtp://127.0.0.1:{port}"),
    }))
    .unwrap();
    let node = crate::support::Node::start(settings).await;
    let sku = world.product(&node, won(1_000)).await;
    let customer = new_customer();
    let mut said = claims(customer, &["customer"], 600);
    said["email"] = json!("lee@shop.example");
    let token = sign(Some("dev"), SECRET, &said);
    let body = json!({"lines": [{"sku": sku, "quantity": 1}], "payment": {"method": "tok"}});
    let answer = node.request(Method::POST, "/v1/orders", Some(&token)).json(&body).send().await.unwrap();
    let order: serde_json::Value = answer.json().await.unwrap();
    let order = OrderId(order["id"].as_str().unwrap().parse().unwrap());

    world.event(order, placed(customer, now())).await;
    let mut paid = changed(3, OrderState::Paid, now());
    paid.payment = Some(PaymentView {
        state: PaymentState::Approved,
        method: PaymentMethod("tok".into()),
        charged: Some(won(1_000)),
        refunded: None,
        at: now(),
    });
    world.event(order, paid.clone()).await;
    eventually(SOON, "the mail was tried while its server is away", async || {
        let tries: Option<i32> = sqlx::query_scalar("SELECT tries FROM mails WHERE order_id = $1")
            .bind(order.uuid())
            .fetch_optional(&world.pool)
            .await
            .unwrap();
        if tries > Some(0) { Ok(()) } else { Err(format!("{tries:?} tries")) }
    })
    .await;

    let dir: PathBuf = world.dir.join("mails");
    std::fs::create_dir_all(&dir).unwrap();
    let mut server = mail_server(port, &dir);
    eventually(Duration::from_secs(30), "the mail arrives once its server is there", async || {
        let mails = arrived(&dir);
        if mails.len() == 1 { Ok(()) } else { Err(format!("{} mails", mails.len())) }
    })
    .await;
    let mail = arrived(&dir).remove(0);
    assert!(
        mail.contains("To: lee@shop.example") && mail.contains(&format!("Order {order} is paid")),
        "{mail}"
    );
    assert!(mail.contains("@shop.example>"), "{mail}");

    // The same event again, and then another payment outcome, which shows that the first was passed over.
    world.event(order, paid).await;
    let mut back = changed(4, OrderState::Cancelled, now());
    back.is_final = true;
    back.payment = Some(PaymentView {
        state: PaymentState::Refunded,
        method: PaymentMethod("tok".into()),
        charged: Some(won(1_000)),
        refunded: Some(won(1_000)),
        at: now(),
    });
    world.event(order, back).await;
    eventually(Duration::from_secs(30), "the second mail", async || {
        let mails = arrived(&dir);
        if mails.iter().any(|mail| mail.contains("is refunded")) { Ok(()) } else { Err(format!("{mails:?}")) }
    })
    .await;
    assert_eq!(arrived(&dir).len(), 2);
    eventually(SOON, "nothing is kept", async || {
        let kept: (i64, i64) =
            sqlx::query_as("SELECT (SELECT count(*) FROM mails), (SELECT count(*) FROM mail_addresses)")
                .fetch_one(&world.pool)
                .await
                .unwrap();
        if kept == (0, 0) { Ok(()) } else { Err(format!("{kept:?}")) }
    })
    .await;
    server.end(Signal::Terminate, Duration::from_secs(5)).await.unwrap();
}
