//! Products to order.

use std::time::Duration;

use domain_types::{Currency, MessageId, Money, RequestId, Sku, Timestamp};
use messaging::{Cluster, Output, Publisher, TailFrom};
use schemas::{DefineProduct, Envelope, ProductData, ProductKind, StockCommand, StockLevelMessage, Topic};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What one unit costs.
pub(crate) const PRICE: Money = Money::new(1_000, Currency::KRW);

/// Stock that does not run out.
pub(crate) const PLENTY: u32 = 1_000_000_000;

/// Defines `count` new products of `units` each and waits until their levels are published.
pub(crate) async fn define(
    cluster: &Cluster,
    publisher: &Publisher,
    count: usize,
    units: u32,
) -> anyhow::Result<Vec<Sku>> {
    let mut run = Uuid::new_v4().simple().to_string().to_uppercase();
    run.truncate(12);
    let skus: Vec<Sku> =
        (0..count).map(|n| Sku::new(format!("LOAD-{run}-{n}").as_str())).collect::<Result<_, _>>()?;
    let stop = CancellationToken::new();
    let (level, mut levels) = mpsc::unbounded_channel();
    let (cluster, token) = (cluster.clone(), stop.clone());
    let tail = tokio::spawn(async move {
        messaging::tail(
            &cluster,
            Topic::StockLevels.name(),
            TailFrom::End,
            Duration::ZERO,
            token,
            move |record| {
                if let Ok(envelope) = Envelope::<StockLevelMessage>::decode(&record.value) {
                    let StockLevelMessage::StockLevel(found) = envelope.message;
                    let _done = level.send(found.sku);
                }
            },
        )
        .await
    });
    let mut missing: std::collections::HashSet<&Sku> = skus.iter().collect();
    let given_up = tokio::time::Instant::now() + Duration::from_secs(60);
    while !missing.is_empty() {
        anyhow::ensure!(tokio::time::Instant::now() < given_up, "{} products have no level", missing.len());
        // The tail begins some time after it was asked to: what it did not hear yet is asked for again, as a new
        // request, because a repeated one changes nothing and so publishes no level.
        let commands: Vec<Output> = missing.iter().map(|sku| command(sku, units)).collect();
        publisher.publish(&commands).await?;
        let round = tokio::time::Instant::now() + Duration::from_secs(2);
        while let Ok(Some(found)) = tokio::time::timeout_at(round, levels.recv()).await {
            missing.remove(&found);
            if missing.is_empty() {
                break;
            }
        }
    }
    stop.cancel();
    tail.await??;
    Ok(skus)
}

fn command(sku: &Sku, units: u32) -> Output {
    let request_id = RequestId(Uuid::new_v4());
    let envelope = Envelope::<StockCommand> {
        message_id: MessageId(request_id.uuid()),
        order_id: None,
        causation_id: None,
        occurred_at: Timestamp::from_millis(0),
        message: DefineProduct {
            request_id,
            sku: sku.clone(),
            product: ProductData {
                name: sku.to_string(),
                option: None,
                category: "load".to_owned(),
                kind: ProductKind::Normal,
                price: PRICE,
                sale: None,
                limit_per_customer: None,
            },
            initial_stock: Some(units),
        }
        .into(),
    };
    Output::new(Topic::StockCommands, sku.as_str(), &envelope).parking_key(request_id)
}
