//! Commands straight onto `order-saga`.

pub(crate) mod paced;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use clap::Args;
use domain_types::{CustomerId, MessageId, OrderId, Quantity, Sku, Timestamp};
use messaging::{Cluster, Output, Publisher};
use schemas::{
    Envelope, OrderSagaMessage, OrderState, OrderedLine, PaymentMethod, PlaceOrder, SAGA_DEFINITION, Topic,
};
use serde::Serialize;
use uuid::Uuid;

use crate::catalogue::{PLENTY, PRICE, define};
use crate::endpoints::Endpoints;
use crate::latency::{Figures, Latency};
use crate::machine::{Processes, Usage};
use crate::watch::{Watch, watch};

/// How long nothing may happen before the run is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// No order here comes too late: the year 2100.
const FAR_AWAY: Timestamp = Timestamp::from_millis(4_102_444_800_000);
/// Orders that warm everything up and are not counted.
const WARM_UP: usize = 200;

/// `load-test sagas`
#[derive(Debug, Args)]
pub(crate) struct Closed {
    /// Orders to place.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) orders: usize,
    /// Orders that may be under way at once.
    #[arg(long, default_value_t = 4_000)]
    pub(crate) in_flight: usize,
    /// Products they are spread over; 1: one hot product.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) skus: usize,
    /// Of a hundred payments, how many are declined.
    #[arg(long, default_value_t = 10)]
    pub(crate) declined: usize,
    /// Who orders, in turn; nobody: a new customer each time.
    #[arg(skip)]
    pub(crate) customers: Vec<CustomerId>,
}

impl Closed {
    /// The defaults for that many orders of that many products.
    pub(crate) const fn of(orders: usize, skus: usize) -> Self {
        Self { orders, in_flight: 4_000, skus, declined: 10, customers: Vec::new() }
    }
}

/// `load-test idle`
#[derive(Debug, Args)]
pub(crate) struct Idle {
    /// Orders to place, one at a time.
    #[arg(long, default_value_t = 500)]
    pub(crate) orders: usize,
    /// Milliseconds between one order's PAID and the next order: what follows a payment is not to disturb the next.
    /// 0: one right after the other.
    #[arg(long, default_value_t = 50)]
    pub(crate) pause_ms: u64,
}

struct Placed {
    at: Instant,
    wanted: OrderState,
}

/// A customer's `PlaceOrder` for one unit.
fn place(customer_id: CustomerId, sku: &Sku, is_declined: bool) -> anyhow::Result<(OrderId, Output)> {
    let order = OrderId(Uuid::now_v7());
    let method = if is_declined { "tok_decline" } else { "tok_approve" };
    let envelope = Envelope::<OrderSagaMessage> {
        message_id: MessageId(Uuid::new_v4()),
        order_id: Some(order),
        causation_id: None,
        occurred_at: Timestamp::from_millis(0),
        message: PlaceOrder {
            customer_id,
            lines: vec![OrderedLine {
                sku: sku.clone(),
                name: "load".to_owned(),
                option: None,
                unit_price: PRICE,
                quantity: Quantity::new(1)?,
                product_version: 1,
                ticket: None,
            }],
            payment_method: Some(PaymentMethod(method.to_owned())),
            fingerprint: "load".to_owned(),
            publish_before: FAR_AWAY,
            policy: None,
            definition: SAGA_DEFINITION,
        }
        .into(),
    };
    Ok((order, Output::new(Topic::OrderSaga, order.to_string(), &envelope)))
}

struct Run {
    publisher: Publisher,
    watch: Watch,
    skus: Vec<Sku>,
    customers: Vec<CustomerId>,
    under_way: HashMap<OrderId, Placed>,
    /// Latencies of orders before this instant do not count.
    since: Instant,
    latency: Latency,
    wrong: usize,
}

impl Run {
    async fn prepare(cluster: &Cluster, skus: usize) -> anyhow::Result<Self> {
        let publisher = Publisher::new(cluster, "load-test")?;
        let skus = define(cluster, &publisher, skus, PLENTY).await?;
        let watch = watch(cluster);
        let mut run = Self {
            publisher,
            watch,
            skus,
            customers: Vec::new(),
            under_way: HashMap::new(),
            since: Instant::now(),
            latency: Latency::default(),
            wrong: 0,
        };
        // The watch begins at the end of the log, some time after it was asked to: an order that it misses is
        // placed again by the next round.
        let warm = Instant::now();
        while run.latency.figures().tries == 0 {
            anyhow::ensure!(warm.elapsed() < PATIENCE, "no order was paid within {PATIENCE:?}");
            run.place_many(0..1, 0, |_number| Instant::now()).await?;
            let heard = tokio::time::timeout(Duration::from_secs(1), run.watch.ended.recv()).await;
            if let Ok(Some(ended)) = heard {
                run.ended(&ended);
            }
        }
        run.closed(WARM_UP, 20, 10).await?;
        run.under_way.clear();
        run.latency = Latency::default();
        run.wrong = 0;
        Ok(run)
    }

    async fn place_many(
        &mut self,
        numbers: Range<usize>,
        declined: usize,
        at: impl Fn(usize) -> Instant,
    ) -> anyhow::Result<()> {
        let mut outputs = Vec::with_capacity(numbers.len());
        for number in numbers {
            let is_declined = number % 100 < declined;
            // Spread by a step that has no common factor with the number of products.
            let sku = self.skus.get(number.wrapping_mul(7_919) % self.skus.len());
            let sku = sku.ok_or_else(|| anyhow::anyhow!("no product"))?;
            let customer = number.checked_rem(self.customers.len()).and_then(|nth| self.customers.get(nth));
            let customer = customer.copied().unwrap_or_else(|| CustomerId(Uuid::new_v4()));
            let (order, output) = place(customer, sku, is_declined)?;
            let wanted = if is_declined { OrderState::PaymentFailed } else { OrderState::Paid };
            self.under_way.insert(order, Placed { at: at(number), wanted });
            outputs.push(output);
        }
        Ok(self.publisher.publish(&outputs).await?)
    }

    fn ended(&mut self, ended: &crate::watch::Ended) {
        if let Some(placed) = self.under_way.remove(&ended.order) {
            if placed.at >= self.since {
                self.latency.record(ended.at.saturating_duration_since(placed.at));
            }
            self.wrong += usize::from(placed.wanted != ended.state);
        }
    }

    /// Places `orders` with at most `in_flight` under way, and waits for all.
    async fn closed(&mut self, orders: usize, in_flight: usize, declined: usize) -> anyhow::Result<()> {
        let mut placed = 0;
        let before = self.under_way.len();
        while placed < orders || self.under_way.len() > before {
            let room = (in_flight + before).saturating_sub(self.under_way.len()).min(orders - placed);
            if room > 0 {
                self.place_many(placed..placed + room, declined, |_number| Instant::now()).await?;
                placed += room;
            }
            self.hear().await?;
        }
        Ok(())
    }

    /// Places each order at the instant that is its own, whatever became of those before it.
    async fn open(
        &mut self,
        numbers: Range<usize>,
        declined: usize,
        instant: impl Fn(usize) -> Instant,
    ) -> anyhow::Result<()> {
        let mut next = numbers.start;
        while next < numbers.end {
            let now = Instant::now();
            let due = (next..numbers.end).take_while(|number| instant(*number) <= now).count();
            if due > 0 {
                self.place_many(next..next + due, declined, &instant).await?;
                next += due;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep_until(instant(next).into()) => {}
                Some(ended) = self.watch.ended.recv() => self.ended(&ended),
            }
        }
        Ok(())
    }

    /// Waits for the next order to end, and takes in what has ended by then.
    async fn hear(&mut self) -> anyhow::Result<()> {
        let heard = tokio::time::timeout(PATIENCE, self.watch.ended.recv()).await;
        let Ok(Some(ended)) = heard else {
            anyhow::bail!("{} orders did not end within {PATIENCE:?}", self.under_way.len());
        };
        self.ended(&ended);
        while let Ok(ended) = self.watch.ended.try_recv() {
            self.ended(&ended);
        }
        Ok(())
    }

    fn outcome(&self, what: String, took: Duration, orders: usize, usage: Usage) -> Outcome {
        let per_second = u32::try_from(orders).map_or(0.0, f64::from) / took.as_secs_f64();
        Outcome {
            what,
            orders,
            took_s: took.as_secs_f64(),
            per_second,
            latency: self.latency.clone(),
            wrong: self.wrong,
            usage,
        }
    }
}

/// What a run brought.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) what: String,
    pub(crate) orders: usize,
    pub(crate) took_s: f64,
    pub(crate) per_second: f64,
    pub(crate) latency: Latency,
    /// Orders that ended otherwise than their payment says.
    pub(crate) wrong: usize,
    /// From the first order to the last one's end.
    pub(crate) usage: Usage,
}

impl Outcome {
    /// Microseconds of that much CPU per saga.
    fn per_saga(&self, seconds: f64) -> f64 {
        seconds * 1e6 / u32::try_from(self.orders).map_or(1.0, f64::from).max(1.0)
    }

    /// Microseconds of the system's CPU per saga.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.per_saga(self.usage.of_system_s())
    }

    /// The same of each process.
    pub(crate) fn cpu_by_process(&self) -> impl Iterator<Item = (&str, f64)> {
        self.usage.cpu_s.iter().map(|(name, seconds)| (name.as_str(), self.per_saga(*seconds)))
    }

    fn cpu_per_saga(&self) -> String {
        listed(self.cpu_by_process())
    }

    /// The same of each database.
    pub(crate) fn cpu_by_database(&self) -> impl Iterator<Item = (&str, f64)> {
        self.usage.postgres_s.iter().map(|(name, seconds)| (name.as_str(), self.per_saga(*seconds)))
    }
}

fn listed<'a>(named: impl Iterator<Item = (&'a str, f64)>) -> String {
    named.map(|(name, us)| format!("{name} {us:.0}")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { p50, p95, p99, .. } = self.latency.figures();
        writeln!(f, "{}: {} orders in {:.2} s", self.what, self.orders, self.took_s)?;
        writeln!(f, "  sagas/s   {:.0}", self.per_second)?;
        writeln!(f, "  latency   p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms")?;
        writeln!(f, "  CPU, us per saga: {}; idle {:.0} %", self.cpu_per_saga(), self.usage.idle * 100.0)?;
        writeln!(f, "  of it PostgreSQL: {}", listed(self.cpu_by_database()))?;
        write!(f, "  ended otherwise than their payment says: {}", self.wrong)
    }
}

pub(crate) async fn closed(endpoints: &Endpoints, options: &Closed) -> anyhow::Result<Outcome> {
    let mut run = Run::prepare(&endpoints.cluster(), options.skus.max(1)).await?;
    run.customers.clone_from(&options.customers);
    let processes = Processes::of(&endpoints.home);
    let (begun, before) = (Instant::now(), processes.begin());
    run.closed(options.orders, options.in_flight.max(1), options.declined).await?;
    let what = format!("complete sagas, {} in flight, {} skus", options.in_flight, run.skus.len());
    let (took, usage) = (begun.elapsed(), processes.end(&before));
    Ok(run.outcome(what, took, options.orders, usage))
}

pub(crate) async fn idle(endpoints: &Endpoints, options: &Idle) -> anyhow::Result<Outcome> {
    let mut run = Run::prepare(&endpoints.cluster(), 1).await?;
    let processes = Processes::of(&endpoints.home);
    let (begun, before) = (Instant::now(), processes.begin());
    for _order in 0..options.orders {
        run.closed(1, 1, 0).await?;
        tokio::time::sleep(Duration::from_millis(options.pause_ms)).await;
    }
    let what = "one order at a time, PlaceOrder produced to PAID consumed".to_owned();
    let (took, usage) = (begun.elapsed(), processes.end(&before));
    Ok(run.outcome(what, took, options.orders, usage))
}
