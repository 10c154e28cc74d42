//! Customers, admins and operators.

use domain_types::{Currency, CustomerId, MessageId, Money, OrderId, Quantity, RequestId, Sku, Timestamp};
use messaging::Output;
use saga::{CommandRef, Saga};
use schemas::{
    CancelOrder, ChangeStock, CompensateSaga, ControlMessage, DefineProduct, DiscardParked, Envelope,
    Message, OrderSagaMessage, OrderedLine, PauseSaga, PayOrder, PaymentCommand, PaymentMethod, PlaceOrder,
    Policy, ProductData, ProductKind, RedriveParked, ReplaceParked, ResumeSaga, RetryStep, ReturnOrder,
    SAGA_DEFINITION, StockCommand, Topic,
};

use crate::planted::NEWER;
use crate::provider::DECLINE;
use crate::rng::Rng;
use crate::world::World;

/// An order that a customer placed.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) order_id: OrderId,
    pub(crate) place: PlaceOrder,
    record: Output,
}

/// What is sold, and what was asked for.
#[derive(Debug, Default)]
pub(crate) struct Shop {
    pub(crate) skus: Vec<Sku>,
    pub(crate) orders: Vec<Order>,
    sent: Vec<Output>,
}

fn currency() -> Currency {
    Currency::KRW
}

fn envelope<M>(id: uuid::Uuid, order_id: Option<OrderId>, now_ms: i64, message: M) -> Envelope<M> {
    Envelope {
        message_id: MessageId(id),
        order_id,
        causation_id: None,
        occurred_at: Timestamp::from_millis(now_ms),
        message,
    }
}

/// A message about an order, for its saga.
pub(crate) fn for_saga(world: &mut World, order_id: OrderId, message: OrderSagaMessage) -> Output {
    let id = world.rng.uuid();
    let envelope = envelope(id, Some(order_id), world.now_ms, message);
    Output::new(Topic::OrderSaga, order_id.to_string(), &envelope)
}

pub(crate) fn request_id(rng: &mut Rng) -> RequestId {
    RequestId(rng.uuid())
}

fn sku(number: usize) -> Option<Sku> {
    Sku::new(format!("SKU-{number}")).ok()
}

/// An operator drops a first command that can't be carried out: the saga's deadline takes everything back. No other
/// command can be dropped without somebody who finishes its order by hand.
fn gives_up(world: &mut World, topic: Topic, head: &messaging::Parking) -> bool {
    let place = (topic, head.record.partition, head.record.offset.0);
    let value = &head.record.value;
    let is_first = match topic {
        Topic::StockCommands => Envelope::<StockCommand>::decode(value)
            .is_ok_and(|envelope| matches!(envelope.message, StockCommand::ReserveStock(_))),
        Topic::PaymentCommands => Envelope::<PaymentCommand>::decode(value)
            .is_ok_and(|envelope| matches!(envelope.message, PaymentCommand::ChargePayment(_))),
        Topic::OrderSaga
        | Topic::OrderEvents
        | Topic::StockEvents
        | Topic::StockLevels
        | Topic::DeadLetters => false,
    };
    let drops = is_first && (world.discarded.contains(&place) || world.rng.per_mille(800));
    if drops && world.discarded.insert(place) && world.rng.per_mille(800) {
        world.repeat_record(topic, &head.record);
    }
    drops
}

impl Shop {
    /// Registers the products.
    pub(crate) fn open(&mut self, world: &mut World) {
        for number in 0..1 + world.rng.below(3) {
            let Some(sku) = sku(number) else { continue };
            let units = u32::try_from(world.rng.between(1, 6)).ok();
            self.skus.push(sku.clone());
            self.define(world, sku, units);
        }
    }

    fn define(&mut self, world: &mut World, sku: Sku, initial_stock: Option<u32>) {
        let limit = world.rng.per_mille(300).then_some(2);
        let product = ProductData {
            name: sku.to_string(),
            option: None,
            category: "records".to_owned(),
            kind: ProductKind::Limited,
            price: Money::new(1_000, currency()),
            sale: None,
            limit_per_customer: limit,
        };
        let request_id = request_id(&mut world.rng);
        let define = DefineProduct { request_id, sku: sku.clone(), product, initial_stock };
        self.send_admin(world, &sku, request_id, define.into());
    }

    fn send_admin(&mut self, world: &mut World, sku: &Sku, request_id: RequestId, command: StockCommand) {
        let id = world.rng.uuid();
        let envelope = envelope(id, None, world.now_ms, command);
        let output = Output::new(Topic::StockCommands, sku.as_str(), &envelope).parking_key(request_id);
        self.send(world, output);
    }

    fn send(&mut self, world: &mut World, output: Output) {
        world.send(0, std::slice::from_ref(&output));
        self.sent.push(output);
    }

    /// Somebody does something.
    pub(crate) fn act(&mut self, world: &mut World, most_orders: usize) {
        if self.orders.len() < most_orders && world.rng.per_mille(600) {
            return self.place(world);
        }
        let requests = world.mix.requests;
        match world.rng.below(10) {
            0 => {
                if let Some(output) = world.rng.pick(&self.sent).cloned() {
                    world.tell(|| "a sender repeats itself".to_owned());
                    world.send(0, &[output]);
                }
            }
            1 => self.administrate(world),
            _ if world.rng.per_mille(requests) => self.ask(world),
            _ => {}
        }
    }

    fn administrate(&mut self, world: &mut World) {
        let Some(sku) = world.rng.pick(&self.skus).cloned() else { return };
        if world.rng.per_mille(300) {
            return self.define(world, sku, None);
        }
        let request_id = request_id(&mut world.rng);
        let quantity = world.rng.between(-3, 3);
        let change = ChangeStock { request_id, sku: sku.clone(), quantity, reason: "count".to_owned() };
        self.send_admin(world, &sku, request_id, change.into());
    }

    fn place(&mut self, world: &mut World) {
        let order_id = OrderId(world.rng.uuid());
        let customer = world.rng.below(3);
        let customer_id = CustomerId(uuid::Uuid::from_u128(0xc000 + customer as u128));
        let mut skus = self.skus.clone();
        if world.rng.per_mille(30) {
            skus.extend(sku(9));
        }
        let wanted: Vec<&Sku> = skus.iter().filter(|_| world.rng.per_mille(600)).collect();
        let wanted = if wanted.is_empty() { skus.iter().take(1).collect() } else { wanted };
        let lines = wanted
            .into_iter()
            .filter_map(|sku| {
                Some(OrderedLine {
                    sku: sku.clone(),
                    name: sku.to_string(),
                    option: None,
                    unit_price: Money::new(1_000, currency()),
                    quantity: Quantity::new(u32::try_from(world.rng.between(1, 2)).ok()?).ok()?,
                    product_version: 1,
                    ticket: None,
                })
            })
            .collect();
        let method = if world.rng.per_mille(250) { DECLINE } else { "tok_approve" };
        let millis = |low, high, world: &mut World| world.rng.between(low, high).unsigned_abs();
        let policy = Policy {
            day_ms: millis(500, 20_000, world),
            pay_within_ms: millis(300, 15_000, world),
            charge_within_ms: millis(50, 6_000, world),
        };
        let place = PlaceOrder {
            customer_id,
            lines,
            payment_method: world.rng.per_mille(750).then(|| PaymentMethod(method.to_owned())),
            fingerprint: format!("print-{order_id}"),
            publish_before: Timestamp::from_millis(world.now_ms + world.rng.between(20, 30_000)),
            policy: Some(policy),
            definition: if world.rng.per_mille(250) { 1 } else { SAGA_DEFINITION },
        };
        let record = for_saga(world, order_id, place.clone().into());
        self.orders.push(Order { order_id, place, record: record.clone() });
        self.send(world, record);
    }

    /// A customer or an operator asks something of an order.
    fn ask(&mut self, world: &mut World) {
        let Some(Order { order_id, place, record }) = world.rng.pick(&self.orders).cloned() else { return };
        let customer_id = place.customer_id;
        let request_id = request_id(&mut world.rng);
        let (operator, reason) = ("kim".to_owned(), "a look".to_owned());
        let message: OrderSagaMessage = match world.rng.below(9) {
            0 | 1 => {
                let method =
                    PaymentMethod(if world.rng.per_mille(250) { DECLINE } else { "tok_approve" }.to_owned());
                PayOrder { request_id, customer_id, method }.into()
            }
            2 | 3 => CancelOrder { request_id, customer_id }.into(),
            4 => ReturnOrder { request_id, customer_id }.into(),
            5 => PauseSaga { request_id, operator, reason }.into(),
            6 => ResumeSaga { request_id, operator, reason }.into(),
            7 => CompensateSaga { request_id, operator, reason }.into(),
            _ => return self.send(world, record),
        };
        let mut output = for_saga(world, order_id, message);
        if world.mix.poison > 0 && world.rng.per_mille(200) {
            output = output.header(NEWER, "1");
        }
        self.send(world, output);
    }

    /// An operator sends a failed or unanswered command again.
    pub(crate) fn retry(&mut self, world: &mut World, order_id: OrderId, command: CommandRef) {
        let retry = RetryStep {
            request_id: request_id(&mut world.rng),
            operator: "kim".to_owned(),
            reason: "again".to_owned(),
            step: command.step,
            line: command.line,
        };
        let output = for_saga(world, order_id, retry.into());
        self.send(world, output);
    }

    /// An operator lets a saga go on.
    pub(crate) fn resume(&mut self, world: &mut World, order_id: OrderId) {
        let resume = ResumeSaga {
            request_id: request_id(&mut world.rng),
            operator: "kim".to_owned(),
            reason: "enough".to_owned(),
        };
        let output = for_saga(world, order_id, resume.into());
        self.send(world, output);
    }

    /// At random, an operator retries a step that waits for its answer.
    pub(crate) fn retry_some<'a>(
        &mut self,
        world: &mut World,
        sagas: impl Iterator<Item = (OrderId, &'a Saga)>,
    ) {
        let waiting: Vec<(OrderId, CommandRef)> = sagas
            .flat_map(|(order_id, saga)| saga.awaited().into_iter().map(move |command| (order_id, command)))
            .collect();
        if let Some((order_id, command)) = world.rng.pick(&waiting).copied() {
            self.retry(world, order_id, command);
        }
    }

    /// Something that nobody can read, or that breaks its contract, lands on a topic.
    pub(crate) fn poison(&mut self, world: &mut World) {
        let Some(order) = world.rng.pick(&self.orders).cloned() else { return };
        let order_id = order.order_id;
        let customer = order.place.customer_id.to_string();
        let line = order.place.lines.first().map(|line| line.sku.to_string()).unwrap_or_default();
        let garbage = match world.rng.below(4) {
            0 => b"{broken".to_vec(),
            1 => br#"{"message_id":"00000000-0000-0000-0000-000000000001","type":"Nonsense","version":9,"occurred_at":"2026-11-21T05:00:00.000Z","data":{}}"#.to_vec(),
            2 => Vec::new(),
            _ => b"[]".to_vec(),
        };
        let (topic, key) = match world.rng.below(4) {
            0 => (Topic::StockCommands, line),
            1 => (Topic::PaymentCommands, customer),
            _ => (Topic::OrderSaga, order_id.to_string()),
        };
        let output = if topic == Topic::OrderSaga && world.rng.per_mille(200) {
            // An order that breaks the contract: it can be read, and is refused as permanently wrong.
            let other = OrderId(world.rng.uuid());
            let place = PlaceOrder { lines: Vec::new(), ..order.place };
            for_saga(world, other, place.into())
        } else {
            Output::raw(topic.name(), key, garbage).parking_key(order_id)
        };
        world.tell(|| format!("poison on {topic:?}"));
        let (partition, offset) = world.append(&output);
        world.poison.insert((topic, partition, offset));
    }

    /// An operator settles parked records of a key: those named. `first` are their offsets in order.
    pub(crate) fn settle(
        &mut self,
        world: &mut World,
        topic: Topic,
        group: &str,
        head: &messaging::Parking,
        offsets: &[i64],
    ) {
        let first = head.record.offset.0;
        let partition = head.record.partition;
        let (operator, reason) = ("kim".to_owned(), "repair".to_owned());
        let (consumer_group, parking_key) = (group.to_owned(), head.key.0.clone());
        let is_poison = world.poison.contains(&(topic, partition, first));
        let message: ControlMessage = if is_poison && topic == Topic::OrderSaga && world.rng.per_mille(300) {
            let pause = head.record.key_str().and_then(|key| key.parse::<OrderId>().ok()).map(|order_id| {
                let customer_id = CustomerId(uuid::Uuid::from_u128(1));
                let request_id = request_id(&mut world.rng);
                for_saga(world, order_id, CancelOrder { request_id, customer_id }.into())
            });
            let value =
                pause.map(|output| String::from_utf8_lossy(output.value()).into_owned()).unwrap_or_default();
            ReplaceParked { consumer_group, parking_key, offset: first, value, operator, reason }.into()
        } else if is_poison || gives_up(world, topic, head) {
            DiscardParked { consumer_group, parking_key, offsets: vec![first], operator, reason }.into()
        } else {
            RedriveParked { consumer_group, parking_key, offsets: offsets.to_vec(), operator, reason }.into()
        };
        let id = world.rng.uuid();
        let kind = message.type_name();
        let envelope = envelope(id, None, world.now_ms, message);
        world.tell(|| format!("an operator sends {kind} for {topic:?}/{partition}@{first}"));
        let key = head.record.key_str().unwrap_or_default().to_owned();
        let output = Output::raw(topic.name(), key, envelope.encode()).control(kind).parking_key(&head.key.0);
        world.send(0, &[output]);
    }
}
