//! Good orders, placed straight onto `order-saga`, and how long they take.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use domain_types::{Currency, CustomerId, MessageId, Money, OrderId, Quantity, Sku, Timestamp};
use messaging::{Cluster, Output, Publisher, TailFrom};
use schemas::{
    Envelope, OrderEvent, OrderSagaMessage, OrderState, OrderedLine, PaymentMethod, PlaceOrder, Policy,
    SAGA_DEFINITION, Topic,
};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// How long nothing may happen before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Orders that may be under way at once.
const IN_FLIGHT: usize = 1_000;
/// No order here comes too late: the year 2100.
const FAR_AWAY: Timestamp = Timestamp::from_millis(4_102_444_800_000);

/// An envelope of nobody's message.
pub(crate) fn envelope<M>(order_id: Option<OrderId>, message: impl Into<M>) -> Envelope<M> {
    Envelope {
        message_id: MessageId(Uuid::new_v4()),
        order_id,
        causation_id: None,
        occurred_at: Timestamp::from_millis(0),
        message: message.into(),
    }
}

/// A `PlaceOrder` for one unit; without a method it waits for a payment.
pub(crate) fn place(order: OrderId, customer_id: CustomerId, sku: &Sku, method: Option<&str>) -> Output {
    let line = OrderedLine {
        sku: sku.clone(),
        name: "poison".to_owned(),
        option: None,
        unit_price: Money::new(1_000, Currency::KRW),
        quantity: Quantity::new(1).unwrap(),
        product_version: 1,
        ticket: None,
    };
    let message = PlaceOrder {
        customer_id,
        lines: vec![line],
        payment_method: method.map(|method| PaymentMethod(method.to_owned())),
        fingerprint: "poison".to_owned(),
        publish_before: FAR_AWAY,
        policy: Some(Policy { pay_within_ms: 86_400_000, ..Policy::default() }),
        definition: SAGA_DEFINITION,
    };
    let envelope = envelope::<OrderSagaMessage>(Some(order), message);
    Output::new(Topic::OrderSaga, order.to_string(), &envelope)
}

/// Places orders and hears on `order-events` how they end.
pub(crate) struct Shop {
    publisher: Publisher,
    skus: Vec<Sku>,
    /// Orders that were paid, or wait for their payment.
    heard: mpsc::UnboundedReceiver<OrderId>,
    _stop: DropGuard,
}

impl Shop {
    pub(crate) async fn open(kafka: &str, skus: Vec<Sku>) -> Self {
        let cluster = Cluster::from(kafka);
        let (sender, heard) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let (listening, token) = (cluster.clone(), stop.clone());
        tokio::spawn(async move {
            let hear = move |record: messaging::Record| {
                let Ok(envelope) = Envelope::<OrderEvent>::decode(&record.value) else { return };
                let is_wanted = match envelope.message {
                    OrderEvent::OrderPlaced(_) => false,
                    OrderEvent::OrderChanged(changed) => {
                        matches!(changed.state, OrderState::Paid | OrderState::AwaitingPayment)
                    }
                };
                if let Some(order) = envelope.order_id.filter(|_| is_wanted) {
                    let _closed = sender.send(order);
                }
            };
            let topic = Topic::OrderEvents.name();
            messaging::tail(listening, topic, TailFrom::End, Duration::ZERO, token, hear).await.unwrap();
        });
        let publisher = Publisher::new(&cluster, "poison").unwrap();
        let mut shop = Self { publisher, skus, heard, _stop: stop.drop_guard() };
        shop.warm().await;
        shop
    }

    /// The tail begins some time after it was asked to: orders are placed until one is heard of.
    async fn warm(&mut self) {
        let began = Instant::now();
        loop {
            self.send(&[self.order(0).1]).await;
            if let Ok(heard) = tokio::time::timeout(Duration::from_secs(1), self.heard.recv()).await {
                heard.unwrap();
                break;
            }
            assert!(began.elapsed() < PATIENCE, "no order is paid");
        }
        self.round(200, &[]).await;
    }

    fn order(&self, number: usize) -> (OrderId, Output) {
        let order = OrderId(Uuid::now_v7());
        let sku = &self.skus[number % self.skus.len()];
        (order, place(order, CustomerId(Uuid::new_v4()), sku, Some("tok_approve")))
    }

    /// Places an order that waits for its payment, and waits until it does.
    pub(crate) async fn waiting(&mut self, order: OrderId, place: Output) {
        self.send(&[place]).await;
        let heard = async { while self.heard.recv().await.unwrap() != order {} };
        tokio::time::timeout(PATIENCE, heard).await.unwrap();
    }

    async fn send(&self, outputs: &[Output]) {
        self.publisher.publish(outputs).await.unwrap();
    }

    /// Places so many good orders, bad records spread evenly among them; how long it took until every good one was paid.
    pub(crate) async fn round(&mut self, orders: usize, bad: &[Output]) -> Duration {
        let began = Instant::now();
        let (mut placed, mut sent_bad, mut under_way) = (0, 0, HashSet::new());
        while placed < orders || !under_way.is_empty() {
            let room = (IN_FLIGHT - under_way.len().min(IN_FLIGHT)).min(orders - placed);
            if room > 0 {
                let mut outputs = Vec::new();
                for number in placed..placed + room {
                    let (order, output) = self.order(number);
                    under_way.insert(order);
                    outputs.push(output);
                }
                placed += room;
                let due = bad.len() * placed / orders;
                outputs.extend(bad[sent_bad..due].iter().cloned());
                sent_bad = due;
                self.send(&outputs).await;
            }
            let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
            let heard = heard.unwrap_or_else(|_| panic!("{} orders are not paid", under_way.len()));
            under_way.remove(&heard.unwrap());
            while let Ok(order) = self.heard.try_recv() {
                under_way.remove(&order);
            }
        }
        began.elapsed()
    }
}
