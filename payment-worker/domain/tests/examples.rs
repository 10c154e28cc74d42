//! Single paths, as claims.

#![expect(clippy::expect_used, clippy::panic, reason = "a test")]

use std::time::Duration;

use domain_types::{Attempt, Currency, CustomerId, MessageId, Money, OrderId, Timestamp};
use payment_domain::{
    Action, Answer, Asked, CallNumber, Cause, Charge, ChargeAnswer, ChargeState, Decision, PaymentRecord,
    Policy, ProviderAnswer, QueryAnswer, RefundAnswer, VoidAnswer, answered, code, decide,
};
use schemas::{
    ChargePayment, ClosePayment, DeclineReason, PaymentCommand, PaymentCommandKind, PaymentMethod,
    RefundPayment,
};
use uuid::Uuid;

const ORDER: OrderId = OrderId(Uuid::from_u128(1));
const CUSTOMER: CustomerId = CustomerId(Uuid::from_u128(2));
const AMOUNT: Money = Money::new(129_000, Currency::KRW);
const START: Timestamp = Timestamp::from_millis(1_795_237_200_000);

fn cause(id: u128) -> Cause {
    Cause { message_id: MessageId(Uuid::from_u128(id)), time: START, traceparent: None }
}

fn charge_command(attempt: u32) -> PaymentCommand {
    ChargePayment {
        customer_id: CUSTOMER,
        attempt: Attempt(attempt),
        amount: AMOUNT,
        method: PaymentMethod("tok_approve".into()),
        deadline: START,
    }
    .into()
}

fn close_command(attempt: u32) -> PaymentCommand {
    ClosePayment { customer_id: CUSTOMER, attempt: Attempt(attempt) }.into()
}

fn refund_command(attempt: u32) -> PaymentCommand {
    RefundPayment { customer_id: CUSTOMER, attempt: Attempt(attempt), amount: AMOUNT }.into()
}

struct Worker {
    record: Option<PaymentRecord>,
    now: Timestamp,
}

impl Worker {
    fn new() -> Self {
        Self { record: None, now: START }
    }

    fn requested() -> Self {
        let mut worker = Self::new();
        worker.command(&charge_command(1), 10);
        worker
    }

    fn keep(&mut self, decision: &Decision) {
        if let Some(record) = &decision.record {
            self.record = Some(record.clone());
        }
    }

    fn command(&mut self, command: &PaymentCommand, id: u128) -> Vec<(u32, Answer)> {
        let decision = decide(self.record.as_ref(), ORDER, command, &cause(id));
        self.keep(&decision);
        decision.replies.into_iter().map(|reply| (reply.attempt.0, reply.answer)).collect()
    }

    fn charge(&self) -> &Charge {
        match self.record.as_ref().expect("a record") {
            PaymentRecord::Charge(charge) => charge,
            PaymentRecord::Barred { .. } => panic!("barred"),
        }
    }

    fn action(&self) -> Option<Action> {
        self.charge().next_call().map(|call| call.action)
    }

    fn answer_to(&mut self, number: CallNumber, answer: ProviderAnswer) -> Decision {
        let decision = answered(self.charge(), number, &answer, self.now, &Policy::default());
        self.keep(&decision);
        decision
    }

    fn answer(&mut self, answer: ProviderAnswer) -> Vec<(u32, Answer)> {
        let number = self.charge().next_call().expect("a call is pending").number;
        self.answer_to(number, answer)
            .replies
            .into_iter()
            .map(|reply| (reply.attempt.0, reply.answer))
            .collect()
    }
}

fn approved() -> Answer {
    Answer::Approved { amount: AMOUNT, reference: "r".into() }
}

fn charge_approved() -> ProviderAnswer {
    ProviderAnswer::Charge(ChargeAnswer::Approved { reference: "r".into() })
}

#[test]
fn an_approved_charge_is_answered_once_and_a_repeat_gets_the_same_answer_with_its_attempt() {
    let mut worker = Worker::requested();
    assert!(matches!(worker.action(), Some(Action::Charge { .. })));
    assert_eq!(worker.command(&charge_command(1), 10), [], "open: the repeat waits");
    assert_eq!(worker.answer(charge_approved()), [(1, approved())]);
    assert_eq!(worker.command(&charge_command(1), 10), [(1, approved())]);
    assert_eq!(worker.command(&charge_command(2), 11), [(2, approved())]);
    assert_eq!(worker.action(), None);
}

#[test]
fn a_lost_answer_is_queried_and_not_found_repeats_the_charge_and_never_declines() {
    let mut worker = Worker::requested();
    assert_eq!(worker.answer(ProviderAnswer::Charge(ChargeAnswer::Unknown)), []);
    assert_eq!(worker.action(), Some(Action::Query));
    let first = worker.charge().next_call().unwrap();
    assert_eq!(first.not_before, Some(START.plus(Duration::from_millis(250))));
    assert_eq!(worker.answer(ProviderAnswer::Query(QueryAnswer::NotFound)), []);
    let again = worker.charge().next_call().unwrap();
    assert!(matches!(again.action, Action::Charge { .. }));
    assert_eq!(again.charge_key, first.charge_key);
    assert_eq!(worker.answer(charge_approved()), [(1, approved())]);
}

#[test]
fn unknown_for_24_hours_fails_and_a_new_attempt_goes_on_querying() {
    let mut worker = Worker::requested();
    worker.answer(ProviderAnswer::Charge(ChargeAnswer::Unknown));
    worker.now = START.plus(Duration::from_secs(24 * 3600));
    let failed = Answer::Failed { command: PaymentCommandKind::Charge, code: code::OUTCOME_UNKNOWN.into() };
    assert_eq!(worker.answer(ProviderAnswer::Query(QueryAnswer::Unknown)), [(1, failed.clone())]);
    assert_eq!(worker.action(), None);
    assert_eq!(worker.command(&charge_command(1), 10), [(1, failed)]);
    assert_eq!(worker.command(&charge_command(2), 11), []);
    assert_eq!(worker.action(), Some(Action::Query));
    let found = ProviderAnswer::Query(QueryAnswer::Approved { reference: "r".into() });
    assert_eq!(worker.answer(found), [(2, approved())]);
}

#[test]
fn closing_before_the_charge_leaves_a_tombstone_and_calls_nobody() {
    let mut worker = Worker::new();
    assert_eq!(worker.command(&close_command(1), 20), [(1, Answer::Closed)]);
    assert_eq!(worker.command(&charge_command(1), 10), [(1, Answer::Closed)]);
    assert_eq!(worker.record, Some(PaymentRecord::Barred { order_id: ORDER, customer_id: CUSTOMER }));
}

#[test]
fn closing_a_charge_under_way_voids_it_and_answers_both_commands() {
    let mut worker = Worker::requested();
    assert_eq!(worker.command(&close_command(1), 20), []);
    assert_eq!(worker.action(), Some(Action::Void));
    assert_eq!(
        worker.answer(ProviderAnswer::Void(VoidAnswer::Voided)),
        [(1, Answer::Closed), (1, Answer::Closed)]
    );
    assert_eq!(worker.command(&close_command(3), 21), [(3, Answer::Closed)]);
}

#[test]
fn a_closed_charge_that_was_approved_after_all_is_reported_and_refunded_once() {
    let mut worker = Worker::requested();
    let charge_call = worker.charge().next_call().unwrap().number;
    worker.command(&close_command(1), 20);
    let late = worker.answer_to(charge_call, charge_approved());
    assert_eq!(late.replies.len(), 2);
    assert!(late.replies.iter().all(|reply| reply.answer == approved()));
    assert_eq!(worker.command(&refund_command(1), 30), []);
    assert_eq!(worker.action(), Some(Action::Refund { amount: AMOUNT }));
    let refunded = Answer::Refunded { amount: AMOUNT, reference: "b".into() };
    let answer = ProviderAnswer::Refund(RefundAnswer::Refunded { reference: "b".into() });
    assert_eq!(worker.answer(answer), [(1, refunded.clone())]);
    assert_eq!(worker.command(&refund_command(1), 30), [(1, refunded)]);
    assert_eq!(worker.action(), None);
    assert_eq!(worker.command(&charge_command(1), 10), [(1, approved())]);
    assert_eq!(worker.charge().balance(), (129_000, 129_000));
}

#[test]
fn a_provider_that_takes_money_after_it_said_voided_is_reported_all_the_same() {
    let mut worker = Worker::requested();
    let charge_call = worker.charge().next_call().unwrap().number;
    worker.command(&close_command(1), 20);
    worker.answer(ProviderAnswer::Void(VoidAnswer::Voided));
    let decision = worker.answer_to(charge_call, charge_approved());
    assert!(decision.contradiction);
    assert_eq!(decision.replies[0].answer, approved());
    assert_eq!(worker.charge().balance(), (129_000, 0));
}

#[test]
fn with_a_provider_that_cannot_bar_an_unseen_key_the_charge_is_closed_only_after_the_late_request_limit() {
    let mut worker = Worker::requested();
    worker.command(&close_command(1), 20);
    assert_eq!(worker.answer(ProviderAnswer::Void(VoidAnswer::NotFound)), []);
    assert_eq!(worker.action(), Some(Action::Query));
    worker.now = START.plus(Duration::from_secs(3599));
    assert_eq!(worker.answer(ProviderAnswer::Query(QueryAnswer::NotFound)), []);
    worker.now = START.plus(Duration::from_secs(3600));
    assert_eq!(worker.answer(ProviderAnswer::Query(QueryAnswer::NotFound)).len(), 2);
    assert!(matches!(worker.charge().state, ChargeState::Closed { .. }));
}

#[test]
fn what_was_not_charged_is_not_refunded_and_neither_is_another_amount() {
    let mut worker = Worker::new();
    let failed = |code: &str| Answer::Failed { command: PaymentCommandKind::Refund, code: code.into() };
    assert_eq!(worker.command(&refund_command(1), 30), [(1, failed(code::NOT_CHARGED))]);
    worker.command(&charge_command(1), 10);
    worker.answer(charge_approved());
    let more = RefundPayment {
        customer_id: CUSTOMER,
        attempt: Attempt(1),
        amount: Money::new(129_001, Currency::KRW),
    };
    assert_eq!(worker.command(&more.into(), 30), [(1, failed(code::AMOUNT_MISMATCH))]);
    assert_eq!(worker.action(), None);
}

#[test]
fn a_close_that_is_read_late_still_waits_for_requests_that_were_just_sent() {
    let mut worker = Worker::requested();
    worker.command(&close_command(1), 20);
    // The commands waited two hours for this worker; the charge went out a moment ago.
    worker.now = START.plus(Duration::from_secs(2 * 3600));
    assert_eq!(worker.answer(ProviderAnswer::Void(VoidAnswer::NotFound)), []);
    assert_eq!(worker.answer(ProviderAnswer::Query(QueryAnswer::NotFound)), [], "it may still arrive");
    worker.now = worker.now.plus(Policy::default().late_request_limit);
    assert_eq!(worker.answer(ProviderAnswer::Query(QueryAnswer::NotFound)).len(), 2);
}

#[test]
fn a_refund_that_finds_its_charge_open_after_a_restore_waits_for_its_fate() {
    let failed = |code: &str| Answer::Failed { command: PaymentCommandKind::Refund, code: code.into() };
    let mut worker = Worker::requested();
    worker.command(&close_command(1), 20);
    assert_eq!(worker.command(&refund_command(1), 30), [], "the charge is being closed");
    assert_eq!(worker.command(&refund_command(1), 30), []);
    let approval = ProviderAnswer::Void(VoidAnswer::Approved { reference: "r".into() });
    assert_eq!(worker.answer(approval), [(1, approved()), (1, approved())]);
    assert_eq!(worker.action(), Some(Action::Refund { amount: AMOUNT }));
    let refunded = ProviderAnswer::Refund(RefundAnswer::Refunded { reference: "b".into() });
    assert_eq!(worker.answer(refunded), [(1, Answer::Refunded { amount: AMOUNT, reference: "b".into() })]);

    let mut worker = Worker::requested();
    worker.command(&refund_command(1), 30);
    let declined = ProviderAnswer::Charge(ChargeAnswer::Declined(DeclineReason::Declined));
    assert_eq!(worker.answer(declined).last(), Some(&(1, failed(code::NOT_CHARGED))));
}

#[test]
fn a_refund_of_a_charge_that_was_given_up_asks_for_its_fate_again() {
    let mut worker = Worker::requested();
    worker.now = START.plus(Policy::default().unknown_limit);
    worker.answer(ProviderAnswer::Charge(ChargeAnswer::Unknown));
    assert!(matches!(worker.charge().state, ChargeState::Failed { .. }));
    assert_eq!(worker.command(&refund_command(1), 30), []);
    assert_eq!(worker.action(), Some(Action::Query));
    worker.answer(ProviderAnswer::Query(QueryAnswer::Approved { reference: "r".into() }));
    assert_eq!(worker.action(), Some(Action::Refund { amount: AMOUNT }));
}

#[test]
fn a_second_charge_of_the_order_with_other_terms_is_refused() {
    let mut worker = Worker::requested();
    let other = ChargePayment {
        customer_id: CUSTOMER,
        attempt: Attempt(2),
        amount: AMOUNT,
        method: PaymentMethod("tok_decline".into()),
        deadline: START,
    };
    let failed =
        Answer::Failed { command: PaymentCommandKind::Charge, code: code::CONFLICTING_CHARGE.into() };
    assert_eq!(worker.command(&other.into(), 12), [(2, failed)]);
}

#[test]
fn a_refused_refund_fails_with_the_providers_code_and_a_new_attempt_asks_again_with_the_same_key() {
    let mut worker = Worker::requested();
    worker.answer(charge_approved());
    worker.command(&refund_command(1), 30);
    let refused = ProviderAnswer::Refund(RefundAnswer::Refused { code: "account_closed".into() });
    let failed = Answer::Failed { command: PaymentCommandKind::Refund, code: "account_closed".into() };
    assert_eq!(worker.answer(refused), [(1, failed)]);
    assert_eq!(worker.charge().balance(), (129_000, 0));
    assert_eq!(worker.command(&refund_command(2), 31), []);
    assert_eq!(worker.action(), Some(Action::Refund { amount: AMOUNT }));
}

#[test]
fn a_superseded_call_without_a_definite_answer_leads_to_nothing() {
    let mut worker = Worker::requested();
    let first = worker.charge().next_call().unwrap().number;
    worker.answer(ProviderAnswer::Charge(ChargeAnswer::Unknown));
    let decision = worker.answer_to(first, ProviderAnswer::Charge(ChargeAnswer::Unknown));
    assert_eq!(decision, Decision::default());
}

#[test]
fn the_pause_doubles_up_to_its_longest() {
    let policy = Policy::default();
    assert_eq!(policy.pause(0), Duration::from_millis(250));
    assert_eq!(policy.pause(3), Duration::from_secs(2));
    assert_eq!(policy.pause(200), Duration::from_secs(60));
}

#[test]
fn a_stored_state_reads_back() {
    let asked = Asked { attempt: Attempt(1), cause: cause(1) };
    let mut worker = Worker::requested();
    worker.command(&close_command(1), 20);
    let state = worker.charge().state.clone();
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<ChargeState>(&text).unwrap(), state);
    assert!(text.contains(r#""state":"closing""#), "{text}");
    let failed = ChargeState::Failed {
        stuck: payment_domain::Stuck::Refund { reference: "r".into() },
        asked,
        code: code::OUTCOME_UNKNOWN.into(),
    };
    let text = serde_json::to_string(&failed).unwrap();
    assert_eq!(serde_json::from_str::<ChargeState>(&text).unwrap(), failed);
    assert_eq!(DeclineReason::OverLimit, serde_json::from_str("\"over_limit\"").unwrap());
}
