//! O16: customers hear about their payments by mail.

use std::time::Duration;

use serde_json::json;
use system_tests::System;
use testkit::eventually;

use crate::system;

/// `To`, `Message-ID` and `Subject` of each mail to this address.
fn mails(system: &System, address: &str) -> Vec<(String, String)> {
    let files = std::fs::read_dir(system.data().join("mail")).unwrap();
    let mut mails = Vec::new();
    for file in files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some()) {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let header = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        if header("To:") == address {
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            assert_eq!(header("Message-ID:"), format!("<{name}@firstcome.invalid>"));
            mails.push((header("Subject:"), text));
        }
    }
    mails.sort();
    mails
}

#[tokio::test]
async fn o16_each_payment_outcome_is_told_to_the_address_in_the_token_and_to_nobody_else() {
    let system = system().await;
    let sku = system.admin().new_product(5, &json!({})).await;
    let buyer = system.customer_with_mail("kim@shop.example");
    let silent = system.customer();
    let paid = buyer.ordered(&sku, 1, Some("tok_approve")).await;
    let declined = buyer.ordered(&sku, 1, Some("tok_decline")).await;
    let untold = silent.ordered(&sku, 1, Some("tok_approve")).await;
    buyer.until(&paid, &["PAID"]).await;
    buyer.until(&declined, &["PAYMENT_FAILED"]).await;
    silent.until(&untold, &["PAID"]).await;
    buyer.post(&format!("/v1/orders/{paid}/cancellation"), &json!({})).await.expect(202);
    buyer.until(&paid, &["CANCELLED"]).await;

    let wanted = [
        (&paid, format!("Order {paid} is paid")),
        (&paid, format!("Order {paid} is refunded")),
        (&declined, format!("Order {declined} was not paid")),
    ];
    let mut wanted = wanted.map(|(_, subject)| subject);
    wanted.sort();
    eventually(Duration::from_secs(20), "three mails", async || {
        let subjects: Vec<String> =
            mails(system, "kim@shop.example").into_iter().map(|(subject, _)| subject).collect();
        if subjects == wanted { Ok(()) } else { Err(format!("{subjects:?}")) }
    })
    .await;
    let api = system.database("api").await;
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM mail_addresses WHERE address = 'kim@shop.example'")
            .fetch_one(&api)
            .await
            .unwrap();
    assert_eq!(kept, 0, "the address is forgotten once the orders are over");
    let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM mails").fetch_one(&api).await.unwrap();
    assert_eq!(waiting, 0);
    for (_, text) in mails(system, "kim@shop.example") {
        assert!(!text.contains(&untold));
    }
}
