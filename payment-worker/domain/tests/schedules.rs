//! Random schedules: one order, any commands in any order and any number, a network that delays, repeats and loses
//! requests and answers, a worker that dies, and a provider that keeps its word. Whatever happens, the worker's books
//! agree with the provider's, and every command is answered once the provider answers.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain_types::{Attempt, Currency, CustomerId, MessageId, Money, OrderId, Timestamp};
use payment_domain::{
    Action, Answer, Cause, Charge, ChargeAnswer, Decision, MovementKind, PaymentRecord, Policy,
    ProviderAnswer, ProviderCall, QueryAnswer, RefundAnswer, Reply, VoidAnswer, answered, decide,
};
use proptest::prelude::*;
use schemas::{ChargePayment, ClosePayment, DeclineReason, PaymentCommand, PaymentMethod, RefundPayment};
use uuid::Uuid;

const ORDER: OrderId = OrderId(Uuid::from_u128(1));
const CUSTOMER: CustomerId = CustomerId(Uuid::from_u128(2));
const AMOUNT: Money = Money::new(500, Currency::KRW);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Charge,
    Close,
    Refund,
}

#[derive(Debug, Clone)]
enum Step {
    Command(Kind, u32),
    /// The provider gets a request that is under way.
    Request(usize),
    /// ... and will get it once more.
    RepeatRequest(usize),
    LoseRequest(usize),
    /// The worker gives up waiting for the answer; the request stays under way.
    TimeOut(usize),
    /// The worker gets an answer that is under way.
    Answer(usize),
    LoseAnswer(usize),
    /// The worker dies; its successor goes on from the record.
    TakeOver,
    Wait(u64),
}

#[derive(Debug, Clone, PartialEq)]
enum Fate {
    Approved,
    Declined,
    Voided,
}

/// The provider, which keeps its word: one fate per key, one refund per key.
struct Provider {
    approves: bool,
    bars_unseen: bool,
    fates: BTreeMap<String, Fate>,
    refunds: BTreeSet<String>,
}

impl Provider {
    fn handle(&mut self, call: &ProviderCall) -> ProviderAnswer {
        let key = call.charge_key.to_string();
        let reference = || format!("ref-{key}");
        match &call.action {
            Action::Charge { .. } => {
                let fate = if self.approves { Fate::Approved } else { Fate::Declined };
                ProviderAnswer::Charge(match self.fates.entry(key.clone()).or_insert(fate) {
                    Fate::Approved => ChargeAnswer::Approved { reference: reference() },
                    Fate::Declined => ChargeAnswer::Declined(DeclineReason::Declined),
                    Fate::Voided => ChargeAnswer::Voided,
                })
            }
            Action::Query => ProviderAnswer::Query(match self.fates.get(&key) {
                Some(Fate::Approved) => QueryAnswer::Approved { reference: reference() },
                Some(Fate::Declined) => QueryAnswer::Declined(DeclineReason::Declined),
                Some(Fate::Voided) => QueryAnswer::Voided,
                None => QueryAnswer::NotFound,
            }),
            Action::Void => {
                if !self.bars_unseen && !self.fates.contains_key(&key) {
                    return ProviderAnswer::Void(VoidAnswer::NotFound);
                }
                ProviderAnswer::Void(match self.fates.entry(key.clone()).or_insert(Fate::Voided) {
                    Fate::Approved => VoidAnswer::Approved { reference: reference() },
                    Fate::Declined => VoidAnswer::Declined(DeclineReason::Declined),
                    Fate::Voided => VoidAnswer::Voided,
                })
            }
            Action::Refund { amount } => {
                assert_eq!(*amount, AMOUNT);
                assert_eq!(self.fates.get(&key), Some(&Fate::Approved), "a refund of what was not taken");
                self.refunds.insert(format!("refund-{}", call.order_id));
                ProviderAnswer::Refund(RefundAnswer::Refunded { reference: format!("back-{key}") })
            }
        }
    }

    fn balance(&self) -> (i64, i64) {
        let taken = self.fates.values().filter(|fate| **fate == Fate::Approved).count();
        (
            i64::try_from(taken).unwrap() * AMOUNT.amount,
            i64::try_from(self.refunds.len()).unwrap() * AMOUNT.amount,
        )
    }
}

fn lost(call: &ProviderCall) -> ProviderAnswer {
    match call.action {
        Action::Charge { .. } => ProviderAnswer::Charge(ChargeAnswer::Unknown),
        Action::Query => ProviderAnswer::Query(QueryAnswer::Unknown),
        Action::Void => ProviderAnswer::Void(VoidAnswer::Unknown),
        Action::Refund { .. } => ProviderAnswer::Refund(RefundAnswer::Unknown),
    }
}

struct World {
    provider: Provider,
    record: Option<PaymentRecord>,
    now: Timestamp,
    requests: Vec<(ProviderCall, Timestamp)>,
    answers: Vec<(ProviderCall, ProviderAnswer)>,
    sent: Option<u32>,
    asked: BTreeMap<Kind, u32>,
    said: BTreeMap<MessageId, Reply>,
    replies: Vec<Reply>,
    movements: Vec<MovementKind>,
    refund_asked: bool,
}

impl World {
    fn new(approves: bool, bars_unseen: bool) -> Self {
        Self {
            provider: Provider { approves, bars_unseen, fates: BTreeMap::new(), refunds: BTreeSet::new() },
            record: None,
            now: Timestamp::from_millis(1_000_000),
            requests: vec![],
            answers: vec![],
            sent: None,
            asked: BTreeMap::new(),
            said: BTreeMap::new(),
            replies: vec![],
            movements: vec![],
            refund_asked: false,
        }
    }

    fn charge(&self) -> Option<&Charge> {
        match self.record.as_ref()? {
            PaymentRecord::Charge(charge) => Some(charge),
            PaymentRecord::Barred { .. } => None,
        }
    }

    fn apply(&mut self, decision: Decision) {
        assert!(!decision.contradiction, "this provider keeps its word");
        if let Some(record) = decision.record {
            self.record = Some(record);
        }
        self.movements.extend(decision.movement.map(|movement| movement.kind));
        for reply in decision.replies {
            let before = self.said.entry(reply.message_id()).or_insert_with(|| reply.clone());
            assert_eq!(before.answer, reply.answer, "the same message id says two things");
            self.replies.push(reply);
        }
        self.send();
    }

    fn send(&mut self) {
        if let Some(call) = self.charge().and_then(Charge::next_call)
            && self.sent != Some(call.number.0)
        {
            self.sent = Some(call.number.0);
            self.requests.push((call, self.now));
        }
    }

    fn command(kind: Kind, attempt: u32) -> PaymentCommand {
        let (customer_id, attempt) = (CUSTOMER, Attempt(attempt));
        match kind {
            Kind::Charge => ChargePayment {
                customer_id,
                attempt,
                amount: AMOUNT,
                method: PaymentMethod("m".into()),
                deadline: Timestamp::from_millis(0),
            }
            .into(),
            Kind::Close => ClosePayment { customer_id, attempt }.into(),
            Kind::Refund => RefundPayment { customer_id, attempt, amount: AMOUNT }.into(),
        }
    }

    fn decide(&self, kind: Kind, attempt: u32) -> Decision {
        // A repeated publication has the same message id.
        let message_id = MessageId(Uuid::from_u128(100 * (kind as u128 + 1) + u128::from(attempt)));
        let cause = Cause { message_id, time: self.now, traceparent: None };
        decide(self.record.as_ref(), ORDER, &Self::command(kind, attempt), &cause)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Command(kind, attempt) => {
                // A saga sends attempts in order; older ones come as repeats.
                let newest = self.asked.entry(kind).or_insert(0);
                *newest = attempt.max(*newest);
                self.refund_asked |= kind == Kind::Refund;
                let decision = self.decide(kind, attempt);
                if decision.replies.iter().any(
                    |reply| matches!(&reply.answer, Answer::Failed { code, .. } if code == "not_charged"),
                ) {
                    // Depends on when it is asked; a saga asks only after the approval.
                    return;
                }
                self.apply(decision);
            }
            Step::Request(index) | Step::RepeatRequest(index) => {
                if self.requests.is_empty() {
                    return;
                }
                let index = index % self.requests.len();
                let (call, at) = self.requests[index].clone();
                if matches!(step, Step::Request(_)) {
                    self.requests.remove(index);
                }
                // No network keeps a request longer than the provider's stated limit.
                if self.now.since(at) < Policy::default().late_request_limit {
                    let answer = self.provider.handle(&call);
                    self.answers.push((call, answer));
                }
            }
            Step::LoseRequest(index) => {
                if !self.requests.is_empty() {
                    let (call, _) = self.requests.remove(index % self.requests.len());
                    let answer = lost(&call);
                    self.answers.push((call, answer));
                }
            }
            Step::TimeOut(index) => {
                if !self.requests.is_empty() {
                    let (call, _) = self.requests[index % self.requests.len()].clone();
                    let answer = lost(&call);
                    self.answers.push((call, answer));
                }
            }
            Step::Answer(index) | Step::LoseAnswer(index) => {
                if self.answers.is_empty() {
                    return;
                }
                let (call, mut answer) = self.answers.remove(index % self.answers.len());
                if matches!(step, Step::LoseAnswer(_)) {
                    answer = lost(&call);
                }
                let charge = self.charge().expect("a call has a charge").clone();
                self.apply(answered(&charge, call.number, &answer, self.now, &Policy::default()));
            }
            Step::TakeOver => {
                self.answers.clear();
                self.sent = None;
                self.send();
            }
            Step::Wait(millis) => self.now = self.now.plus(Duration::from_millis(millis)),
        }
    }

    /// From now on the network and the provider behave.
    fn settle(&mut self) {
        self.step(&Step::TakeOver);
        for _ in 0..1_000 {
            while !self.requests.is_empty() {
                self.step(&Step::Request(0));
            }
            while !self.answers.is_empty() {
                self.step(&Step::Answer(0));
            }
            match self.charge().and_then(Charge::next_call) {
                None => return,
                Some(call) => {
                    self.now = call.not_before.unwrap_or(self.now).max(self.now);
                    // A request that was dropped for its age is a lost one.
                    if self.requests.is_empty() {
                        self.requests.push((call, self.now));
                    }
                }
            }
        }
        panic!("never settles: {:?}", self.record);
    }

    fn check_books(&self) {
        let books = self.charge().map_or((0, 0), Charge::balance);
        assert_eq!(books, self.provider.balance(), "the books differ: {:?}", self.record);
        let count = |kind| self.movements.iter().filter(|moved| **moved == kind).count();
        assert!(count(MovementKind::Charged) <= 1 && count(MovementKind::Refunded) <= 1);
        let amount = |kind| i64::try_from(count(kind)).unwrap() * AMOUNT.amount;
        assert_eq!(books, (amount(MovementKind::Charged), amount(MovementKind::Refunded)));
        assert!(books.1 == 0 || self.refund_asked, "refunded without being asked");
        assert!(self.provider.fates.len() <= 1, "charged under two keys");
    }

    fn check_answered(&self) {
        for (kind, attempt) in &self.asked {
            if *kind == Kind::Refund {
                continue; // one that comes too early is refused at once
            }
            let message_ids: BTreeSet<_> =
                self.replies.iter().map(|reply| (reply.cause.message_id, reply.attempt.0)).collect();
            let id = MessageId(Uuid::from_u128(100 * (*kind as u128 + 1) + u128::from(*attempt)));
            assert!(message_ids.contains(&(id, *attempt)), "{kind:?} {attempt} has no answer");
        }
    }

    fn check_repeats(&self) {
        for kind in [Kind::Charge, Kind::Close, Kind::Refund] {
            if !self.asked.contains_key(&kind) {
                continue;
            }
            let decision = self.decide(kind, 1);
            let moves_on = matches!(
                self.charge().map(|charge| charge.state.name()),
                Some("approved" | "failed") // a first refund, or the closing of what failed
            );
            if !moves_on {
                assert_eq!(decision.record, None, "a repeated {kind:?} changes something");
                assert_eq!(decision.replies.len(), 1, "a repeated {kind:?} is not answered");
                assert_eq!(decision, self.decide(kind, 1));
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![3 => Just(Kind::Charge), 2 => Just(Kind::Close), 2 => Just(Kind::Refund)];
    prop_oneof![
        4 => (kind, 1..3_u32).prop_map(|(kind, attempt)| Step::Command(kind, attempt)),
        5 => (0..8_usize).prop_map(Step::Request),
        1 => (0..8_usize).prop_map(Step::RepeatRequest),
        1 => (0..8_usize).prop_map(Step::LoseRequest),
        3 => (0..8_usize).prop_map(Step::TimeOut),
        5 => (0..8_usize).prop_map(Step::Answer),
        2 => (0..8_usize).prop_map(Step::LoseAnswer),
        1 => Just(Step::TakeOver),
        1 => prop_oneof![9 => 1..600_000_u64, 3 => 600_000..4_000_000_u64, 1 => Just(25 * 3_600_000)].prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn whatever_happens_the_books_agree_and_every_command_is_answered(
        approves: bool,
        bars_unseen: bool,
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new(approves, bars_unseen);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        if world.charge().is_none_or(|charge| charge.state.name() != "failed") {
            world.check_books();
        }
        world.check_answered();
        world.check_repeats();

        // An operator's new attempts end what was given up.
        if world.charge().is_some_and(|charge| charge.state.name() == "failed") {
            let kinds: Vec<Kind> = world.asked.keys().copied().collect();
            for kind in kinds {
                world.step(&Step::Command(kind, 9));
                world.settle();
            }
            prop_assert_ne!(world.charge().map(|charge| charge.state.name()), Some("failed"));
        }
        world.check_books();
        world.check_answered();
    }

    #[test]
    fn without_a_refund_command_nothing_is_given_back_and_a_closed_charge_never_takes_money(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new(true, true);
        for step in steps.iter().filter(|step| !matches!(step, Step::Command(Kind::Refund, _))) {
            world.step(step);
            if world.replies.iter().any(|reply| reply.answer == Answer::Closed) {
                prop_assert_eq!(world.provider.balance(), (0, 0));
            }
        }
        world.settle();
        prop_assert_eq!(world.provider.balance().1, 0);
    }
}
