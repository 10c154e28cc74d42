//! A saga ends under the definition that it began with, whatever is newest by then.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod common;

use common::{
    DAY, FIRST, SECOND, Story, approved, cancel, confirmed, line, order, pause, price, reserved, restocked,
    resume, retry, stock_failed,
};
use saga::{Decision, Effect, IgnoreReason, LineStage, RefusalCode, Saga, decide};
use schemas::{
    OrderState, PlaceOrder, Reason, SAGA_DEFINITION, StepName, StockCommand, StockCommandKind, StockConfirmed,
};

fn paid(definition: u16) -> Story {
    let order = PlaceOrder { definition, ..order(2, Some("tok_approve")) };
    let story = Story::new().then(order.into()).then(reserved(0, FIRST)).then(reserved(1, FIRST));
    story.then(approved(FIRST, price(2)))
}

/// The confirms that the last input led to: line, attempt, whether only a failure is answered.
fn confirms(story: &Story) -> Vec<(u8, u32, bool)> {
    let confirm = |effect: &Effect| match effect {
        Effect::Stock { command: StockCommand::ConfirmStock(confirm), .. } => {
            Some((confirm.line.0, confirm.attempt.0, confirm.silent))
        }
        _ => None,
    };
    story.last_effects().iter().filter_map(confirm).collect()
}

fn sold(number: u8) -> schemas::OrderSagaMessage {
    StockConfirmed { line: line(number), attempt: SECOND, stock_version: 9 }.into()
}

#[test]
fn one_that_began_under_the_first_waits_for_each_confirm() {
    let story = paid(1);
    assert_eq!(confirms(&story), [(0, 1, false), (1, 1, false)]);
    assert_eq!(story.saga().awaited().len(), 2);
    let story = story.then(confirmed(0)).then(confirmed(1)).timer().timer().timer();
    assert_eq!((confirms(&story), story.saga().is_final()), (vec![], true));
}

#[test]
fn one_that_began_under_the_second_asks_when_its_return_window_is_closed() {
    let story = paid(2);
    assert_eq!(confirms(&story), [(0, 1, true), (1, 1, true)]);
    assert_eq!(story.saga().awaited(), []);
    story.timer().then(retry(1, StepName::Confirm, Some(0))).assert_refused(RefusalCode::NothingToRetry);
    let story = paid(2).timer().timer();
    assert_eq!((story.state(), confirms(&story)), (OrderState::Delivered, vec![]));
    let story = story.timer();
    assert_eq!(confirms(&story), [(0, 2, false), (1, 2, false)]);
    assert_eq!((story.saga().awaited().len(), story.saga().is_final()), (2, false));
    let story = story.then(sold(0));
    assert!(!story.saga().is_final());
    let story = story.then(sold(1));
    assert_eq!((story.change().is_final, story.state()), (true, OrderState::Delivered));
}

#[test]
fn a_worker_that_answers_all_the_same_is_heard() {
    let story = paid(2).then(confirmed(0)).then(confirmed(1));
    assert!(story.saga().lines.iter().all(|line| line.stage == LineStage::Sold));
    let story = story.timer().timer().timer();
    assert_eq!((confirms(&story), story.saga().is_final()), (vec![], true));
}

#[test]
fn a_confirm_that_fails_is_told_at_once_and_its_retry_is_answered() {
    let story = paid(2).then(stock_failed(0, StockCommandKind::Confirm, FIRST));
    assert_eq!(story.change().reason, Some(Reason::NeedsOperator));
    let story = story.then(retry(1, StepName::Confirm, Some(0)));
    assert_eq!((confirms(&story), story.change().reason), (vec![(0, 2, false)], None));
    let story = story.then(sold(0)).timer().timer().timer();
    assert_eq!(confirms(&story), [(1, 2, false)], "the other one is still asked for");
    story.then(stock_failed(1, StockCommandKind::Confirm, FIRST)).assert_ignored(IgnoreReason::StaleAttempt);
}

#[test]
fn what_was_not_known_to_be_sold_is_given_back_like_what_was() {
    let story = paid(2).then(cancel(1));
    assert_eq!(story.sent(), ["RestockStock", "RestockStock", "RefundPayment"]);
    assert_eq!(story.then(restocked(0)).saga().lines[0].stage, LineStage::Restocked);
}

#[test]
fn a_confirm_that_a_pause_withholds_until_it_is_asked_for_leaves_once_and_is_answered() {
    let order = PlaceOrder { definition: 2, ..order(1, Some("tok_approve")) };
    let story = Story::new().then(order.into()).then(reserved(0, FIRST)).then(pause(1));
    let story = story.then(approved(FIRST, price(1))).timer().timer().timer();
    assert_eq!((story.state(), story.count("ConfirmStock")), (OrderState::Delivered, 0));
    let story = story.after(DAY).then(resume(2));
    assert_eq!(confirms(&story), [(0, 2, false)]);
    assert!(story.then(sold(0)).saga().is_final());
}

#[test]
fn one_whose_window_an_older_build_closed_without_asking_is_ended_by_a_retry() {
    let story = paid(2).timer().timer();
    let mut stored = serde_json::to_value(story.saga()).unwrap();
    assert!(stored.as_object_mut().unwrap().remove("t").is_some());
    let saga: Saga = serde_json::from_value(stored).unwrap();
    let Decision::Advance(advance) = decide(Some(&saga), &retry(1, StepName::Confirm, Some(0)), saga.now)
    else {
        panic!("the retry is refused")
    };
    let [Effect::Stock { command: StockCommand::ConfirmStock(confirm), .. }, ..] = &advance.effects[..]
    else {
        panic!("{:?}", advance.effects)
    };
    assert!(confirm.attempt > FIRST && !confirm.silent);
}

#[test]
fn one_of_a_later_build_is_neither_begun_nor_read() {
    let order = PlaceOrder { definition: SAGA_DEFINITION + 1, ..order(1, None) };
    let decision = decide(None, &order.into(), common::START);
    assert_eq!(decision, Decision::Ignore(IgnoreReason::InvalidOrder));
    let stored = serde_json::to_string(paid(2).saga()).unwrap();
    let later = stored.replacen("\"d\":2", "\"d\":3", 1);
    assert_ne!(stored, later);
    let refused = serde_json::from_str::<Saga>(&later).unwrap_err().to_string();
    assert!(refused.contains("definition 3 of the saga is not known to this build (1 to 2)"), "{refused}");
}
