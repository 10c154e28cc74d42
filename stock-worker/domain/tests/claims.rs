//! Claims about single commands.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod common;

use common::{
    LINE, World, change, confirm, confirmed, define, failure_code, id, product, refused, release, released,
    reserve, reserve_line, reserved, restock, restocked, sku, units,
};
use domain_types::{Attempt, LineNumber, OrderId, RequestId, Timestamp};
use schemas::{
    OrderSagaMessage, ProductData, ReserveRefusal, Sale, StockChangeApplied, StockChangeCode,
    StockChangeRefused, StockCommand, StockEvent,
};
use stock_domain::{Answer, Cause, Entry, Fact, Item, MAX_UNITS, Stock, StockError};

fn refusal(decision: stock_domain::Decision) -> StockChangeCode {
    match decision.answer {
        Answer::Admin(StockEvent::StockChangeRefused(refused)) => refused.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn units_go_from_available_to_held_to_sold_and_back() {
    let (mut world, shoe) = World::with_shoe(product(), 10);
    assert_eq!(world.ask(1, &reserve(&shoe, 3, 1)), reserved(2));
    assert_eq!(world.counts(&shoe), [10, 0, 7, 3, 0, 10]);
    assert_eq!(world.ask(1, &confirm(&shoe)), confirmed(3));
    assert_eq!(world.counts(&shoe), [10, 0, 7, 0, 3, 10]);
    assert_eq!(world.ask(1, &restock(&shoe)), restocked(3, 4));
    assert_eq!(world.counts(&shoe), [10, 0, 10, 0, 0, 13]);
    assert_eq!(world.item(&shoe).version, 4);
}

#[test]
fn a_restock_of_units_that_are_only_held_gives_them_back() {
    let (mut world, shoe) = World::with_shoe(product(), 10);
    world.ask(1, &reserve(&shoe, 3, 1));
    assert_eq!(world.ask(1, &restock(&shoe)), restocked(3, 3));
    assert_eq!(world.counts(&shoe), [10, 0, 10, 0, 0, 13]);
    assert_eq!(failure_code(&world.ask(1, &confirm(&shoe))), Some("restocked"));
    assert_eq!(world.ask(1, &release(&shoe)), released(0, 3));
    assert_eq!(world.item(&shoe).version, 3);
}

#[test]
fn a_release_before_the_reserve_leaves_a_tombstone_that_refuses_it() {
    let (mut world, shoe) = World::with_shoe(product(), 10);
    assert_eq!(world.ask(1, &release(&shoe)), released(0, 1));
    assert_eq!(world.ask(1, &reserve(&shoe, 3, 1)), refused(ReserveRefusal::Released, 1));
    assert_eq!(world.ask(1, &release(&shoe)), released(0, 1));
    assert_eq!(failure_code(&world.ask(1, &confirm(&shoe))), Some("never_held"));
    assert_eq!(world.counts(&shoe), [10, 0, 10, 0, 0, 10]);
    assert_eq!(world.item(&shoe).version, 1);
}

#[test]
fn a_refused_reserve_stays_refused_when_there_are_units_again() {
    let (mut world, shoe) = World::with_shoe(product(), 1);
    assert_eq!(world.ask(1, &reserve(&shoe, 2, 1)), refused(ReserveRefusal::SoldOut, 1));
    world.apply(0, &change(1, &shoe, 5)).unwrap();
    assert_eq!(world.ask(1, &reserve(&shoe, 2, 1)), refused(ReserveRefusal::SoldOut, 1));
    assert_eq!(world.ask(1, &release(&shoe)), released(0, 1));
    assert_eq!(world.ask(2, &reserve(&shoe, 2, 1)), reserved(3));
}

#[test]
fn a_reserve_of_an_unknown_sku_stays_refused_when_it_is_defined() {
    let (mut world, ghost) = (World::default(), sku("GHOST"));
    assert_eq!(world.ask(1, &reserve(&ghost, 1, 1)), refused(ReserveRefusal::UnknownSku, 0));
    world.apply(0, &define(1, &ghost, product(), Some(5))).unwrap();
    assert_eq!(world.ask(1, &reserve(&ghost, 1, 1)), refused(ReserveRefusal::UnknownSku, 0));
    assert_eq!(world.counts(&ghost), [5, 0, 5, 0, 0, 5]);
}

#[test]
fn what_cannot_be_done_fails_with_a_code_and_changes_nothing() {
    let (mut world, shoe) = World::with_shoe(product(), 10);
    assert_eq!(failure_code(&world.ask(1, &confirm(&shoe))), Some("unknown_hold"));
    assert_eq!(failure_code(&world.ask(1, &restock(&shoe))), Some("unknown_hold"));
    world.ask(1, &reserve(&shoe, 1, 1));
    world.ask(1, &confirm(&shoe));
    assert_eq!(failure_code(&world.ask(1, &release(&shoe))), Some("confirmed"));
    world.ask(2, &reserve(&shoe, 1, 1));
    world.ask(2, &release(&shoe));
    assert_eq!(failure_code(&world.ask(2, &confirm(&shoe))), Some("released"));
    assert_eq!(failure_code(&world.ask(2, &restock(&shoe))), Some("released"));
    assert_eq!(failure_code(&world.ask(1, &reserve(&shoe, 2, 1))), Some("hold_mismatch"));
    assert_eq!(failure_code(&world.ask(1, &confirm(&sku("OTHER")))), Some("hold_mismatch"));
    assert_eq!(world.counts(&shoe), [10, 0, 9, 0, 1, 11]);
    assert_eq!(world.item(&shoe).version, 5);
}

#[test]
fn a_reply_names_the_attempt_it_answers() {
    let (mut world, shoe) = World::with_shoe(product(), 10);
    world.ask(1, &reserve(&shoe, 1, 1));
    let StockCommand::ReserveStock(mut again) = reserve(&shoe, 1, 1) else { panic!() };
    again.attempt = Attempt(7);
    let OrderSagaMessage::StockReserved(reply) = world.ask(1, &again.into()) else { panic!() };
    assert_eq!((reply.attempt, reply.stock_version), (Attempt(7), 2));
}

#[test]
fn an_order_s_lines_are_holds_of_their_own() {
    let (mut world, shoe) = World::with_shoe(product(), 10);
    world.ask(1, &reserve_line(LINE, &shoe, 1, 1));
    world.ask(1, &reserve_line(LineNumber(1), &shoe, 2, 1));
    world.ask(1, &release(&shoe));
    assert_eq!(world.counts(&shoe), [10, 0, 8, 2, 0, 11]);
}

#[test]
fn held_and_sold_units_count_towards_the_limit_and_others_do_not() {
    let limited = ProductData { limit_per_customer: Some(2), ..product() };
    let (mut world, shoe) = World::with_shoe(limited, 100);
    world.load_customers(&shoe, 0..3);
    assert_eq!(world.ask(1, &reserve(&shoe, 2, 1)), reserved(2));
    let exceeded = |version| refused(ReserveRefusal::LimitExceeded, version);
    assert_eq!(world.ask(2, &reserve(&shoe, 1, 1)), exceeded(2));
    assert_eq!(world.ask(3, &reserve(&shoe, 2, 2)), reserved(3), "another customer");
    world.ask(1, &confirm(&shoe));
    assert_eq!(world.ask(4, &reserve(&shoe, 1, 1)), exceeded(4));
    world.ask(1, &restock(&shoe));
    world.ask(1, &restock(&shoe));
    assert_eq!(world.ask(5, &reserve(&shoe, 2, 1)), reserved(6));
    world.ask(5, &release(&shoe));
    assert_eq!(world.ask(6, &reserve(&shoe, 3, 1)), exceeded(7));
    assert_eq!(world.ask(7, &reserve(&shoe, 2, 1)), reserved(8));
}

#[test]
fn a_limit_is_never_judged_without_the_customer_s_units() {
    let limited = ProductData { limit_per_customer: Some(2), ..product() };
    let (mut world, shoe) = World::with_shoe(limited, 100);
    let error = world.apply(1, &reserve(&shoe, 1, 1)).unwrap_err();
    assert_eq!(error, StockError::CustomerUnitsNotLoaded(shoe));
    assert!(!error.is_bad_input());
}

#[test]
fn the_sale_window_is_judged_by_when_the_order_was_placed() {
    let (opens_at, closes_at) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
    let sale = Some(Sale { opens_at: Some(opens_at), closes_at: Some(closes_at), daily: None });
    let (mut world, shoe) = World::with_shoe(ProductData { sale, ..product() }, 10);
    for (order, ordered_at, open) in [(1, 999, false), (2, 1_000, true), (3, 1_999, true), (4, 2_000, false)]
    {
        let StockCommand::ReserveStock(mut command) = reserve(&shoe, 1, 1) else { panic!() };
        command.ordered_at = Timestamp::from_millis(ordered_at);
        let reply = world.ask(order, &command.into());
        let closed = matches!(&reply, OrderSagaMessage::StockRefused(refused)
            if refused.reason == ReserveRefusal::SaleClosed);
        assert_eq!(closed, !open, "ordered at {ordered_at}: {reply:?}");
    }
    assert_eq!(world.counts(&shoe), [10, 0, 8, 2, 0, 10]);
}

#[test]
fn an_admin_s_change_is_applied_once_and_answered_alike() {
    let (mut world, shoe) = World::with_shoe(product(), 10);
    let first = world.apply(0, &change(1, &shoe, 5)).unwrap();
    let applied = StockChangeApplied {
        request_id: RequestId(id(1)),
        sku: shoe.clone(),
        quantity: Some(5),
        stock_version: 2,
    };
    assert_eq!(first.answer, Answer::Admin(applied.into()));
    world.ask(1, &reserve(&shoe, 1, 1));
    let again = world.apply(0, &change(1, &shoe, 5)).unwrap();
    assert_eq!((again.answer, again.entry, again.change), (first.answer, None, None));
    assert_eq!(world.counts(&shoe), [10, 5, 14, 1, 0, 15]);
}

#[test]
fn a_withdrawal_takes_available_units_only() {
    let (mut world, shoe) = World::with_shoe(product(), 10);
    world.ask(1, &reserve(&shoe, 4, 1));
    let refused = world.apply(0, &change(1, &shoe, -7)).unwrap();
    let answer = StockChangeRefused {
        request_id: RequestId(id(1)),
        sku: shoe.clone(),
        quantity: Some(-7),
        code: StockChangeCode::NotEnoughAvailable,
    };
    assert_eq!(refused.answer, Answer::Admin(answer.into()));
    world.apply(0, &change(2, &shoe, -6)).unwrap();
    assert_eq!(world.counts(&shoe), [10, -6, 0, 4, 0, 4]);
    let still = world.apply(0, &change(1, &shoe, -7)).unwrap();
    assert_eq!(still.answer, refused.answer);
}

#[test]
fn more_units_than_can_be_counted_are_refused() {
    let (mut world, shoe) = World::with_shoe(product(), 10);
    for (request, quantity) in [(1, i64::MAX), (2, MAX_UNITS - 9)] {
        let decision = world.apply(0, &change(request, &shoe, quantity)).unwrap();
        assert_eq!(refusal(decision), StockChangeCode::TooManyUnits, "{quantity}");
    }
    assert_eq!(
        refusal(world.apply(0, &change(3, &shoe, i64::MIN)).unwrap()),
        StockChangeCode::NotEnoughAvailable
    );
    world.apply(0, &change(4, &shoe, MAX_UNITS - 10)).unwrap();
    assert_eq!(world.item(&shoe).available, MAX_UNITS);
}

#[test]
fn a_new_product_needs_initial_stock_and_an_edit_ignores_it() {
    let (mut world, shoe) = (World::default(), sku("SHOE"));
    let refused = world.apply(0, &define(1, &shoe, product(), None)).unwrap();
    assert_eq!(refusal(refused), StockChangeCode::InitialStockRequired);
    world.apply(0, &define(2, &shoe, product(), Some(7))).unwrap();
    world.ask(1, &reserve(&shoe, 1, 1));
    let renamed = ProductData { name: "Boot".into(), ..product() };
    world.apply(0, &define(3, &shoe, renamed, Some(99))).unwrap();
    let item = world.item(&shoe);
    assert_eq!((item.initial, item.available, item.version, item.product_version), (7, 6, 3, 3));
    assert_eq!(item.product.name, "Boot");
}

#[test]
fn product_data_that_cannot_be_used_is_refused() {
    let half_a_sale = Sale { opens_at: Some(Timestamp::from_millis(0)), closes_at: None, daily: None };
    let mut negative = product();
    negative.price.amount = -1;
    let bad = [
        ProductData { sale: Some(half_a_sale), ..product() },
        ProductData { limit_per_customer: Some(0), ..product() },
        ProductData { name: " ".into(), ..product() },
        negative,
    ];
    for (request, product) in (0..).zip(bad) {
        let mut world = World::default();
        let decision = world.apply(0, &define(request, &sku("SHOE"), product, Some(1))).unwrap();
        assert_eq!(refusal(decision), StockChangeCode::InvalidProduct);
        assert_eq!(world.stock.item_count(), 0);
    }
}

#[test]
fn an_order_s_command_without_an_order_is_bad_input() {
    let cause =
        Cause { message_id: domain_types::MessageId(id(1)), offset: 0, at: Timestamp::from_millis(0) };
    let error = Stock::default().decide(None, &confirm(&sku("SHOE")), cause).unwrap_err();
    assert_eq!(error, StockError::NoOrder);
    assert!(error.is_bad_input());
}

#[test]
fn an_entry_is_read_back_as_it_was_written() {
    let (mut world, shoe) = World::with_shoe(product(), 10);
    world.ask(1, &reserve(&shoe, 4, 1));
    world.ask(1, &confirm(&shoe));
    world.ask(1, &restock(&shoe));
    world.apply(0, &change(1, &shoe, -7)).unwrap();
    for (_, entry) in &world.ledger {
        let text = serde_json::to_string(entry).unwrap();
        assert_eq!(&serde_json::from_str::<Entry>(&text).unwrap(), entry, "{text}");
    }
    assert_eq!(world.ledger.len(), 5);
}

#[test]
fn an_entry_that_does_not_fit_the_item_is_an_error() {
    let (mut world, shoe) = World::with_shoe(product(), 10);
    world.ask(1, &reserve(&shoe, 4, 1));
    let (defined, held) = (world.ledger[0].1.clone(), world.ledger[1].1.clone());
    let sold = Fact::Confirmed { order_id: OrderId(id(1)), line: LINE, units: units(5) };
    let too_many = Entry { fact: sold, ..held.clone() };
    for (before, entry) in [
        (None, &held),
        (Some(world.item(&shoe)), &defined),
        (Some(world.item(&shoe)), &too_many),
        (Some(Item { sold: 1, ..world.item(&shoe) }), &held),
    ] {
        let version = before.as_ref().map_or(0, |item| item.version);
        let error = StockError::Unbalanced { sku: shoe.clone(), version };
        assert_eq!(Item::evolve(before, &shoe, entry), Err(error));
    }
}
