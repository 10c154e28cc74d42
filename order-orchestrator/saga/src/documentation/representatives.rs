//! States as the saga really reaches them, and every input as it would come then.

use domain_types::{Attempt, Currency, CustomerId, LineNumber, Money, Quantity, RequestId, Sku, Timestamp};
use schemas::{
    CancelOrder, CompensateSaga, DeclineReason, OrderSagaMessage, OrderedLine, PauseSaga, PayOrder,
    PaymentApproved, PaymentClosed, PaymentCommandFailed, PaymentCommandKind, PaymentDeclined, PaymentMethod,
    PaymentRefunded, PlaceOrder, ReserveRefusal, ResumeSaga, RetryStep, ReturnOrder, SAGA_DEFINITION,
    SkipStep, StepName, StockCommandFailed, StockCommandKind, StockConfirmed, StockRefused, StockReleased,
    StockReserved, StockRestocked, TimerFired, TimerName,
};
use uuid::Uuid;

use crate::decide::fold;
use crate::state::{LineStage, PaymentStage, Saga};

const FIRST: LineNumber = LineNumber(0);
const SECOND: LineNumber = LineNumber(1);
const ATTEMPT: Attempt = Attempt::FIRST;
const START: Timestamp = Timestamp::from_millis(1_000_000);
const BUYER: CustomerId = CustomerId(Uuid::from_u128(1));

/// A state with a name.
pub(super) struct Representative {
    pub(super) name: &'static str,
    pub(super) saga: Option<Saga>,
}

/// What moves a story on.
enum Then {
    Input(OrderSagaMessage),
    /// Its timer, when it is due.
    Timer,
}

/// All representative states, in the order of a story.
pub(super) fn representatives() -> Vec<Representative> {
    use Then::{Input, Timer};
    let row = |name, story: Vec<Then>| Representative { name, saga: after(story) };
    let reserving = || vec![Input(place(false))];
    let one_held = || vec![Input(place(false)), Input(held(SECOND))];
    let awaiting = || vec![Input(place(false)), Input(held(SECOND)), Input(held(FIRST))];
    let charging = || vec![Input(place(true)), Input(held(SECOND)), Input(held(FIRST))];
    let and = |story: Vec<Then>, more: Vec<Then>| story.into_iter().chain(more).collect::<Vec<_>>();
    let paid = || and(charging(), vec![Input(approved())]);
    let confirm_failed = || and(paid(), vec![Input(stock_failed(LineStage::Confirming))]);
    let delivered = || and(paid(), vec![Timer, Timer]);
    let returned = || and(delivered(), vec![Input(request_return()), Timer]);
    let back = || vec![Input(restocked(FIRST)), Input(restocked(SECOND))];
    let gone = || vec![Input(released(SECOND)), Input(released(FIRST))];
    vec![
        Representative { name: "(no order)", saga: None },
        row("RESERVING", one_held()),
        row("RESERVING, paid at once", vec![Input(place(true)), Input(held(SECOND))]),
        row("RESERVING, paused", and(one_held(), vec![Input(pause())])),
        row("AWAITING_PAYMENT", awaiting()),
        row("CHARGING", charging()),
        row("CHARGING, outcome unknown", and(charging(), vec![Input(unknown(PaymentCommandKind::Charge))])),
        row("PAID", paid()),
        row("PAID, confirm failed", confirm_failed()),
        row("SHIPPED", and(paid(), vec![Timer])),
        row("DELIVERED", delivered()),
        row("DELIVERED, asking", and(delivered(), vec![Timer, Input(sold(SECOND))])),
        row("DELIVERED, final", and(delivered(), vec![Timer, Input(sold(SECOND)), Input(sold(FIRST))])),
        row("RETURN_REQUESTED", and(delivered(), vec![Input(request_return())])),
        row("COMPENSATING (sold_out), releasing", and(reserving(), vec![Input(refused(SECOND))])),
        row(
            "COMPENSATING (declined), releasing",
            and(charging(), vec![Input(declined()), Input(released(SECOND))]),
        ),
        row("COMPENSATING (expired), closing", and(and(charging(), vec![Timer]), gone())),
        row(
            "COMPENSATING (expired), closing, needs_operator",
            and(and(charging(), vec![Timer, Input(unknown(PaymentCommandKind::Close))]), gone()),
        ),
        row(
            "COMPENSATING (cancelled), restocking",
            and(paid(), vec![Input(cancel()), Input(refunded()), Input(restocked(SECOND))]),
        ),
        row("COMPENSATING (returned), refunding", and(returned(), back())),
        row(
            "COMPENSATING (returned), refunding, needs_operator",
            and(and(returned(), back()), vec![Input(unknown(PaymentCommandKind::Refund))]),
        ),
        row("CANCELLED", and(and(awaiting(), vec![Input(cancel())]), gone())),
        row("RETURNED", and(and(returned(), back()), vec![Input(refunded())])),
        row("REJECTED", and(reserving(), vec![Input(refused(SECOND)), Input(released(FIRST))])),
        row("PAYMENT_FAILED", and(and(charging(), vec![Input(declined())]), gone())),
        row("EXPIRED", and(and(awaiting(), vec![Timer]), gone())),
    ]
}

fn after(story: Vec<Then>) -> Option<Saga> {
    story.into_iter().fold(None, |saga: Option<Saga>, then| {
        let (input, time) = match then {
            Then::Input(input) => (input, START),
            Then::Timer => due(saga.as_ref()),
        };
        fold(saga, &input, time).0
    })
}

/// Every input as it would come in this state, with its log time.
pub(super) fn inputs(from: &Representative) -> Vec<(&'static str, OrderSagaMessage, Timestamp)> {
    let saga = from.saga.as_ref();
    let now = saga.map_or(START, |saga| saga.now);
    let stage = saga.and_then(|saga| saga.line(FIRST)).map_or(LineStage::Reserving, |line| line.stage);
    let payment = saga.and_then(|saga| saga.payment.as_ref()).map(|payment| payment.stage);
    let (timer, due_at) = due(saga);
    let awaited = saga.and_then(|saga| saga.awaited().first().copied());
    let (retried, line) =
        awaited.map_or((StepName::Reserve, Some(FIRST)), |command| (command.step, command.line));
    let mut inputs = vec![("PlaceOrder", place(false), now)];
    if saga.is_none() {
        inputs.push(("PlaceOrder (late)", place(false), START.plus(std::time::Duration::from_secs(31))));
    } else {
        inputs.push(("PlaceOrder (late)", place(false), now));
    }
    let mut add = |name, input| inputs.push((name, input, now));
    add("PayOrder", pay());
    add("CancelOrder", CancelOrder { request_id: request(4), customer_id: BUYER }.into());
    add("ReturnOrder", ReturnOrder { request_id: request(5), customer_id: BUYER }.into());
    add("StockReserved", held(FIRST));
    add("StockRefused", refused(FIRST));
    let tried = saga.and_then(|saga| saga.line(FIRST)).map_or(ATTEMPT, |line| line.attempt);
    add("StockConfirmed", StockConfirmed { line: FIRST, attempt: tried, stock_version: 3 }.into());
    add("StockReleased", released(FIRST));
    add("StockRestocked", restocked(FIRST));
    add("StockCommandFailed", stock_failed(stage));
    add("PaymentApproved", approved());
    add("PaymentDeclined", declined());
    add("PaymentClosed", PaymentClosed { attempt: ATTEMPT }.into());
    add("PaymentRefunded", refunded());
    add(
        "PaymentCommandFailed",
        unknown(match payment {
            Some(PaymentStage::Closing) => PaymentCommandKind::Close,
            Some(PaymentStage::Refunding | PaymentStage::Refunded) => PaymentCommandKind::Refund,
            Some(
                PaymentStage::Chosen
                | PaymentStage::Charging
                | PaymentStage::Approved
                | PaymentStage::Declined(_)
                | PaymentStage::Closed,
            )
            | None => PaymentCommandKind::Charge,
        }),
    );
    let (request_id, operator, reason) = asked(11);
    add("PauseSaga", PauseSaga { request_id, operator, reason }.into());
    let (request_id, operator, reason) = asked(7);
    add("ResumeSaga", ResumeSaga { request_id, operator, reason }.into());
    let (request_id, operator, reason) = asked(8);
    add("RetryStep", RetryStep { request_id, operator, reason, step: retried, line }.into());
    let step = payment.and_then(PaymentStage::awaits).unwrap_or(StepName::Refund);
    let settled_by = Some("reference".to_owned());
    let (request_id, operator, reason) = asked(9);
    add("SkipStep", SkipStep { request_id, operator, reason, step, line: None, settled_by }.into());
    let (request_id, operator, reason) = asked(10);
    add("CompensateSaga", CompensateSaga { request_id, operator, reason }.into());
    inputs.push(("TimerFired", timer, due_at));
    inputs
}

/// The saga's timer, when it is due.
fn due(saga: Option<&Saga>) -> (OrderSagaMessage, Timestamp) {
    let (timer, due_at) =
        saga.and_then(|saga| saga.timer).map_or((TimerName::Ship, START), |timer| (timer.name, timer.due_at));
    (TimerFired { timer, due_at }.into(), due_at)
}

fn place(pay_at_once: bool) -> OrderSagaMessage {
    let line = |sku: &str| {
        let (sku, quantity) = (Sku::new(sku).ok()?, Quantity::new(1).ok()?);
        let unit_price = Money::new(1_000, Currency::KRW);
        Some(OrderedLine {
            sku,
            name: "name".into(),
            option: None,
            unit_price,
            quantity,
            product_version: 1,
            ticket: None,
        })
    };
    PlaceOrder {
        customer_id: BUYER,
        lines: ["A", "B"].into_iter().filter_map(line).collect(),
        payment_method: pay_at_once.then(|| PaymentMethod("tok_approve".into())),
        fingerprint: "fingerprint".into(),
        publish_before: START.plus(std::time::Duration::from_secs(30)),
        policy: None,
        definition: SAGA_DEFINITION,
    }
    .into()
}

fn request(number: u128) -> RequestId {
    RequestId(Uuid::from_u128(number))
}

fn asked(number: u128) -> (RequestId, String, String) {
    (request(number), "operator".into(), "why".into())
}

fn pay() -> OrderSagaMessage {
    PayOrder { request_id: request(1), customer_id: BUYER, method: PaymentMethod("tok_approve".into()) }
        .into()
}

fn cancel() -> OrderSagaMessage {
    CancelOrder { request_id: request(2), customer_id: BUYER }.into()
}

fn request_return() -> OrderSagaMessage {
    ReturnOrder { request_id: request(3), customer_id: BUYER }.into()
}

fn pause() -> OrderSagaMessage {
    let (request_id, operator, reason) = asked(6);
    PauseSaga { request_id, operator, reason }.into()
}

fn held(line: LineNumber) -> OrderSagaMessage {
    StockReserved { line, attempt: ATTEMPT, stock_version: 2 }.into()
}

fn refused(line: LineNumber) -> OrderSagaMessage {
    StockRefused { line, attempt: ATTEMPT, reason: ReserveRefusal::SoldOut, stock_version: 2 }.into()
}

/// The answer to the confirm that is sent again when the return window is closed.
fn sold(line: LineNumber) -> OrderSagaMessage {
    StockConfirmed { line, attempt: ATTEMPT.next(), stock_version: 3 }.into()
}

fn released(line: LineNumber) -> OrderSagaMessage {
    StockReleased { line, attempt: ATTEMPT, units: 1, stock_version: 4 }.into()
}

fn restocked(line: LineNumber) -> OrderSagaMessage {
    StockRestocked { line, attempt: ATTEMPT, units: 1, stock_version: 5 }.into()
}

fn stock_failed(stage: LineStage) -> OrderSagaMessage {
    let command = match stage {
        LineStage::Reserving | LineStage::Held | LineStage::Refused => StockCommandKind::Reserve,
        LineStage::Confirming | LineStage::Sold => StockCommandKind::Confirm,
        LineStage::Releasing | LineStage::Released => StockCommandKind::Release,
        LineStage::Restocking | LineStage::Restocked => StockCommandKind::Restock,
    };
    StockCommandFailed { line: FIRST, command, attempt: ATTEMPT, code: "impossible".into() }.into()
}

fn approved() -> OrderSagaMessage {
    PaymentApproved { attempt: ATTEMPT, amount: Money::new(2_000, Currency::KRW), reference: "ref".into() }
        .into()
}

fn declined() -> OrderSagaMessage {
    PaymentDeclined { attempt: ATTEMPT, reason: DeclineReason::Declined }.into()
}

fn refunded() -> OrderSagaMessage {
    PaymentRefunded { attempt: ATTEMPT, amount: Money::new(2_000, Currency::KRW), reference: "ref".into() }
        .into()
}

fn unknown(command: PaymentCommandKind) -> OrderSagaMessage {
    PaymentCommandFailed { command, attempt: ATTEMPT, code: "outcome_unknown".into() }.into()
}
