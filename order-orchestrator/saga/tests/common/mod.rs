//! Words to tell an order's story with.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

use std::time::Duration;

use domain_types::{Attempt, Currency, CustomerId, LineNumber, Money, Quantity, RequestId, Sku, Timestamp};
use saga::{Advance, Decision, Effect, IgnoreReason, RefusalCode, Saga, decide, evolve};
use schemas::{
    CancelOrder, CompensateSaga, DeclineReason, Message, OrderChanged, OrderEvent, OrderPlaced,
    OrderSagaMessage, OrderState, OrderedLine, PauseSaga, PayOrder, PaymentApproved, PaymentClosed,
    PaymentCommandFailed, PaymentCommandKind, PaymentDeclined, PaymentMethod, PaymentRefunded, PlaceOrder,
    ReserveRefusal, ResumeSaga, RetryStep, ReturnOrder, SkipStep, StepName, StockCommandFailed,
    StockCommandKind, StockConfirmed, StockRefused, StockReleased, StockReserved, StockRestocked, Ticket,
    TimerFired,
};
use uuid::Uuid;

pub const BUYER: CustomerId = CustomerId(Uuid::from_u128(1));
pub const STRANGER: CustomerId = CustomerId(Uuid::from_u128(2));
pub const START: Timestamp = Timestamp::from_millis(1_795_237_200_000);
pub const PRICE: Money = Money::new(1_000, Currency::KRW);
pub const DAY: Duration = Duration::from_secs(86_400);
pub const FIRST: Attempt = Attempt::FIRST;
pub const SECOND: Attempt = Attempt(2);

pub fn line(number: u8) -> LineNumber {
    LineNumber(number)
}

pub fn request(number: u128) -> RequestId {
    RequestId(Uuid::from_u128(number))
}

pub fn order(lines: u8, method: Option<&str>) -> PlaceOrder {
    let line = |number: u8| OrderedLine {
        sku: Sku::new(format!("SKU-{number}")).unwrap(),
        name: "name".into(),
        option: None,
        unit_price: PRICE,
        quantity: Quantity::new(1 + u32::from(number)).unwrap(),
        product_version: 1,
        ticket: (number == 0).then_some(Ticket { generation: 7, number: 41 }),
    };
    PlaceOrder {
        customer_id: BUYER,
        lines: (0..lines).map(line).collect(),
        payment_method: method.map(|method| PaymentMethod(method.into())),
        fingerprint: "0123456789abcdef-and-more".into(),
        publish_before: START.plus(Duration::from_secs(30)),
        policy: None,
        definition: 1,
    }
}

/// What `order` of that many lines costs.
pub fn price(lines: u8) -> Money {
    Money::new(PRICE.amount * (1..=i64::from(lines)).sum::<i64>(), PRICE.currency)
}

pub fn reserved(number: u8, attempt: Attempt) -> OrderSagaMessage {
    StockReserved { line: line(number), attempt, stock_version: 2 }.into()
}

pub fn refused(number: u8, reason: ReserveRefusal) -> OrderSagaMessage {
    StockRefused { line: line(number), attempt: FIRST, reason, stock_version: 2 }.into()
}

pub fn confirmed(number: u8) -> OrderSagaMessage {
    StockConfirmed { line: line(number), attempt: FIRST, stock_version: 3 }.into()
}

pub fn released(number: u8, attempt: Attempt, units: u32) -> OrderSagaMessage {
    StockReleased { line: line(number), attempt, units, stock_version: 4 }.into()
}

pub fn restocked(number: u8) -> OrderSagaMessage {
    StockRestocked { line: line(number), attempt: FIRST, units: 1, stock_version: 5 }.into()
}

pub fn stock_failed(number: u8, command: StockCommandKind, attempt: Attempt) -> OrderSagaMessage {
    StockCommandFailed { line: line(number), command, attempt, code: "impossible".into() }.into()
}

pub fn approved(attempt: Attempt, amount: Money) -> OrderSagaMessage {
    PaymentApproved { attempt, amount, reference: "provider-1".into() }.into()
}

pub fn declined(reason: DeclineReason) -> OrderSagaMessage {
    PaymentDeclined { attempt: FIRST, reason }.into()
}

pub fn closed(attempt: Attempt) -> OrderSagaMessage {
    PaymentClosed { attempt }.into()
}

pub fn refunded(attempt: Attempt, amount: Money) -> OrderSagaMessage {
    PaymentRefunded { attempt, amount, reference: "provider-2".into() }.into()
}

pub fn payment_failed(command: PaymentCommandKind, attempt: Attempt) -> OrderSagaMessage {
    PaymentCommandFailed { command, attempt, code: "outcome_unknown".into() }.into()
}

pub fn pay(id: u128) -> OrderSagaMessage {
    PayOrder { request_id: request(id), customer_id: BUYER, method: PaymentMethod("tok_approve".into()) }
        .into()
}

pub fn cancel(id: u128) -> OrderSagaMessage {
    CancelOrder { request_id: request(id), customer_id: BUYER }.into()
}

pub fn give_back(id: u128) -> OrderSagaMessage {
    ReturnOrder { request_id: request(id), customer_id: BUYER }.into()
}

pub fn pause(id: u128) -> OrderSagaMessage {
    PauseSaga { request_id: request(id), operator: "kim".into(), reason: "look".into() }.into()
}

pub fn resume(id: u128) -> OrderSagaMessage {
    ResumeSaga { request_id: request(id), operator: "kim".into(), reason: "seen".into() }.into()
}

pub fn retry(id: u128, step: StepName, number: Option<u8>) -> OrderSagaMessage {
    let (operator, reason) = ("kim".into(), "again".into());
    RetryStep { request_id: request(id), operator, reason, step, line: number.map(LineNumber) }.into()
}

pub fn skip(id: u128, step: StepName, number: Option<u8>, settled_by: Option<&str>) -> OrderSagaMessage {
    SkipStep {
        request_id: request(id),
        operator: "kim".into(),
        reason: "by hand".into(),
        step,
        line: number.map(LineNumber),
        settled_by: settled_by.map(Into::into),
    }
    .into()
}

pub fn compensate(id: u128) -> OrderSagaMessage {
    CompensateSaga { request_id: request(id), operator: "kim".into(), reason: "asked".into() }.into()
}

/// One order, told input by input.
pub struct Story {
    pub saga: Option<Saga>,
    pub time: Timestamp,
    pub last: Option<Decision>,
    /// Everything it ever published.
    pub published: Vec<Effect>,
}

impl Story {
    pub fn new() -> Self {
        Self { saga: None, time: START, last: None, published: Vec::new() }
    }

    /// An order of that many lines, placed.
    pub fn placed(lines: u8, method: Option<&str>) -> Self {
        Self::new().then(order(lines, method).into())
    }

    /// ... with all lines held.
    pub fn held(lines: u8, method: Option<&str>) -> Self {
        (0..lines).fold(Self::placed(lines, method), |story, number| story.then(reserved(number, FIRST)))
    }

    pub fn charging(lines: u8) -> Self {
        Self::held(lines, Some("tok_approve"))
    }

    pub fn paid(lines: u8) -> Self {
        let story = Self::charging(lines).then(approved(FIRST, price(lines)));
        (0..lines).fold(story, |story, number| story.then(confirmed(number)))
    }

    pub fn delivered(lines: u8) -> Self {
        Self::paid(lines).timer().timer()
    }

    /// Applies an input now.
    #[must_use]
    pub fn then(mut self, input: OrderSagaMessage) -> Self {
        self.apply(&input);
        self
    }

    pub fn apply(&mut self, input: &OrderSagaMessage) {
        let decision = decide(self.saga.as_ref(), input, self.time);
        if let Some(Advance { now, events, effects }) = decision.advance() {
            for event in events {
                self.saga = evolve(self.saga.take(), *now, event);
            }
            self.published.extend(effects.clone());
        }
        self.last = Some(decision);
    }

    /// Time passes.
    #[must_use]
    pub fn after(mut self, duration: Duration) -> Self {
        self.time = self.time.plus(duration);
        self
    }

    /// The armed timer fires when it is due (or now, if that is later).
    #[must_use]
    pub fn timer(mut self) -> Self {
        let fired = self.armed();
        self.time = self.time.max(fired.due_at);
        self.then(fired.into())
    }

    pub fn armed(&self) -> TimerFired {
        let timer = self.saga().timer.expect("no timer is armed");
        TimerFired { timer: timer.name, due_at: timer.due_at }
    }

    pub fn saga(&self) -> &Saga {
        self.saga.as_ref().expect("no saga")
    }

    pub fn state(&self) -> OrderState {
        self.saga().state
    }

    /// The types of the commands that the last input led to.
    pub fn sent(&self) -> Vec<&'static str> {
        let Some(advance) = self.last.as_ref().and_then(Decision::advance) else { return Vec::new() };
        commands(&advance.effects)
    }

    /// The types of all commands ever sent.
    pub fn all_sent(&self) -> Vec<&'static str> {
        commands(&self.published)
    }

    /// How often a command was sent.
    pub fn count(&self, command: &str) -> usize {
        self.all_sent().into_iter().filter(|name| *name == command).count()
    }

    pub fn last_effects(&self) -> &[Effect] {
        self.last.as_ref().and_then(Decision::advance).map_or(&[], |advance| &advance.effects)
    }

    /// What the last input published about the order.
    pub fn change(&self) -> &OrderChanged {
        self.last_effects()
            .iter()
            .find_map(|effect| match effect {
                Effect::Event(OrderEvent::OrderChanged(change)) => Some(change),
                _ => None,
            })
            .expect("the last input published no change")
    }

    pub fn placed_event(&self) -> &OrderPlaced {
        self.published
            .iter()
            .find_map(|effect| match effect {
                Effect::Event(OrderEvent::OrderPlaced(placed)) => Some(placed),
                _ => None,
            })
            .expect("no OrderPlaced")
    }

    #[track_caller]
    pub fn assert_ignored(&self, reason: IgnoreReason) {
        assert_eq!(self.last, Some(Decision::Ignore(reason)));
    }

    #[track_caller]
    pub fn assert_refused(&self, code: RefusalCode) {
        match &self.last {
            Some(Decision::Refuse(found, _)) => assert_eq!(*found, code),
            other => panic!("not refused: {other:?}"),
        }
        let request = self.change().request.as_ref().expect("a refusal is published");
        assert_eq!(request.code.as_deref(), Some(code.as_str()));
        assert_eq!(request.outcome, schemas::RequestOutcome::Refused);
    }
}

fn commands(effects: &[Effect]) -> Vec<&'static str> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Stock { command, .. } => Some(command.type_name()),
            Effect::Payment(command) => Some(command.type_name()),
            Effect::Event(_) => None,
        })
        .collect()
}
