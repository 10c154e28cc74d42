//! The book on a real database: it keeps its word whatever is asked together, twice, or by two processes.

use std::sync::Arc;

use domain_types::{Currency, CustomerId, Money, OrderId};
use payment_domain::{
    Action, CallNumber, ChargeAnswer, IdempotencyKey, ProviderCall, QueryAnswer, RefundAnswer, Terms,
    VoidAnswer,
};
use schemas::PaymentMethod;
use sqlx::PgPool;
use uuid::Uuid;

use super::SimulatedProvider;
use crate::provider::Provider;
use crate::settings::SimulatedSettings;

const AMOUNT: Money = Money::new(500, Currency::KRW);

async fn pool() -> PgPool {
    let pool = PgPool::connect(&testkit::fresh_database("book").await).await.unwrap();
    crate::MIGRATIONS.run(&pool).await.unwrap();
    pool
}

fn provider(pool: &PgPool) -> Arc<SimulatedProvider> {
    Arc::new(SimulatedProvider::new(SimulatedSettings::default(), pool.clone()))
}

fn call() -> ProviderCall {
    let order_id = OrderId(Uuid::new_v4());
    ProviderCall {
        order_id,
        customer_id: CustomerId(Uuid::new_v4()),
        number: CallNumber(1),
        charge_key: IdempotencyKey::charge(order_id),
        action: Action::Query,
        not_before: None,
        traceparent: None,
    }
}

fn terms(method: &str) -> Terms {
    Terms { amount: AMOUNT, method: PaymentMethod(method.into()) }
}

#[tokio::test]
async fn the_first_answer_is_lost_once_and_a_repeat_or_a_query_finds_the_outcome() {
    let provider = provider(&pool().await);
    let (first, second) = (call(), call());
    assert_eq!(provider.query(&first).await, QueryAnswer::NotFound);
    let unknown = terms("tok_unknown_approve");
    assert_eq!(provider.charge(&first, &unknown).await, ChargeAnswer::Unknown);
    assert!(matches!(provider.query(&first).await, QueryAnswer::Approved { .. }));
    assert_eq!(provider.charge(&second, &unknown).await, ChargeAnswer::Unknown);
    assert!(matches!(provider.charge(&second, &unknown).await, ChargeAnswer::Approved { .. }));
}

#[tokio::test]
async fn a_void_bars_a_key_never_seen_and_leaves_an_approved_charge_alone() {
    let provider = provider(&pool().await);
    let (unseen, charged) = (call(), call());
    assert_eq!(provider.void(&unseen).await, VoidAnswer::Voided);
    assert_eq!(provider.charge(&unseen, &terms("tok_approve")).await, ChargeAnswer::Voided);
    assert_eq!(provider.query(&unseen).await, QueryAnswer::Voided);
    provider.charge(&charged, &terms("tok_approve")).await;
    assert!(matches!(provider.void(&charged).await, VoidAnswer::Approved { .. }));
}

#[tokio::test]
async fn a_refund_is_given_once_and_never_more_than_was_taken() {
    let pool = pool().await;
    let provider = provider(&pool);
    let (charged, declined) = (call(), call());
    provider.charge(&charged, &terms("tok_approve")).await;
    provider.charge(&declined, &terms("tok_decline")).await;
    let refused = |answer: &RefundAnswer| matches!(answer, RefundAnswer::Refused { .. });
    assert!(refused(&provider.refund(&charged, Money::new(501, Currency::KRW)).await));
    assert!(refused(&provider.refund(&charged, Money::new(500, Currency::EUR)).await));
    assert!(refused(&provider.refund(&declined, AMOUNT).await));
    let (first, second) = tokio::join!(provider.refund(&charged, AMOUNT), provider.refund(&charged, AMOUNT));
    assert!(matches!(first, RefundAnswer::Refunded { .. }), "{first:?}");
    assert_eq!(first, second);
    let refunded: i64 = sqlx::query_scalar("SELECT sum(refunded)::bigint FROM simulated_charges")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(refunded, 500);
}

#[tokio::test]
async fn many_calls_for_the_same_keys_through_two_processes_agree_on_one_fate() {
    let pool = pool().await;
    let providers = [provider(&pool), provider(&pool)];
    let calls: Vec<ProviderCall> = (0..50).map(|_| call()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for round in 0..8 {
        for (index, call) in calls.iter().enumerate() {
            let (provider, call) = (Arc::clone(&providers[round % 2]), call.clone());
            tasks.spawn(async move {
                let voids = (round + index) % 3 == 0;
                let approved = if voids {
                    matches!(provider.void(&call).await, VoidAnswer::Approved { .. })
                } else {
                    matches!(
                        provider.charge(&call, &terms("tok_approve")).await,
                        ChargeAnswer::Approved { .. }
                    )
                };
                (index, approved)
            });
        }
    }
    let answers = tasks.join_all().await;
    for (index, call) in calls.iter().enumerate() {
        let stands = matches!(providers[0].query(call).await, QueryAnswer::Approved { .. });
        assert!(answers.iter().filter(|(of, _)| *of == index).all(|(_, approved)| *approved == stands));
    }
    let rows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM simulated_charges").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 50);
}
