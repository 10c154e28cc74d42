//! Orders by the logs alone: each was asked for, each went a legal way, each that was accepted is there, and the api shows what
//! `order-events` leads to.
//!
//! Nothing here is a matter of timing: the api is read first, in one snapshot with its positions, then `order-events` and then
//! `order-saga`. What the first shows must have been in the second by then, and what is in the second in the third.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};

use domain_types::MessageId;
use messaging::{Cluster, LogReader};
use schemas::{Envelope, OrderEvent, OrderSagaMessage, OrderState, Topic};
use uuid::Uuid;

use crate::first_come::{LogError, for_each, parked};
use crate::{Databases, Place, Violation, store};

/// The api's consumer that its orders are made of.
const PROJECTION: &str = "order-events";

/// What the api has, in one snapshot.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Orders that were answered `202`.
    pub accepted: Vec<Uuid>,
    /// Version and state of each order in the projection.
    pub orders: HashMap<Uuid, (i64, OrderState)>,
    /// The projection's consumer group.
    pub group: String,
    /// How far the projection has come in each partition of `order-events`.
    pub next: HashMap<i32, i64>,
}

/// Reads what the api shows: to be done before the logs are read.
///
/// # Errors
/// If the api's database can't be read.
pub async fn shown(databases: &Databases) -> Result<Shown, sqlx::Error> {
    let mut api = messaging::snapshot(&databases.api).await?;
    let positions = messaging::positions(&mut api).await?;
    let group = crate::api_group(&positions, PROJECTION);
    let of_projection = positions.into_iter().filter(|position| position.group == group);
    let next = of_projection.map(|position| (position.partition, position.next.0)).collect();
    let mut orders = HashMap::new();
    store::orders(&mut api, |order| {
        orders.insert(order.id, (order.version, order.state));
    })
    .await?;
    Ok(Shown { next, orders, accepted: store::acknowledged(&mut api).await?, group })
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Trails {
    /// Orders whose way was followed.
    pub orders: usize,
    /// Orders that were asked for and whose saga has not said anything yet: not wrong unless it stays.
    pub not_begun: Vec<Violation>,
    /// What is wrong; names the order and the record.
    pub violations: Vec<Violation>,
}

/// An order's events so far.
#[derive(Debug)]
struct Trail {
    /// Each version's message id and content, from version 2 on.
    said: Vec<(MessageId, u64)>,
    state: OrderState,
    is_final: bool,
    /// The last state that was not `COMPENSATING`: how it may end depends on it.
    before: OrderState,
    /// Version and state that the projection had read.
    projected: Option<(i64, OrderState)>,
    first: Place,
}

/// Follows orders through the records of both topics.
#[derive(Debug, Default)]
pub struct Walk {
    found: Trails,
    trails: HashMap<Uuid, Trail>,
    placed: BTreeMap<Uuid, Place>,
}

const fn is_end(state: OrderState) -> bool {
    matches!(
        state,
        OrderState::Cancelled
            | OrderState::Returned
            | OrderState::Rejected
            | OrderState::PaymentFailed
            | OrderState::Expired
    )
}

/// Whether an order may go from one state to the next; `before` is the one it was in before it was compensated.
const fn may_follow(from: OrderState, before: OrderState, to: OrderState) -> bool {
    use OrderState::{
        Accepted, AwaitingPayment, Cancelled, Charging, Compensating, Delivered, Expired, Paid,
        PaymentFailed, Rejected, Reserving, ReturnRequested, Returned, Shipped,
    };
    match from {
        Accepted => false,
        // An order without any held line has nothing to give back.
        Reserving => matches!(to, AwaitingPayment | Charging | Compensating | Rejected),
        AwaitingPayment => matches!(to, Charging | Compensating),
        Charging => matches!(to, Paid | Compensating),
        Paid => matches!(to, Shipped | Compensating),
        Shipped => matches!(to, Delivered),
        Delivered => matches!(to, ReturnRequested),
        ReturnRequested => matches!(to, Compensating),
        Compensating => match before {
            Reserving => matches!(to, Rejected | Cancelled | Expired),
            AwaitingPayment => matches!(to, Cancelled | Expired),
            Charging => matches!(to, PaymentFailed | Cancelled | Expired),
            Paid => matches!(to, Cancelled),
            ReturnRequested => matches!(to, Returned),
            Accepted | Shipped | Delivered | Compensating | Cancelled | Returned | Rejected
            | PaymentFailed | Expired => false,
        },
        Cancelled | Returned | Rejected | PaymentFailed | Expired => false,
    }
}

fn content(event: &OrderEvent) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{event:?}").hash(&mut hasher);
    hasher.finish()
}

impl Walk {
    /// The next record of `order-events`; `is_projected`: the api has read it.
    pub fn event(&mut self, event: &Envelope<OrderEvent>, at: Place, is_projected: bool) {
        let Some(order) = event.order_id.map(|order| order.uuid()) else {
            let found = Violation::new("legal_path", format!("the event {at} names no order"));
            self.found.violations.push(found.at(at));
            return;
        };
        let (version, state, is_final) = match &event.message {
            OrderEvent::OrderPlaced(placed) => (placed.version, placed.state, placed.is_final),
            OrderEvent::OrderChanged(changed) => (changed.version, changed.state, changed.is_final),
        };
        let said = (event.message_id, content(&event.message));
        let mut wrong = |rule, why: String| {
            let detail = format!("order {order}, version {version} ({at}): {why}");
            self.found.violations.push(Violation::new(rule, detail).of_order(order).at(at));
        };
        let Some(trail) = self.trails.get_mut(&order) else {
            let begins = matches!(event.message, OrderEvent::OrderPlaced(_)) && version == 2;
            let fits =
                matches!((state, is_final), (OrderState::Reserving, false) | (OrderState::Rejected, true));
            if !begins || !fits {
                wrong("legal_path", format!("it begins as {}, final: {is_final}", state.as_str()));
            }
            let projected = is_projected.then_some((version, state));
            let said = vec![said];
            self.trails.insert(order, Trail { said, state, is_final, before: state, projected, first: at });
            return;
        };
        let newest = trail.newest();
        if version <= newest {
            let index = usize::try_from(version - 2).ok();
            if index.and_then(|index| trail.said.get(index)) != Some(&said) {
                wrong("said_one_way", "the same version was said before, otherwise".to_owned());
            }
            return;
        }
        if version != newest + 1 || matches!(event.message, OrderEvent::OrderPlaced(_)) {
            wrong("legal_path", format!("it comes behind version {newest}"));
            return;
        }
        let (from, before) = (trail.state, trail.before);
        if state != from && !may_follow(from, before, state) {
            let why = format!("{} comes behind {}", state.as_str(), from.as_str());
            let why =
                if from == before { why } else { format!("{why}, which was {} before", before.as_str()) };
            wrong("legal_path", why);
        } else if trail.is_final && !is_final
            || is_final && !is_end(state) && state != OrderState::Delivered
            || is_end(state) && !is_final
        {
            wrong("legal_path", format!("{} and final: {is_final}, was {}", state.as_str(), trail.is_final));
        }
        trail.follow(said, state, is_final);
        if is_projected {
            trail.projected = Some((version, state));
        }
    }

    /// The next record of `order-saga`.
    pub fn input(&mut self, input: &Envelope<OrderSagaMessage>, at: Place) {
        if let (Some(order), OrderSagaMessage::PlaceOrder(_)) = (input.order_id, &input.message) {
            self.placed.entry(order.uuid()).or_insert(at);
        }
    }

    /// Compares both with each other and with the api, and ends. `unread`: orders of which the api has set records aside.
    pub fn finish(mut self, shown: &Shown, unread: &HashSet<Uuid>) -> Trails {
        self.found.orders = self.trails.len();
        let mut violations = Vec::new();
        for (order, trail) in &self.trails {
            if !self.placed.contains_key(order) {
                let detail = format!("order {order} has events ({}) and nobody placed it", trail.first);
                violations.push(Violation::new("event_has_a_cause", detail).of_order(*order).at(trail.first));
            }
            let shows = shown.orders.get(order).copied();
            if shows != trail.projected && !unread.contains(order) {
                let says = |what: Option<(i64, OrderState)>| match what {
                    Some((version, state)) => format!("version {version}, {}", state.as_str()),
                    None => "nothing".to_owned(),
                };
                let (shows, leads) = (says(shows), says(trail.projected));
                let detail = format!(
                    "order {order}: the api shows {shows}, what it has read ({}..) leads to {leads}",
                    trail.first
                );
                violations.push(Violation::new("projection_agrees", detail).of_order(*order).at(trail.first));
            }
        }
        for order in shown.orders.keys().filter(|order| !self.trails.contains_key(*order)) {
            let detail = format!("the api shows order {order}, which has no event");
            violations.push(Violation::new("projection_agrees", detail).of_order(*order));
        }
        for order in shown.accepted.iter().filter(|order| !self.placed.contains_key(*order)) {
            let detail = format!("order {order} was accepted and is not in {}", Topic::OrderSaga.name());
            violations.push(Violation::new("accepted_is_logged", detail).of_order(*order));
        }
        for (order, at) in self.placed.iter().filter(|(order, _)| !self.trails.contains_key(*order)) {
            let detail = format!("order {order} is placed ({at}) and has no event");
            self.found.not_begun.push(Violation::new("not_begun", detail).of_order(*order).at(*at));
        }
        violations.sort_unstable();
        self.found.violations.extend(violations);
        self.found
    }
}

impl Trail {
    fn newest(&self) -> i64 {
        i64::try_from(self.said.len()).unwrap_or(i64::MAX).saturating_add(1)
    }

    fn follow(&mut self, said: (MessageId, u64), state: OrderState, is_final: bool) {
        self.said.push(said);
        (self.state, self.is_final) = (state, is_final);
        if state != OrderState::Compensating {
            self.before = state;
        }
    }
}

/// Follows all orders through what the logs of a cluster hold now. Blocks: call it where that is allowed.
///
/// # Errors
/// If Kafka does not answer.
pub fn check_logs(cluster: impl Into<Cluster>, shown: &Shown) -> Result<Trails, LogError> {
    let reader = &LogReader::new(cluster)?;
    let mut walk = Walk::default();
    let set_aside = parked(reader, &shown.group, Topic::OrderEvents)?;
    let mut unread = HashSet::new();
    for_each(reader, Topic::OrderEvents, |record| {
        let at =
            Place { topic: Topic::OrderEvents.name(), partition: record.partition, offset: record.offset.0 };
        let is_projected = shown.next.get(&at.partition).is_some_and(|next| at.offset < *next);
        let event = (!record.is_control()).then(|| Envelope::<OrderEvent>::decode(&record.value));
        // What can't be read is parked by the api, and says nothing.
        let Some(Ok(event)) = event else { return Ok(()) };
        if set_aside.contains(&(at.partition, at.offset)) {
            unread.extend(event.order_id.map(|order| order.uuid()));
        }
        walk.event(&event, at, is_projected);
        Ok(())
    })?;
    for_each(reader, Topic::OrderSaga, |record| {
        let at =
            Place { topic: Topic::OrderSaga.name(), partition: record.partition, offset: record.offset.0 };
        if !record.is_control()
            && let Ok(input) = Envelope::decode(&record.value)
        {
            walk.input(&input, at);
        }
        Ok(())
    })?;
    Ok(walk.finish(shown, &unread))
}
