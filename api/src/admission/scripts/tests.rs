//! The door's decision at any instant, in a real Redis.

use domain_types::{CustomerId, OrderId, Sku, Timestamp};
use schemas::{DailySale, Sale, StockLevel, Ticket};
use uuid::Uuid;

use super::{
    Admitted, Ask, Asking, Held, SETTLED_FOR, Settled, Told, What, admit, feed, let_go, look, order_key,
    settle,
};
use crate::redis::Redis;

const GOLDEN: &str = include_str!("../../../../schemas/golden/StockLevel.v1.json");

fn at(text: &str) -> Timestamp {
    serde_json::from_value(text.into()).unwrap()
}

/// A hundred units that are sold from 14:00 to 15:00 in that place.
fn level(zone: &str) -> StockLevel {
    let golden: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
    let mut level: StockLevel = serde_json::from_value(golden["data"].clone()).unwrap();
    level.sku = Sku::new(testkit::unique("SKU", '-').to_uppercase()).unwrap();
    (level.available, level.granted) = (100, 100);
    level.product.limit_per_customer = None;
    let daily = DailySale { opens: "14:00".into(), closes: "15:00".into(), time_zone: zone.into() };
    level.product.sale = Some(Sale { opens_at: None, closes_at: None, daily: Some(daily) });
    level
}

/// What somebody new is told there and then.
async fn ask(redis: &Redis, sku: &Sku, now: Timestamp) -> Admitted {
    let asking = Asking {
        sku,
        units: 1,
        order_id: OrderId(Uuid::new_v4()),
        customer_id: CustomerId(Uuid::new_v4()),
        request: Uuid::new_v4(),
        fingerprint: "",
        deadline: now,
    };
    let mut told = Told::default();
    loop {
        let mut answers = admit(redis, &[Ask::new(&asking, now, &told)]).await.unwrap();
        match answers.remove(0).unwrap() {
            Admitted::NeedsWindow(window) => told.judge(&window, now),
            answer => return answer,
        }
    }
}

#[tokio::test]
async fn c2_a_daily_sale_opens_by_the_clock_on_the_wall_also_when_that_is_changed() {
    let redis = Redis::connect(&[testkit::infra().await.redis_url()], false, None).unwrap();
    // The days before and after each change of the clocks, and the hour in UTC in which the sale is on.
    for (zone, days) in [
        ("Asia/Seoul", [("2026-03-28", 5), ("2026-03-29", 5), ("2026-10-24", 5), ("2026-10-25", 5)]),
        ("Europe/Berlin", [("2026-03-28", 13), ("2026-03-29", 12), ("2026-10-24", 12), ("2026-10-25", 13)]),
        (
            "America/New_York",
            [("2026-03-07", 19), ("2026-03-08", 18), ("2026-10-31", 18), ("2026-11-01", 19)],
        ),
    ] {
        let level = level(zone);
        feed(&redis, &level, at("2026-03-01T00:00:00.000Z"), None).await.unwrap();
        for (day, hour) in days {
            let told = async |time: String| ask(&redis, &level.sku, at(&format!("{day}T{time}Z"))).await;
            let opens_at = Some(at(&format!("{day}T{hour:02}:00:00.000Z")));
            let before = told(format!("{:02}:59:59.999", hour - 1)).await;
            assert_eq!(before, Admitted::Closed { opens_at }, "{zone} {day}");
            for time in ["00:00.000", "59:59.999"] {
                let on = told(format!("{hour:02}:{time}")).await;
                assert!(matches!(on, Admitted::Ticket(_)), "{zone} {day} {time}: {on:?}");
            }
            let after = told(format!("{:02}:00:00.000", hour + 1)).await;
            assert!(matches!(after, Admitted::Closed { .. }), "{zone} {day}: {after:?}");
        }
    }
}

#[tokio::test]
async fn c4_events_of_several_skus_are_one_script_and_what_redis_does_not_know_is_named() {
    let redis = Redis::connect(&[testkit::infra().await.redis_url()], false, None).unwrap();
    let now = at("2026-03-01T00:00:00.000Z");
    let [first, never_fed, last] = [(); 3].map(|()| level("Asia/Seoul"));
    for level in [&first, &last] {
        feed(&redis, level, now, None).await.unwrap();
    }
    let held = |level: &StockLevel, units| Settled {
        order_id: OrderId(Uuid::new_v4()),
        customer_id: CustomerId(Uuid::new_v4()),
        units,
        ticket: None,
        what: What::Held { stock_version: level.version + 1 },
    };
    let events = [vec![held(&first, 2), held(&first, 3)], vec![held(&never_fed, 1)], vec![held(&last, 7)]];
    let skus = [&first.sku, &never_fed.sku, &last.sku];
    let together: Vec<_> = skus.into_iter().zip(events.iter().map(Vec::as_slice)).collect();
    for repeat in [false, true] {
        assert_eq!(settle(&redis, &together).await.unwrap(), [1], "repeated: {repeat}");
        let looks = look(&redis, &skus.map(Clone::clone), now, now, 1).await.unwrap();
        let issued = looks.into_iter().map(|look| look.map(|look| look.count.issued));
        assert_eq!(Vec::from_iter(issued), [Some(5), None, Some(7)], "repeated: {repeat}");
    }
}

#[tokio::test]
async fn c4_lines_that_are_asked_for_together_are_told_what_each_would_be_alone() {
    let redis = Redis::connect(&[testkit::infra().await.redis_url()], false, None).unwrap();
    let now = at("2026-03-01T05:30:00.000Z");
    let [mut few, never_fed, mut limited] = [(); 3].map(|()| level("Asia/Seoul"));
    (few.available, few.granted) = (3, 3);
    limited.product.limit_per_customer = Some(2);
    for level in [&few, &limited] {
        feed(&redis, level, now, None).await.unwrap();
    }
    let [orders, others] = [(); 2].map(|()| [(); 4].map(|()| OrderId(Uuid::new_v4())));
    let customer = CustomerId(Uuid::new_v4());
    let told = Told { customer: Some(vec![(others[3], 1)]), ..Told::default() };
    let ask = |level: &StockLevel, order_id, units, told| {
        let request = Uuid::new_v4();
        let asking = Asking {
            sku: &level.sku,
            units,
            order_id,
            customer_id: customer,
            request,
            fingerprint: "same",
            deadline: now,
        };
        Ask::new(&asking, now, told)
    };
    let nothing = Told::default();
    let asks = [
        ask(&few, orders[0], 2, &nothing),
        ask(&few, orders[1], 2, &nothing),
        ask(&limited, others[0], 1, &told),
        ask(&never_fed, orders[2], 1, &nothing),
        ask(&limited, others[1], 1, &nothing),
        ask(&few, orders[3], 1, &nothing),
        ask(&few, orders[0], 2, &nothing),
        ask(&few, orders[2], 1, &nothing),
    ];
    let answers: Vec<Admitted> =
        admit(&redis, &asks).await.unwrap().into_iter().map(|answer| answer.unwrap()).collect();
    let ticket = |number| Admitted::Ticket(Ticket { generation: now.as_millis(), number });
    let expected = [
        ticket(1),
        Admitted::SoldOut,
        ticket(1),
        Admitted::Unknown,
        Admitted::OverLimit,
        ticket(2),
        ticket(1),
        Admitted::SoldOut,
    ];
    assert_eq!(answers, expected);
    let looks = look(&redis, &[few.sku, limited.sku], now, now, 9).await.unwrap();
    let counts = looks.into_iter().flatten().map(|look| (look.count.issued, look.count.open));
    assert_eq!(Vec::from_iter(counts), [(3, 2), (1, 1)]);
}

#[tokio::test]
async fn c4_an_order_that_is_settled_is_soon_forgotten_and_nothing_is_counted_twice_then() {
    let redis = Redis::connect(&[testkit::infra().await.redis_url()], false, None).unwrap();
    let now = at("2026-03-01T05:30:00.000Z");
    let level = level("Asia/Seoul");
    feed(&redis, &level, now, None).await.unwrap();
    let sku = &level.sku;
    let customer_id = CustomerId(Uuid::new_v4());
    let [held, ended, let_go_of, open] = [(); 4].map(|()| OrderId(Uuid::new_v4()));
    let mut tickets = Vec::new();
    for order_id in [held, ended, let_go_of, open] {
        let request = Uuid::new_v4();
        let asking = Asking { sku, units: 1, order_id, customer_id, request, fingerprint: "", deadline: now };
        let answers = admit(&redis, &[Ask::new(&asking, now, &Told::default())]).await.unwrap();
        let Some(Ok(Admitted::Ticket(ticket))) = answers.into_iter().next() else { panic!("no ticket") };
        tickets.push(ticket);
    }
    let event = |order_id, what| Settled { order_id, customer_id, units: 1, ticket: None, what };
    let events = [event(held, What::Held { stock_version: level.version + 1 }), event(ended, What::Ended)];
    settle(&redis, &[(sku, &events)]).await.unwrap();
    let third = Held { sku: sku.clone(), order_id: let_go_of, customer_id, ticket: tickets[2] };
    assert!(let_go(&redis, &third, None).await.unwrap());

    let client = redis::Client::open(testkit::infra().await.redis_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (order, is_settled) in [(held, true), (ended, true), (let_go_of, true), (open, false)] {
        let left: i64 =
            redis::cmd("PTTL").arg(order_key(sku, order)).query_async(&mut connection).await.unwrap();
        assert_eq!(left <= super::millis(SETTLED_FOR), is_settled, "{order}: {left} ms");
    }

    let count = async || {
        let looks = look(&redis, std::slice::from_ref(sku), now, now, 9).await.unwrap();
        let count = looks.into_iter().next().flatten().unwrap().count;
        (count.issued, count.voided, count.open)
    };
    assert_eq!(count().await, (4, 2, 1));
    for order in [held, ended, let_go_of] {
        let gone: i64 =
            redis::cmd("DEL").arg(order_key(sku, order)).query_async(&mut connection).await.unwrap();
        assert_eq!(gone, 1);
    }
    // Given back by its owner, told once more, let go by a request that comes late.
    let events = [event(held, What::Back), event(held, What::Ended), event(ended, What::Ended)];
    settle(&redis, &[(sku, &events)]).await.unwrap();
    assert!(!let_go(&redis, &third, None).await.unwrap());
    assert_eq!(count().await, (4, 2, 1));
}
