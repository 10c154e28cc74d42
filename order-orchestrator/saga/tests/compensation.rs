//! Cancelling, closing, late answers, and operators: each test is a claim about the saga.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use common::{
    DAY, FIRST, SECOND, Story, approved, cancel, closed, compensate, confirmed, declined, line, pause, pay,
    payment_failed, price, refunded, released, reserved, restocked, resume, retry, skip, stock_failed,
};
use saga::{Effect, Event, IgnoreReason, LineStage, PaymentStage, RefusalCode};
use schemas::{
    DeclineReason, OrderState, PaymentCommand, PaymentCommandKind, PaymentState, Reason, StepName,
    StockCommand, StockCommandKind,
};

fn payment_stage(story: &Story) -> PaymentStage {
    story.saga().payment.as_ref().expect("no payment").stage
}

#[test]
fn cancelling_while_reserving_releases_every_line_also_those_without_an_answer() {
    let story = Story::placed(2, Some("tok")).then(reserved(0, FIRST)).then(cancel(1));
    assert_eq!((story.sent(), story.change().reason), (vec!["ReleaseStock"; 2], Some(Reason::Cancelled)));
    let story = story.then(released(0, FIRST, 1)).then(released(1, FIRST, 0));
    assert_eq!((story.state(), story.change().reason), (OrderState::Cancelled, None));
    story.then(reserved(1, FIRST)).assert_ignored(IgnoreReason::NotAwaited);
}

#[test]
fn cancelling_an_unpaid_order_charges_nothing() {
    let story = Story::held(1, None).then(cancel(1)).then(released(0, FIRST, 1));
    assert_eq!(
        (story.state(), story.count("ChargePayment"), story.count("ClosePayment")),
        (OrderState::Cancelled, 0, 0)
    );
}

#[test]
fn cancelling_during_a_charge_closes_it_and_ends_when_its_fate_is_known() {
    let story = Story::charging(1).then(cancel(1));
    assert_eq!(story.sent(), ["ReleaseStock", "ClosePayment"]);
    assert_eq!(story.change().payment.as_ref().unwrap().state, PaymentState::Closing);
    let story = story.then(released(0, FIRST, 1));
    assert_eq!(story.state(), OrderState::Compensating);
    assert_eq!(story.then(closed(FIRST)).state(), OrderState::Cancelled);
    let story = Story::charging(1).then(cancel(1)).then(declined(DeclineReason::Declined));
    assert_eq!(story.then(released(0, FIRST, 1)).state(), OrderState::Cancelled);
}

#[test]
fn an_approval_after_the_deadline_is_refunded_exactly_once_and_ends_expired() {
    let story = Story::charging(1).timer();
    assert_eq!(story.sent(), ["ReleaseStock", "ClosePayment"]);
    let story = story.then(released(0, FIRST, 1)).then(approved(FIRST, price(1)));
    assert_eq!(story.sent(), ["RefundPayment"]);
    let story = story.then(approved(FIRST, price(1))).then(closed(FIRST));
    story.assert_ignored(IgnoreReason::NotAwaited);
    let story = story.then(refunded(FIRST, price(1))).then(refunded(FIRST, price(1)));
    assert_eq!((story.state(), story.count("RefundPayment")), (OrderState::Expired, 1));
}

#[test]
fn an_approval_after_the_charge_was_said_to_be_closed_is_refunded_and_the_end_stays_the_end() {
    let story = Story::charging(1).timer().then(released(0, FIRST, 1)).then(closed(FIRST));
    assert_eq!((story.state(), story.saga().is_final()), (OrderState::Expired, true));
    let story = story.then(approved(FIRST, price(1)));
    assert_eq!((story.state(), story.saga().is_final()), (OrderState::Expired, true));
    assert_eq!(story.sent(), ["RefundPayment"]);
    story.then(approved(FIRST, price(1))).assert_ignored(IgnoreReason::NotAwaited);
    let story = Story::charging(1)
        .timer()
        .then(closed(FIRST))
        .then(approved(FIRST, price(1)))
        .then(released(0, FIRST, 1));
    assert_eq!(story.state(), OrderState::Compensating, "it waits for the refund");
    assert_eq!(story.then(refunded(FIRST, price(1))).state(), OrderState::Expired);
}

#[test]
fn a_late_approval_refunds_what_was_charged_not_what_was_asked() {
    let story = Story::charging(2).timer().then(approved(FIRST, price(1)));
    let [Effect::Payment(PaymentCommand::RefundPayment(refund)), ..] = story.last_effects() else {
        panic!("no refund")
    };
    assert_eq!(refund.amount, price(1));
}

#[test]
fn cancelling_a_paid_order_refunds_and_restocks_once_and_stops_its_delivery() {
    let story = Story::paid(2);
    let ship = story.armed();
    let story = story.then(cancel(1));
    assert_eq!(story.sent(), ["RestockStock", "RestockStock", "RefundPayment"]);
    let story = story.after(DAY * 2).then(ship.into());
    story.assert_ignored(IgnoreReason::StaleTimer);
    let story =
        story.then(restocked(0)).then(restocked(0)).then(restocked(1)).then(refunded(FIRST, price(2)));
    assert_eq!(story.state(), OrderState::Cancelled);
    assert_eq!((story.count("RestockStock"), story.count("RefundPayment")), (2, 1));
}

#[test]
fn cancelling_before_the_confirmation_is_answered_restocks_behind_it() {
    let story = Story::charging(1).then(approved(FIRST, price(1))).then(cancel(1));
    assert_eq!(story.sent(), ["RestockStock", "RefundPayment"]);
    let story = story.then(confirmed(0));
    story.assert_ignored(IgnoreReason::NotAwaited);
    let story = story.then(stock_failed(0, StockCommandKind::Confirm, FIRST));
    story.assert_ignored(IgnoreReason::NotAwaited);
    assert_eq!(story.then(restocked(0)).then(refunded(FIRST, price(1))).state(), OrderState::Cancelled);
}

#[test]
fn cancelling_is_refused_once_shipped_and_once_things_are_given_back() {
    Story::paid(1).timer().then(cancel(1)).assert_refused(RefusalCode::AlreadyShipped);
    Story::delivered(1).then(cancel(1)).assert_refused(RefusalCode::AlreadyShipped);
    let story = Story::held(1, None).then(cancel(1)).then(cancel(2));
    story.assert_refused(RefusalCode::NotCancellable);
    story.then(released(0, FIRST, 1)).then(cancel(3)).assert_refused(RefusalCode::NotCancellable);
}

#[test]
fn a_failing_compensation_waits_for_an_operator_while_the_others_still_run() {
    let story = Story::paid(2).then(cancel(1)).then(stock_failed(0, StockCommandKind::Restock, FIRST));
    assert_eq!(
        (story.state(), story.change().reason),
        (OrderState::Compensating, Some(Reason::NeedsOperator))
    );
    let story = story.then(restocked(1)).then(refunded(FIRST, price(2)));
    assert_eq!(
        (story.state(), story.change().reason),
        (OrderState::Compensating, Some(Reason::NeedsOperator))
    );
    let story = story.then(retry(2, StepName::Restock, Some(0)));
    assert_eq!((story.sent(), story.change().reason), (vec!["RestockStock"], Some(Reason::Cancelled)));
    let story = story.then(restocked(0));
    story.assert_ignored(IgnoreReason::StaleAttempt);
    let again = schemas::StockRestocked { line: line(0), attempt: SECOND, units: 1, stock_version: 6 };
    assert_eq!(story.then(again.into()).state(), OrderState::Cancelled);
}

#[test]
fn a_charge_nobody_can_tell_the_fate_of_needs_an_operator_and_its_deadline_still_runs() {
    let story = Story::charging(1).then(payment_failed(PaymentCommandKind::Charge, FIRST));
    assert_eq!((story.state(), story.change().reason), (OrderState::Charging, Some(Reason::NeedsOperator)));
    let story = story.timer();
    assert_eq!(story.sent(), ["ReleaseStock", "ClosePayment"]);
    let story = story.then(released(0, FIRST, 1)).then(payment_failed(PaymentCommandKind::Close, FIRST));
    assert_eq!(
        (story.state(), story.change().reason),
        (OrderState::Compensating, Some(Reason::NeedsOperator))
    );
    assert_eq!(story.then(closed(FIRST)).state(), OrderState::Expired);
}

#[test]
fn the_failure_of_a_charge_that_is_being_closed_needs_an_operator_too() {
    let story = Story::charging(1).timer().then(payment_failed(PaymentCommandKind::Charge, FIRST));
    assert_eq!(story.change().reason, Some(Reason::NeedsOperator));
    let story = story.then(payment_failed(PaymentCommandKind::Close, FIRST));
    story.assert_ignored(IgnoreReason::NotAwaited);
}

#[test]
fn a_reserve_that_fails_waits_for_an_operator_and_a_retry_goes_on() {
    let story = Story::placed(1, None).then(stock_failed(0, StockCommandKind::Reserve, FIRST));
    assert_eq!(story.change().reason, Some(Reason::NeedsOperator));
    let story = story.then(retry(1, StepName::Reserve, Some(0)));
    let [Effect::Stock { command: StockCommand::ReserveStock(command), .. }, ..] = story.last_effects()
    else {
        panic!("no reserve")
    };
    assert_eq!(command.attempt, SECOND);
    let story = story.then(reserved(0, FIRST));
    story.assert_ignored(IgnoreReason::StaleAttempt);
    assert_eq!(story.then(reserved(0, SECOND)).state(), OrderState::AwaitingPayment);
}

#[test]
fn a_line_that_is_refused_as_released_though_nobody_released_it_needs_an_operator() {
    let story = Story::placed(1, None).then(common::refused(0, schemas::ReserveRefusal::Released));
    assert_eq!((story.state(), story.change().reason), (OrderState::Reserving, Some(Reason::NeedsOperator)));
}

#[test]
fn an_unanswered_command_can_be_retried_an_answered_one_cannot() {
    let story = Story::charging(1).then(retry(1, StepName::Charge, None));
    assert_eq!(story.sent(), ["ChargePayment"]);
    let story = story.then(retry(2, StepName::Reserve, Some(0)));
    story.assert_refused(RefusalCode::NothingToRetry);
    let story = story.then(approved(FIRST, price(1)));
    story.assert_ignored(IgnoreReason::StaleAttempt);
    assert_eq!(story.then(approved(SECOND, price(1))).state(), OrderState::Paid);
}

#[test]
fn a_paused_saga_folds_its_inputs_and_sends_nothing_until_it_is_resumed_in_order() {
    let story = Story::placed(2, None).then(pause(1)).then(reserved(0, FIRST)).then(reserved(1, FIRST));
    assert_eq!(story.state(), OrderState::AwaitingPayment);
    let story = story.then(pay(2)).then(cancel(3));
    assert_eq!((story.sent().len(), story.state()), (0, OrderState::Compensating));
    let story = story.then(pause(4));
    story.assert_refused(RefusalCode::AlreadyPaused);
    let story = story.then(resume(5));
    // The charge never left and was taken back before it could: only its closing goes out.
    assert_eq!(story.sent(), ["ReleaseStock", "ReleaseStock", "ClosePayment"]);
    story.then(resume(6)).assert_refused(RefusalCode::NotPaused);
}

#[test]
fn withheld_commands_are_sent_on_resume_with_what_they_say() {
    let story = Story::held(1, None).then(pause(1)).then(pay(2));
    let deadline = story.armed().due_at;
    let story = story.after(Duration::from_secs(10)).then(resume(3));
    let [Effect::Payment(PaymentCommand::ChargePayment(charge)), ..] = story.last_effects() else {
        panic!("no charge")
    };
    assert_eq!((charge.amount, charge.deadline, charge.attempt), (price(1), deadline, FIRST));
}

#[test]
fn deadlines_keep_running_while_a_saga_is_paused() {
    let story = Story::held(1, None).then(pause(1)).timer();
    assert_eq!((story.state(), story.sent().len()), (OrderState::Compensating, 0));
    assert_eq!(story.then(resume(2)).sent(), ["ReleaseStock"]);
    assert_eq!(Story::paid(1).then(pause(1)).timer().state(), OrderState::Shipped);
}

#[test]
fn a_command_that_is_withheld_can_not_be_retried() {
    let story = Story::held(1, None).then(pause(1)).then(pay(2)).then(retry(3, StepName::Charge, None));
    story.assert_refused(RefusalCode::CommandWithheld);
    assert_eq!(story.then(resume(4)).count("ChargePayment"), 1);
}

#[test]
fn a_retry_while_paused_goes_out_on_resume() {
    let story = Story::charging(1).then(pause(1)).then(retry(2, StepName::Charge, None));
    assert_eq!(story.sent().len(), 0);
    assert_eq!(story.then(resume(3)).sent(), ["ChargePayment"]);
}

#[test]
fn a_final_saga_can_not_be_paused() {
    let story = Story::placed(1, None).then(common::refused(0, schemas::ReserveRefusal::SoldOut));
    story.then(pause(1)).assert_refused(RefusalCode::AlreadyFinal);
}

#[test]
fn releases_confirmations_and_reservations_are_never_skipped() {
    let failing =
        Story::held(1, None).then(cancel(1)).then(stock_failed(0, StockCommandKind::Release, FIRST));
    let story = failing.then(skip(2, StepName::Release, Some(0), Some("ticket 7")));
    story.assert_refused(RefusalCode::NotSkippable);
    Story::placed(1, None)
        .then(skip(1, StepName::Reserve, Some(0), Some("ticket 7")))
        .assert_refused(RefusalCode::NotSkippable);
    Story::charging(1)
        .then(approved(FIRST, price(1)))
        .then(skip(1, StepName::Confirm, Some(0), Some("ticket 7")))
        .assert_refused(RefusalCode::NotSkippable);
}

#[test]
fn a_refund_is_skipped_only_once_it_failed_and_with_what_settled_it() {
    let story = Story::paid(1).then(cancel(1)).then(restocked(0));
    let story = story.then(skip(2, StepName::Refund, None, Some("bank 1")));
    story.assert_refused(RefusalCode::NotFailed);
    let story = story.then(payment_failed(PaymentCommandKind::Refund, FIRST));
    let story = story.then(skip(3, StepName::Refund, None, None));
    story.assert_refused(RefusalCode::SettlementRequired);
    let story = story.then(skip(4, StepName::Refund, None, Some("  ")));
    story.assert_refused(RefusalCode::SettlementRequired);
    let story = story.then(skip(5, StepName::Refund, None, Some("bank 1")));
    assert_eq!(story.state(), OrderState::Cancelled);
    assert_eq!(story.saga().payment.as_ref().unwrap().settled_by.as_deref(), Some("bank 1"));
    story.then(refunded(FIRST, price(1))).assert_ignored(IgnoreReason::NotAwaited);
}

#[test]
fn a_charge_of_unknown_fate_settled_by_hand_is_paid_and_a_closing_is_closed() {
    let story = Story::charging(1).then(payment_failed(PaymentCommandKind::Charge, FIRST));
    let story = story.then(skip(1, StepName::Charge, None, Some("bank 2")));
    assert_eq!((story.sent(), story.state()), (vec!["ConfirmStock"], OrderState::Paid));
    story.then(approved(FIRST, price(1))).assert_ignored(IgnoreReason::NotAwaited);
    let story = Story::charging(1).timer().then(released(0, FIRST, 1));
    let story = story.then(payment_failed(PaymentCommandKind::Close, FIRST));
    let story = story.then(skip(1, StepName::Close, None, Some("bank 3")));
    assert_eq!((story.state(), payment_stage(&story)), (OrderState::Expired, PaymentStage::Closed));
}

#[test]
fn an_operators_compensation_is_a_cancellation_with_who_and_why_on_record() {
    let story = Story::paid(1).then(compensate(1));
    assert_eq!(
        (story.sent(), story.change().reason),
        (vec!["RestockStock", "RefundPayment"], Some(Reason::Cancelled))
    );
    let events = &story.last.as_ref().unwrap().advance().unwrap().events;
    let recorded = events.iter().any(|event| matches!(event, Event::Answered { operator: Some(who), why: Some(why), .. } if who == "kim" && why == "asked"));
    assert!(recorded, "{events:?}");
    Story::delivered(1).then(compensate(1)).assert_refused(RefusalCode::AlreadyShipped);
}

#[test]
fn a_confirmation_that_fails_does_not_hold_up_delivery_but_the_end() {
    let story = Story::charging(1).then(approved(FIRST, price(1)));
    let story = story.then(stock_failed(0, StockCommandKind::Confirm, FIRST));
    assert_eq!((story.state(), story.change().reason), (OrderState::Paid, Some(Reason::NeedsOperator)));
    let story = story.timer().timer().timer();
    assert_eq!((story.state(), story.saga().is_final()), (OrderState::Delivered, false));
    let story = story.then(retry(1, StepName::Confirm, Some(0)));
    let done = schemas::StockConfirmed { line: line(0), attempt: SECOND, stock_version: 3 };
    let story = story.then(done.into());
    assert_eq!((story.change().is_final, story.saga().lines[0].stage), (true, LineStage::Sold));
}

#[test]
fn a_retried_refund_is_ended_by_the_answer_to_its_latest_attempt_alone() {
    let story = Story::paid(1).then(cancel(1)).then(restocked(0)).then(retry(2, StepName::Refund, None));
    let story = story.then(refunded(FIRST, price(1)));
    story.assert_ignored(IgnoreReason::StaleAttempt);
    assert_eq!(story.then(refunded(SECOND, price(1))).state(), OrderState::Cancelled);
}
