//! The scripts that run in Redis, and what they say. All keys of a sku share a hash tag, so that they are on one node of
//! a cluster. Every effect is by order id: a script that is run again changes nothing more.

use std::sync::LazyLock;
use std::time::Duration;

use domain_types::{CustomerId, OrderId, Sku, Timestamp};
use redis::{Script, ScriptInvocation};
use schemas::{Sale, StockLevel, Ticket};
use stock_domain::{SaleState, sale_state};
use uuid::Uuid;

use crate::redis::{Redis, RedisAway};

/// How long a customer is remembered, and an order whose ticket is open; by then the stock and the projection know them.
const REMEMBERED_FOR: Duration = Duration::from_secs(3 * 86_400);
/// How long an order is remembered that holds its units, or whose ticket is void: its events may come again while a node that
/// ended between a script and its commit is replaced.
const SETTLED_FOR: Duration = Duration::from_secs(600);

static ADMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("admit.lua")));
static LET_GO: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("let_go.lua")));
static FEED: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("feed.lua")));
static SETTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("settle.lua")));
static LOOK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("look.lua")));

fn sku_key(sku: &Sku) -> String {
    format!("door:{{{sku}}}")
}

fn open_key(sku: &Sku) -> String {
    format!("door:{{{sku}}}:open")
}

fn order_key(sku: &Sku, order: OrderId) -> String {
    format!("door:{{{sku}}}:o:{order}")
}

fn customer_key(sku: &Sku, customer: CustomerId) -> String {
    format!("door:{{{sku}}}:c:{customer}")
}

fn on_sku<'a>(script: &'a Script, sku: &Sku) -> ScriptInvocation<'a> {
    let mut script = script.prepare_invoke();
    add_sku(&mut script, sku);
    script
}

fn add_sku(script: &mut ScriptInvocation<'_>, sku: &Sku) {
    script.key(sku_key(sku)).key(open_key(sku));
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Whether a product is on sale, and until when that is so: as scripts keep it.
fn window(sale: Option<&Sale>, now: Timestamp) -> (u8, String) {
    let (is_open, until) = match sale_state(sale, now) {
        SaleState::Open { until } => (1, until),
        SaleState::Closed { opens_at } => (0, opens_at),
    };
    (is_open, until.map(|until| until.as_millis().to_string()).unwrap_or_default())
}

/// One line that wants in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) sku: &'a Sku,
    pub(super) units: u32,
    pub(super) order_id: OrderId,
    pub(super) customer_id: CustomerId,
    pub(super) request: Uuid,
    pub(super) fingerprint: &'a str,
    /// When a ticket without an intake row counts as lost.
    pub(super) deadline: Timestamp,
}

/// What a script has to be told because Redis does not know it.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The product version, and whether that product is on sale, until when.
    window: Option<(String, u8, String)>,
    /// The customer's orders that have units of the sku.
    pub(super) customer: Option<Vec<(OrderId, u32)>>,
}

impl Told {
    /// Judges a sale window, as a script handed it out.
    pub(super) fn judge(&mut self, window_of: &Window, now: Timestamp) {
        let (is_open, until) = match serde_json::from_str::<Option<Sale>>(&window_of.sale) {
            Ok(sale) => window(sale.as_ref(), now),
            // Another build's: its stock worker decides.
            Err(_unknown) => (1, now.plus(Duration::from_secs(1)).as_millis().to_string()),
        };
        self.window = Some((window_of.product_version.clone(), is_open, until));
    }
}

/// A sale window whose last judgement is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    sale: String,
    product_version: String,
}

/// What a line is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admitted {
    Ticket(Ticket),
    /// Without a ticket: it has been counted already, or the intake knows better.
    Pass,
    SoldOut,
    OverLimit,
    Closed {
        opens_at: Option<Timestamp>,
    },
    /// Redis knows nothing about this sku.
    Unknown,
    /// Ask again with the window judged.
    NeedsWindow(Window),
    /// Ask again with the customer's units.
    NeedsCustomer,
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// An answer that no script gives: somebody else's keys, or another build's.
const fn unreadable<T>() -> Result<T, RedisAway> {
    Err(RedisAway)
}

/// A question for a line, as the script takes it.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    sku: Sku,
    keys: [String; 4],
    args: Vec<String>,
}

impl Ask {
    pub(super) fn new(asking: &Asking<'_>, now: Timestamp, told: &Told) -> Self {
        let Asking { sku, units, order_id, customer_id, request, fingerprint, deadline } = asking;
        let (version, is_open, until) = match &told.window {
            Some((version, is_open, until)) => (version.clone(), is_open.to_string(), until.clone()),
            None => Default::default(),
        };
        let orders = told.customer.as_deref();
        let mut args = vec![
            order_id.to_string(),
            request.to_string(),
            (*fingerprint).to_owned(),
            units.to_string(),
            now.as_millis().to_string(),
            deadline.as_millis().to_string(),
            version,
            is_open,
            until,
            customer_id.to_string(),
            orders.map(|orders| orders.len().to_string()).unwrap_or_default(),
        ];
        args.extend(
            orders.into_iter().flatten().flat_map(|(order, units)| [order.to_string(), units.to_string()]),
        );
        let keys = [sku_key(sku), open_key(sku), order_key(sku, *order_id), customer_key(sku, *customer_id)];
        Self { sku: (*sku).clone(), keys, args }
    }

    pub(super) const fn sku(&self) -> &Sku {
        &self.sku
    }
}

/// Asks for lines, one after the other; in a cluster they are to be of one sku. Answers each in its place.
pub(super) async fn admit(
    redis: &Redis,
    asks: &[Ask],
) -> Result<Vec<Result<Admitted, RedisAway>>, RedisAway> {
    let mut script = ADMIT.prepare_invoke();
    script.arg(millis(REMEMBERED_FOR));
    for Ask { keys, args, .. } in asks {
        for key in keys {
            script.key(key);
        }
        for arg in args {
            script.arg(arg);
        }
    }
    let answers: Vec<Vec<String>> = redis.invoke(&script).await?;
    if answers.len() != asks.len() {
        return unreadable();
    }
    Ok(answers.into_iter().map(admitted).collect())
}

fn admitted(answer: Vec<String>) -> Result<Admitted, RedisAway> {
    let mut answer = answer.into_iter();
    let (word, first, second) = (answer.next().unwrap_or_default(), answer.next(), answer.next());
    Ok(match (word.as_str(), first, second) {
        ("ticket", Some(generation), Some(nth)) => match (number(&generation), number(&nth)) {
            (Some(generation), Some(number)) => Admitted::Ticket(Ticket { generation, number }),
            _ => return unreadable(),
        },
        ("pass", ..) => Admitted::Pass,
        ("sold_out", ..) => Admitted::SoldOut,
        ("limit", ..) => Admitted::OverLimit,
        ("closed", until, _) => {
            Admitted::Closed { opens_at: until.as_deref().and_then(number).map(Timestamp::from_millis) }
        }
        ("unknown", ..) => Admitted::Unknown,
        ("window", Some(sale), Some(product_version)) => {
            Admitted::NeedsWindow(Window { sale, product_version })
        }
        ("customer", ..) => Admitted::NeedsCustomer,
        _ => return unreadable(),
    })
}

/// A ticket in somebody's hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) sku: Sku,
    pub(super) order_id: OrderId,
    pub(super) customer_id: CustomerId,
    pub(super) ticket: Ticket,
}

/// Lets a ticket go; it is voided when `request` was the last to hold it, or when there is none. Says whether it was.
pub(super) async fn let_go(redis: &Redis, held: &Held, request: Option<Uuid>) -> Result<bool, RedisAway> {
    let Held { sku, order_id, customer_id, ticket } = held;
    let mut script = on_sku(&LET_GO, sku);
    script.key(order_key(sku, *order_id)).key(customer_key(sku, *customer_id));
    script.arg(order_id.to_string()).arg(request.map(|id| id.to_string()).unwrap_or_default());
    script.arg(ticket.generation).arg(ticket.number).arg(millis(SETTLED_FOR));
    redis.invoke(&script).await
}

/// A count that does not agree with the stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) generation: String,
    pub(super) version: i64,
    pub(super) granted: i64,
    pub(super) issued: i64,
    pub(super) voided: i64,
    /// Tickets whose orders' fate is not known yet.
    pub(super) open: i64,
}

/// Hands a level over. `wrong`: the count to be replaced by this level's, if it is still like that. Says whether a new
/// generation began.
pub(super) async fn feed(
    redis: &Redis,
    level: &StockLevel,
    now: Timestamp,
    wrong: Option<&Count>,
) -> Result<bool, RedisAway> {
    let sale = level.product.sale.as_ref();
    let (is_open, until) = window(sale, now);
    let mut script = on_sku(&FEED, &level.sku);
    script.arg(level.version).arg(level.product_version).arg(level.granted).arg(level.available);
    script.arg(level.product.limit_per_customer.map(|limit| limit.to_string()).unwrap_or_default());
    // A sale window is made of texts and times: it can be written.
    script.arg(serde_json::to_string(&sale).unwrap_or_default()).arg(is_open).arg(until);
    script.arg(now.as_millis()).arg(now.plus(REMEMBERED_FOR).as_millis());
    match wrong {
        Some(count) => script.arg(&count.generation).arg(count.issued).arg(count.voided),
        None => script.arg("").arg("").arg(""),
    };
    let answer: Vec<String> = redis.invoke(&script).await?;
    Ok(answer.first().is_some_and(|word| word == "new"))
}

/// What an event means for a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Its units are held, with this version of the sku's stock.
    Held { stock_version: i64 },
    /// It has no units any more.
    Back,
    /// The order ended without keeping any.
    Ended,
}

/// An event of one line.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    pub(super) order_id: OrderId,
    pub(super) customer_id: CustomerId,
    pub(super) units: u32,
    pub(super) ticket: Option<Ticket>,
    pub(super) what: What,
}

/// Applies events of several skus, those of each in order; in a cluster it is to be one sku. Answers those of which Redis knows nothing,
/// by their place: feed them first.
pub(super) async fn settle(redis: &Redis, skus: &[(&Sku, &[Settled])]) -> Result<Vec<usize>, RedisAway> {
    let mut script = SETTLE.prepare_invoke();
    script.arg(millis(REMEMBERED_FOR)).arg(millis(SETTLED_FOR));
    for (sku, events) in skus {
        add_sku(&mut script, sku);
        script.arg(events.len());
        for Settled { order_id, customer_id, units, ticket, what } in *events {
            script.key(order_key(sku, *order_id)).key(customer_key(sku, *customer_id));
            let (word, version) = match what {
                What::Held { stock_version } => ("held", *stock_version),
                What::Back => ("back", 0),
                What::Ended => ("ended", 0),
            };
            script.arg(word).arg(order_id.to_string()).arg(*units).arg(version);
            match ticket {
                Some(ticket) => script.arg(ticket.generation).arg(ticket.number),
                None => script.arg("").arg(""),
            };
        }
    }
    let unknown: Vec<usize> = redis.invoke(&script).await?;
    Ok(unknown.into_iter().map(|place| place.saturating_sub(1)).collect())
}

/// The count of a sku, and the tickets that are open for too long.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) count: Count,
    pub(super) overdue: Vec<Held>,
}

/// Looks at skus, in a cluster at one; overdue tickets are not shown again before `again_at`. `None`: Redis knows nothing about that one.
pub(super) async fn look(
    redis: &Redis,
    skus: &[Sku],
    now: Timestamp,
    again_at: Timestamp,
    most: usize,
) -> Result<Vec<Option<Look>>, RedisAway> {
    let mut script = LOOK.prepare_invoke();
    for sku in skus {
        add_sku(&mut script, sku);
    }
    script.arg(now.as_millis()).arg(again_at.as_millis()).arg(most);
    let answers: Vec<Vec<String>> = redis.invoke(&script).await?;
    if answers.len() != skus.len() {
        return unreadable();
    }
    skus.iter().zip(&answers).map(|(sku, answer)| looked(sku, answer)).collect()
}

fn looked(sku: &Sku, answer: &[String]) -> Result<Option<Look>, RedisAway> {
    let [generation, version, granted, issued, voided, open, overdue @ ..] = answer else {
        return Ok(None);
    };
    let (Some(version), Some(granted), Some(issued), Some(voided), Some(open), Some(id)) =
        (number(version), number(granted), number(issued), number(voided), number(open), number(generation))
    else {
        return unreadable();
    };
    // An open ticket is written `ORDER:NUMBER:CUSTOMER`.
    let held = |text: &String| {
        let mut parts = text.split(':');
        let (order, number, customer) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Held {
            sku: sku.clone(),
            order_id: order.parse().ok()?,
            customer_id: customer.parse().ok()?,
            ticket: Ticket { generation: id, number: number.parse().ok()? },
        })
    };
    let overdue = overdue.iter().filter_map(held).collect();
    let count = Count { generation: generation.clone(), version, granted, issued, voided, open };
    Ok(Some(Look { count, overdue }))
}

#[cfg(test)]
mod tests;
