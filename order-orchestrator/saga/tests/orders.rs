//! Placing, paying, delivering, giving back: each test is a claim about the saga.
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
    BUYER, DAY, FIRST, START, STRANGER, Story, approved, cancel, confirmed, declined, give_back, line, order,
    pay, price, refunded, refused, released, request, reserved, restocked,
};
use domain_types::{Currency, Money, Timestamp};
use saga::{Effect, IgnoreReason, LineStage, RefusalCode, Saga};
use schemas::{
    CancelOrder, DeclineReason, LineStock, OrderState, PaymentState, Policy, Reason, RequestOutcome,
    ReserveRefusal, StockCommand, TimerFired, TimerName,
};

#[test]
fn all_lines_are_reserved_at_once_and_the_order_begins_as_version_2() {
    let story = Story::placed(3, None);
    assert_eq!(story.sent(), ["ReserveStock"; 3]);
    let placed = story.placed_event();
    assert_eq!((placed.version, placed.state, placed.is_final), (2, OrderState::Reserving, false));
    assert_eq!((placed.total, placed.lines.len()), (price(3), 3));
    assert_eq!(placed.lines, order(3, None).lines, "tickets included");
    assert!(placed.lines.iter().any(|line| line.ticket.is_some()));
    assert_eq!(placed.pay_before, Some(START.plus(Duration::from_secs(900))));
    let Some(Effect::Stock { sku, command: StockCommand::ReserveStock(command) }) = story.published.get(2)
    else {
        panic!("no reserve of line 1: {:?}", story.published)
    };
    assert_eq!((sku.as_str(), command.line, command.quantity.get()), ("SKU-1", line(1), 2));
    assert_eq!((command.customer_id, command.ordered_at), (BUYER, START));
}

#[test]
fn a_first_place_order_logged_after_publish_before_is_not_placed_and_sends_nothing() {
    let story = Story::new().after(Duration::from_millis(30_001)).then(order(2, Some("tok")).into());
    assert_eq!(story.all_sent(), Vec::<&str>::new());
    let placed = story.placed_event();
    assert_eq!(
        (placed.state, placed.reason, placed.is_final),
        (OrderState::Rejected, Some(Reason::NotPlaced), true)
    );
    assert!(story.saga().is_final());
    let at_the_limit = Story::new().after(Duration::from_secs(30)).then(order(2, None).into());
    assert_eq!(at_the_limit.state(), OrderState::Reserving);
}

#[test]
fn a_repeated_place_order_is_ignored_even_when_it_comes_too_late_or_differs() {
    let story = Story::placed(1, None).after(Duration::from_secs(60)).then(order(1, None).into());
    story.assert_ignored(IgnoreReason::RepeatedOrder);
    let mut other = order(2, None);
    other.fingerprint = "something-else-entirely".into();
    story.then(other.into()).assert_ignored(IgnoreReason::OtherFingerprint);
}

#[test]
fn an_order_that_breaks_the_contract_begins_nothing() {
    let empty = order(0, None);
    let many = order(21, None);
    let mut negative = order(1, None);
    negative.lines[0].unit_price.amount = -1;
    let mut overflow = order(2, None);
    overflow.lines[0].unit_price.amount = i64::MAX;
    let mut mixed = order(2, None);
    mixed.lines[1].unit_price = Money::new(1, Currency::EUR);
    for bad in [empty, many, negative, overflow, mixed] {
        let story = Story::new().then(bad.into());
        story.assert_ignored(IgnoreReason::InvalidOrder);
        assert_eq!(story.saga, None);
    }
}

#[test]
fn an_input_for_an_order_nobody_placed_is_ignored() {
    Story::new().then(cancel(1)).assert_ignored(IgnoreReason::UnknownOrder);
    Story::new().then(reserved(0, FIRST)).assert_ignored(IgnoreReason::UnknownOrder);
}

#[test]
fn with_a_method_the_charge_follows_the_last_reservation_at_once() {
    let story = Story::placed(2, Some("tok_approve")).then(reserved(1, FIRST));
    assert_eq!((story.sent().len(), story.state()), (0, OrderState::Reserving));
    let story = story.then(reserved(0, FIRST));
    assert_eq!((story.sent(), story.state()), (vec!["ChargePayment"], OrderState::Charging));
    assert_eq!(story.change().payment.as_ref().map(|payment| payment.state), Some(PaymentState::Pending));
    assert_eq!(story.change().stock, [LineStock { line: line(0), held: true, stock_version: 2 }]);
    assert_eq!(story.armed().timer, TimerName::ChargeDeadline);
}

#[test]
fn without_a_method_the_order_waits_and_a_payment_charges_it_once() {
    let story = Story::held(2, None);
    assert_eq!((story.sent().len(), story.state()), (0, OrderState::AwaitingPayment));
    let story = story.then(pay(1));
    assert_eq!((story.sent(), story.state()), (vec!["ChargePayment"], OrderState::Charging));
    assert_eq!(story.change().request.as_ref().map(|request| request.outcome), Some(RequestOutcome::Done));
    let story = story.then(pay(2));
    story.assert_refused(RefusalCode::PaymentInProgress);
    let story = story.then(approved(FIRST, price(2))).then(pay(3));
    story.assert_refused(RefusalCode::AlreadyPaid);
    assert_eq!(story.count("ChargePayment"), 1);
}

#[test]
fn a_payment_while_units_are_being_held_is_taken_and_charged_behind_the_last_of_them() {
    let story = Story::placed(2, None).then(reserved(0, FIRST)).then(pay(1));
    assert_eq!((story.sent().len(), story.state()), (0, OrderState::Reserving));
    let story = story.then(pay(2));
    story.assert_refused(RefusalCode::PaymentInProgress);
    assert_eq!(story.then(reserved(1, FIRST)).state(), OrderState::Charging);
}

#[test]
fn a_payment_after_pay_before_is_refused_even_if_the_timer_is_late() {
    let story = Story::held(1, None).after(Duration::from_millis(900_001)).then(pay(1));
    story.assert_refused(RefusalCode::NotPayable);
    assert_eq!(story.count("ChargePayment"), 0);
}

#[test]
fn a_reservation_that_completes_after_pay_before_expires_instead_of_charging() {
    let story = Story::placed(1, Some("tok")).after(Duration::from_millis(900_001)).then(reserved(0, FIRST));
    assert_eq!((story.sent(), story.state()), (vec!["ReleaseStock"], OrderState::Compensating));
    assert_eq!(story.then(released(0, FIRST, 1)).state(), OrderState::Expired);
}

#[test]
fn an_approval_is_paid_and_confirms_every_line() {
    let story = Story::charging(3).then(approved(FIRST, price(3)));
    assert_eq!((story.sent(), story.state()), (vec!["ConfirmStock"; 3], OrderState::Paid));
    let payment = story.change().payment.clone().unwrap();
    assert_eq!((payment.state, payment.charged), (PaymentState::Approved, Some(price(3))));
    let version = story.saga().version;
    let story = story.then(confirmed(0)).then(confirmed(1)).then(confirmed(2));
    assert_eq!(story.saga().version, version, "a confirmed hold is nothing new to the public");
    assert!(story.saga().lines.iter().all(|line| line.stage == LineStage::Sold));
}

#[test]
fn one_refused_line_releases_all_others_and_rejects_with_its_reason() {
    let reasons = [
        (ReserveRefusal::SoldOut, Reason::SoldOut),
        (ReserveRefusal::SaleClosed, Reason::SaleClosed),
        (ReserveRefusal::LimitExceeded, Reason::LimitExceeded),
        (ReserveRefusal::UnknownSku, Reason::UnknownSku),
    ];
    for (refusal, reason) in reasons {
        let story = Story::placed(3, Some("tok")).then(reserved(0, FIRST)).then(refused(1, refusal));
        assert_eq!((story.sent(), story.state()), (vec!["ReleaseStock"; 2], OrderState::Compensating));
        assert_eq!(story.change().reason, Some(reason));
        let story = story.then(released(2, FIRST, 0)).then(released(0, FIRST, 1));
        assert_eq!((story.state(), story.change().reason), (OrderState::Rejected, Some(reason)));
        assert!(story.change().is_final);
        assert_eq!(story.count("ChargePayment"), 0);
    }
}

#[test]
fn a_single_refused_line_rejects_at_once() {
    let story = Story::placed(1, None).then(refused(0, ReserveRefusal::SoldOut));
    assert_eq!((story.sent().len(), story.state()), (0, OrderState::Rejected));
    assert_eq!(story.change().version, 3);
}

#[test]
fn a_hold_learnt_of_while_releasing_is_published_once_and_so_is_its_end() {
    let stock = |story: &Story| story.change().stock.iter().map(|stock| stock.held).collect::<Vec<_>>();
    let story = Story::placed(2, None).then(refused(1, ReserveRefusal::SoldOut)).then(reserved(0, FIRST));
    assert_eq!((stock(&story), story.state()), (vec![true], OrderState::Compensating));
    let story = story.then(reserved(0, FIRST));
    story.assert_ignored(IgnoreReason::NotAwaited);
    assert_eq!(stock(&story.then(released(0, FIRST, 1))), [false]);
    // The reply to the reserve never came: both are published with the release.
    let story = Story::placed(2, None).then(refused(1, ReserveRefusal::SoldOut)).then(released(0, FIRST, 1));
    assert_eq!(stock(&story), [true, false]);
    // A line that never held says nothing about stock.
    let story = Story::placed(2, None).then(refused(1, ReserveRefusal::SoldOut)).then(released(0, FIRST, 0));
    assert_eq!(stock(&story), Vec::<bool>::new());
}

#[test]
fn a_declined_payment_releases_every_line_once_and_ends_payment_failed_with_its_reason() {
    let reasons = [
        (DeclineReason::Declined, Reason::Declined),
        (DeclineReason::OverLimit, Reason::OverLimit),
        (DeclineReason::Abandoned, Reason::Abandoned),
    ];
    for (decline, reason) in reasons {
        let story = Story::charging(2).then(declined(decline));
        assert_eq!((story.sent(), story.state()), (vec!["ReleaseStock"; 2], OrderState::Compensating));
        let story = story.then(released(0, FIRST, 1)).then(released(0, FIRST, 1)).then(released(1, FIRST, 2));
        assert_eq!((story.state(), story.change().reason), (OrderState::PaymentFailed, Some(reason)));
        assert_eq!((story.count("ReleaseStock"), story.count("RefundPayment")), (2, 0));
        let refused = story.then(pay(9));
        refused.assert_refused(RefusalCode::NotPayable);
    }
}

#[test]
fn an_order_that_is_not_paid_in_time_expires_and_gives_its_units_back() {
    let story = Story::held(2, None).timer();
    assert_eq!((story.sent(), story.change().reason), (vec!["ReleaseStock"; 2], Some(Reason::Expired)));
    let story = story.then(released(0, FIRST, 1)).then(released(1, FIRST, 2));
    assert_eq!((story.state(), story.change().reason), (OrderState::Expired, None));
}

#[test]
fn units_that_are_never_answered_for_are_released_at_pay_before() {
    let story = Story::placed(2, Some("tok")).then(reserved(0, FIRST)).timer();
    assert_eq!((story.sent(), story.state()), (vec!["ReleaseStock"; 2], OrderState::Compensating));
}

#[test]
fn shipped_a_day_and_delivered_two_days_after_paid_however_late_the_timers_come() {
    let story = Story::paid(1);
    let paid_at = story.time;
    let story = story.after(DAY * 5).timer();
    assert_eq!(story.state(), OrderState::Shipped);
    assert_eq!(story.armed(), TimerFired { timer: TimerName::Deliver, due_at: paid_at.plus(DAY * 2) });
    let story = story.timer();
    assert_eq!(story.state(), OrderState::Delivered);
    assert_eq!(story.change().return_before, Some(paid_at.plus(DAY * 6)));
    assert!(!story.change().is_final);
}

#[test]
fn the_length_of_a_day_is_the_orders_own() {
    let mut order = order(1, Some("tok"));
    order.policy = Some(Policy { day_ms: 1_000, ..Policy::default() });
    let story = Story::new().then(order.into()).then(reserved(0, FIRST)).then(approved(FIRST, price(1)));
    assert_eq!(story.armed().due_at, START.plus(Duration::from_secs(1)));
}

#[test]
fn a_delivered_order_is_final_once_its_return_window_has_closed() {
    let story = Story::delivered(1).timer();
    assert_eq!((story.state(), story.change().is_final), (OrderState::Delivered, true));
    assert!(story.saga().is_final());
    story.then(give_back(1)).assert_refused(RefusalCode::ReturnWindowClosed);
}

#[test]
fn a_delivered_order_is_not_final_before_its_holds_are_confirmed() {
    let story = Story::charging(1).then(approved(FIRST, price(1))).timer().timer().timer();
    assert_eq!((story.state(), story.saga().is_final()), (OrderState::Delivered, false));
    let story = story.then(confirmed(0));
    assert!(story.change().is_final);
}

#[test]
fn a_return_within_a_day_gives_units_and_money_back_one_day_later_once() {
    let story = Story::delivered(2).after(DAY).then(give_back(1));
    assert_eq!((story.sent().len(), story.state()), (0, OrderState::ReturnRequested));
    assert_eq!(story.armed().due_at, story.time.plus(DAY));
    let story = story.timer();
    assert_eq!(story.sent(), ["RestockStock", "RestockStock", "RefundPayment"]);
    assert_eq!(story.change().reason, Some(Reason::Returned));
    let story = story.then(restocked(0)).then(refunded(FIRST, price(2))).then(restocked(1));
    assert_eq!((story.state(), story.change().is_final), (OrderState::Returned, true));
    assert_eq!(story.saga().payment.as_ref().unwrap().refunded, Some(price(2)));
    let story = story.then(refunded(FIRST, price(2)));
    story.assert_ignored(IgnoreReason::NotAwaited);
}

#[test]
fn a_return_before_delivery_or_too_late_or_twice_is_refused() {
    Story::paid(1).then(give_back(1)).assert_refused(RefusalCode::NotDelivered);
    let late = Story::delivered(1).after(DAY + Duration::from_millis(1)).then(give_back(1));
    late.assert_refused(RefusalCode::ReturnWindowClosed);
    Story::delivered(1).then(give_back(1)).then(give_back(2)).assert_refused(RefusalCode::NotDelivered);
}

#[test]
fn a_request_is_answered_once_and_only_to_the_owner_of_the_order() {
    let story = Story::held(1, None).then(cancel(7)).then(cancel(7));
    story.assert_ignored(IgnoreReason::RepeatedRequest);
    let stranger = CancelOrder { request_id: request(8), customer_id: STRANGER };
    Story::held(1, None).then(stranger.into()).assert_ignored(IgnoreReason::OtherCustomer);
}

#[test]
fn a_refusal_is_recorded_and_published_with_a_version_of_its_own() {
    let story = Story::paid(1);
    let version = story.saga().version;
    let story = story.then(pay(7));
    story.assert_refused(RefusalCode::AlreadyPaid);
    assert_eq!((story.change().version, story.saga().version), (version + 1, version + 1));
    story.then(pay(7)).assert_ignored(IgnoreReason::RepeatedRequest);
}

#[test]
fn a_timer_that_comes_early_is_armed_again_and_one_that_was_replaced_is_ignored() {
    let story = Story::paid(1);
    let timer = story.armed();
    let before = story.saga().clone();
    let story = story.then(timer.clone().into());
    assert_eq!((story.sent().len(), story.saga()), (0, &before));
    let other = TimerFired { due_at: timer.due_at.plus(DAY), ..timer.clone() };
    let story = story.after(DAY * 3).then(other.into());
    story.assert_ignored(IgnoreReason::StaleTimer);
    let story = story.then(cancel(1)).then(timer.into());
    story.assert_ignored(IgnoreReason::StaleTimer);
}

#[test]
fn time_never_goes_back_for_a_saga() {
    let story = Story::held(1, None);
    let mut earlier = Story { time: Timestamp::from_millis(0), ..story };
    earlier.apply(&pay(1));
    assert_eq!(earlier.armed().due_at, START.plus(Duration::from_secs(60)));
}

#[test]
fn the_state_survives_being_written_and_is_small() {
    for (story, most) in [(Story::charging(1), 340), (Story::paid(1), 340), (Story::delivered(1), 340)] {
        let text = serde_json::to_string(story.saga()).unwrap();
        assert_eq!(&serde_json::from_str::<Saga>(&text).unwrap(), story.saga());
        assert!(text.len() <= most, "{} bytes: {text}", text.len());
    }
}
