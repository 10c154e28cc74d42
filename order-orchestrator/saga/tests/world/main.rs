//! Any order of replies, repeats, timers and requests ends, once all is answered, in a legal final state with stock and money balanced.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

#[path = "../common/mod.rs"]
mod common;
mod participants;

use std::time::Duration;

use common::{Story, cancel, compensate, give_back, order, pause, pay, resume, retry, skip};
use participants::{ChargeScript, Participants, Script};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::test_runner::Config;
use saga::{CommandRef, Decision, Effect, Event, Saga, decide, evolve};
use schemas::{
    DeclineReason, OrderEvent, OrderSagaMessage, OrderState, PlaceOrder, ReserveRefusal, SAGA_DEFINITION,
    StepName, StockCommand, TimerFired,
};

/// One thing that happens. The number picks what it happens to.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Command(u8),
    RepeatCommand(u8),
    Reply(u8),
    RepeatReply(u8),
    /// All that is on its way arrives, in order.
    Quiet,
    Timer,
    EarlyTimer,
    OldTimer(u8),
    Time(u8),
    Pay,
    Cancel,
    Return,
    RepeatOrder,
    Pause,
    Resume,
    Retry(u8),
    Skip(bool),
    Compensate,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        12 => any::<u8>().prop_map(Happening::Command),
        4 => any::<u8>().prop_map(Happening::RepeatCommand),
        14 => any::<u8>().prop_map(Happening::Reply),
        4 => any::<u8>().prop_map(Happening::RepeatReply),
        2 => Just(Happening::Quiet),
        3 => Just(Happening::Timer),
        1 => Just(Happening::EarlyTimer),
        1 => any::<u8>().prop_map(Happening::OldTimer),
        2 => any::<u8>().prop_map(Happening::Time),
        2 => Just(Happening::Pay),
        1 => Just(Happening::Cancel),
        2 => Just(Happening::Return),
        1 => Just(Happening::RepeatOrder),
        1 => Just(Happening::Pause),
        1 => Just(Happening::Resume),
        1 => any::<u8>().prop_map(Happening::Retry),
        1 => any::<bool>().prop_map(Happening::Skip),
        1 => Just(Happening::Compensate),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let refusal = prop_oneof![
        6 => Just(None),
        1 => Just(Some(ReserveRefusal::SoldOut)),
        1 => Just(Some(ReserveRefusal::LimitExceeded)),
    ];
    let charge = prop_oneof![
        4 => Just(ChargeScript::Approve),
        1 => Just(ChargeScript::Decline(DeclineReason::Declined)),
        1 => Just(ChargeScript::Decline(DeclineReason::Abandoned)),
    ];
    (
        proptest::collection::vec(refusal, 1..=3),
        any::<bool>(),
        charge,
        0..3u8,
        proptest::collection::vec(any::<bool>(), 0..6),
        1..=SAGA_DEFINITION,
        any::<bool>(),
    )
        .prop_map(
            |(refusals, pay_at_once, charge, unknown_answers, stock_failures, definition, returns)| Script {
                refusals,
                pay_at_once,
                charge,
                unknown_answers,
                stock_failures,
                definition,
                returns,
            },
        )
}

struct World {
    story: Story,
    participants: Participants,
    commands: Vec<Effect>,
    replies: Vec<OrderSagaMessage>,
    old_commands: Vec<Effect>,
    old_replies: Vec<OrderSagaMessage>,
    old_timers: Vec<TimerFired>,
    requests: u128,
    returns: bool,
    published: usize,
    public: Option<(i64, OrderState, bool)>,
    held: Vec<Option<bool>>,
    ever_held: Vec<bool>,
}

impl World {
    fn new(script: &Script) -> Self {
        let lines = script.refusals.len();
        let mut world = Self {
            story: Story::new(),
            participants: Participants::new(script),
            commands: Vec::new(),
            replies: Vec::new(),
            old_commands: Vec::new(),
            old_replies: Vec::new(),
            old_timers: Vec::new(),
            requests: 0,
            returns: script.returns,
            published: 0,
            public: None,
            held: vec![None; lines],
            ever_held: vec![false; lines],
        };
        world.input(world.order(script));
        world
    }

    fn order(&self, script: &Script) -> OrderSagaMessage {
        let lines = u8::try_from(script.refusals.len()).unwrap();
        PlaceOrder { definition: script.definition, ..order(lines, script.pay_at_once.then_some("tok")) }
            .into()
    }

    fn saga(&self) -> &Saga {
        self.story.saga()
    }

    /// Applies one input and holds the saga to everything that must always be true.
    fn input(&mut self, input: OrderSagaMessage) {
        if let Some(timer) = self.story.saga.as_ref().and_then(|saga| saga.timer) {
            self.old_timers.push(TimerFired { timer: timer.name, due_at: timer.due_at });
        }
        self.story.apply(&input);
        if self.saga().paused {
            assert_eq!(self.story.sent(), Vec::<&str>::new(), "a paused saga sends nothing");
        }
        self.twice_changes_nothing(&input);
        self.what_is_published_agrees();
        self.something_leads_on();
        let text = serde_json::to_string(self.saga()).unwrap();
        assert_eq!(&serde_json::from_str::<Saga>(&text).unwrap(), self.saga());
        if let Some(advance) = self.story.last.as_ref().and_then(Decision::advance) {
            let text = serde_json::to_string(&advance.events).unwrap();
            assert_eq!(serde_json::from_str::<Vec<Event>>(&text).unwrap(), advance.events);
        }
    }

    fn twice_changes_nothing(&self, input: &OrderSagaMessage) {
        let again = decide(self.story.saga.as_ref(), input, self.story.time);
        if let Some(advance) = again.advance() {
            assert!(advance.effects.is_empty(), "{input:?} twice: {:?}", advance.effects);
            let after = advance
                .events
                .iter()
                .fold(self.story.saga.clone(), |saga, event| evolve(saga, advance.now, event));
            assert_eq!(after, self.story.saga, "{input:?} twice");
        }
    }

    fn what_is_published_agrees(&mut self) {
        for effect in &self.story.published[self.published..] {
            let event = match effect {
                Effect::Event(event) => event,
                Effect::Stock { .. } | Effect::Payment(_) => {
                    self.commands.push(effect.clone());
                    continue;
                }
            };
            let (version, state, is_final) = match event {
                OrderEvent::OrderPlaced(placed) => (placed.version, placed.state, placed.is_final),
                OrderEvent::OrderChanged(changed) => {
                    for stock in &changed.stock {
                        let line = usize::from(stock.line.0);
                        self.held[line] = Some(stock.held);
                        self.ever_held[line] |= stock.held;
                    }
                    (changed.version, changed.state, changed.is_final)
                }
            };
            if let Some((before, ended_as, ended)) = self.public {
                assert_eq!(version, before + 1);
                assert!(!ended || (is_final && state == ended_as), "{ended_as:?} was final");
            }
            self.public = Some((version, state, is_final));
        }
        self.published = self.story.published.len();
        assert_eq!(self.public, Some((self.saga().version, self.saga().state, self.saga().is_final())));
    }

    /// Every state that is not final has a timer or a command under way, or waits for an operator, or is paused; and
    /// what is said to be under way was sent.
    fn something_leads_on(&self) {
        let saga = self.saga();
        let awaited = saga.awaited();
        assert!(
            saga.is_final()
                || saga.timer.is_some()
                || !awaited.is_empty()
                || saga.needs_operator()
                || saga.paused,
            "nothing leads on from {saga:?}"
        );
        for command in awaited {
            let sent = self.story.published.iter().any(|effect| is_current(saga, effect, command));
            assert!(sent || saga.withheld.contains(&command), "{command:?} was never sent: {saga:?}");
        }
        assert!(!saga.is_final() || saga.awaited().is_empty(), "final and waiting: {saga:?}");
    }

    fn happen(&mut self, happening: Happening, script: &Script) {
        self.requests += 1;
        let request = self.requests;
        match happening {
            Happening::Command(pick) => self.deliver_command(pick),
            Happening::RepeatCommand(pick) => {
                if let Some(command) = picked(&self.old_commands, pick).cloned() {
                    self.carry_out(&command);
                }
            }
            Happening::Reply(pick) => self.deliver_reply(pick),
            Happening::RepeatReply(pick) => {
                if let Some(reply) = picked(&self.old_replies, pick).cloned() {
                    self.input(reply);
                }
            }
            Happening::Quiet => self.quiet(),
            Happening::Timer => self.fire(),
            Happening::EarlyTimer => {
                if self.saga().timer.is_some() {
                    self.input(self.story.armed().into());
                }
            }
            Happening::OldTimer(pick) => {
                if let Some(timer) = picked(&self.old_timers, pick).cloned() {
                    self.input(timer.into());
                }
            }
            Happening::Time(seconds) => {
                self.story.time = self.story.time.plus(Duration::from_secs(u64::from(seconds) * 20));
            }
            Happening::Pay => self.input(pay(request)),
            Happening::Cancel => self.input(cancel(request)),
            Happening::Return => self.input(give_back(request)),
            Happening::RepeatOrder => self.input(self.order(script)),
            Happening::Pause => self.input(pause(request)),
            Happening::Resume => self.input(resume(request)),
            Happening::Retry(pick) => {
                if let Some(command) = picked(&self.saga().awaited(), pick).copied() {
                    self.input(retry(request, command.step, command.line.map(|line| line.0)));
                }
            }
            Happening::Skip(settled) => {
                for step in [StepName::Charge, StepName::Close, StepName::Refund, StepName::Release] {
                    self.requests += 1;
                    self.input(skip(self.requests, step, None, settled.then_some("by hand")));
                }
            }
            Happening::Compensate => self.input(compensate(request)),
        }
    }

    fn deliver_command(&mut self, pick: u8) {
        if !self.commands.is_empty() {
            let command = self.commands.remove(usize::from(pick) % self.commands.len());
            self.carry_out(&command);
            self.old_commands.push(command);
        }
    }

    fn carry_out(&mut self, command: &Effect) {
        self.replies.extend(self.participants.carry_out(command));
    }

    fn deliver_reply(&mut self, pick: u8) {
        if !self.replies.is_empty() {
            let reply = self.replies.remove(usize::from(pick) % self.replies.len());
            self.old_replies.push(reply.clone());
            self.input(reply);
        }
    }

    fn fire(&mut self) {
        if self.saga().timer.is_some() {
            let timer = self.story.armed();
            self.story.time = self.story.time.max(timer.due_at);
            self.input(timer.into());
        }
    }

    fn quiet(&mut self) {
        while !self.commands.is_empty() || !self.replies.is_empty() {
            self.deliver_command(0);
            self.deliver_reply(0);
        }
    }

    /// Everything is answered, operators do their work, time passes, until nothing more can happen.
    fn drain(&mut self) {
        for _ in 0..300 {
            self.quiet();
            if self.saga().is_final() {
                return;
            }
            self.requests += 1;
            if self.saga().paused {
                self.input(resume(self.requests));
            } else if let Some(command) = self.saga().awaited().first().copied() {
                let by_hand =
                    self.saga().payment.as_ref().is_some_and(|payment| payment.settled_by.is_some());
                if by_hand && command.step == StepName::Refund {
                    self.input(skip(self.requests, command.step, None, Some("by hand")));
                } else {
                    self.input(retry(self.requests, command.step, command.line.map(|line| line.0)));
                }
            } else if self.returns && self.saga().state == OrderState::Delivered {
                self.input(give_back(self.requests));
            } else {
                self.fire();
            }
        }
        panic!("it never ends: {:?}", self.saga());
    }

    fn balanced(&self) {
        let saga = self.saga();
        let kept = saga.state == OrderState::Delivered;
        for (number, line) in saga.lines.iter().enumerate() {
            let units = if kept { line.quantity.get() } else { 0 };
            let (held, sold) = self.participants.units(number);
            assert_eq!((held, sold), (0, units), "line {number} of {saga:?}");
            let published = self.held[number].unwrap_or(false);
            assert_eq!(published, kept, "what is published about line {number} of {saga:?}");
            let knew = self.ever_held[number];
            assert_eq!(knew, self.participants.ever_held(number), "line {number} was held: {saga:?}");
        }
        let settled = saga.payment.as_ref().is_some_and(|payment| payment.settled_by.is_some());
        if !settled {
            let money = if kept { saga.amount.amount } else { 0 };
            assert_eq!(self.participants.taken(), money, "{saga:?}");
        }
    }
}

fn picked<T>(items: &[T], pick: u8) -> Option<&T> {
    items.get(usize::from(pick).checked_rem(items.len())?)
}

fn is_current(saga: &Saga, effect: &Effect, command: CommandRef) -> bool {
    match effect {
        Effect::Stock { command: sent, .. } => {
            let (step, line, attempt) = match sent {
                StockCommand::ReserveStock(sent) => (StepName::Reserve, sent.line, sent.attempt),
                StockCommand::ConfirmStock(sent) => (StepName::Confirm, sent.line, sent.attempt),
                StockCommand::ReleaseStock(sent) => (StepName::Release, sent.line, sent.attempt),
                StockCommand::RestockStock(sent) => (StepName::Restock, sent.line, sent.attempt),
                StockCommand::DefineProduct(_) | StockCommand::ChangeStock(_) => return false,
            };
            command == CommandRef { step, line: Some(line) }
                && saga.line(line).is_some_and(|line| line.attempt == attempt)
        }
        Effect::Payment(sent) => {
            let (step, attempt) = participants::payment_step(sent);
            command == CommandRef { step, line: None }
                && saga.payment.as_ref().is_some_and(|payment| payment.attempt == attempt)
        }
        Effect::Event(_) => false,
    }
}

proptest! {
    #![proptest_config(Config { cases: 2_500, failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_order_of_replies_repeats_timers_and_requests_ends_balanced(
        script in script(),
        happenings in proptest::collection::vec(happening(), 0..60),
    ) {
        let mut world = World::new(&script);
        for happening in happenings {
            world.happen(happening, &script);
        }
        world.drain();
        world.balanced();
    }
}

/// Guards the property above against a world in which nothing interesting happens.
#[test]
fn the_world_reaches_every_final_state() {
    use std::collections::BTreeSet;

    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let strategy = (script(), proptest::collection::vec(happening(), 0..60));
    let mut reached = BTreeSet::new();
    for _ in 0..1_000 {
        let (script, happenings) = strategy.new_tree(&mut runner).unwrap().current();
        let mut world = World::new(&script);
        for happening in happenings {
            world.happen(happening, &script);
        }
        world.drain();
        world.balanced();
        reached.insert(world.saga().state);
    }
    let all = [
        OrderState::Delivered,
        OrderState::Cancelled,
        OrderState::Returned,
        OrderState::Rejected,
        OrderState::PaymentFailed,
        OrderState::Expired,
    ];
    assert_eq!(reached, BTreeSet::from(all));
}
