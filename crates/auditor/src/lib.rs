#![doc = include_str!("../README.md")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use messaging::GroupPosition;
use schemas::OrderState;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

pub mod first_come;
mod store;

use store::{Charge, Hold, Item, Order};

/// The services' databases; each may be several.
#[derive(Debug, Clone)]
pub struct Databases {
    /// The stock worker's.
    pub stock: Vec<PgPool>,
    /// The payment worker's, with the simulated provider's book.
    pub payment: Vec<PgPool>,
    /// The api's.
    pub api: PgPool,
}

/// Something that must not be, or must not stay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Violation {
    /// The rule, one word.
    pub rule: &'static str,
    /// What breaks it.
    pub detail: String,
}

impl Violation {
    /// Whether it was seen in one snapshot of one database, and so is wrong however much is under way.
    pub fn rests_on_one_database(&self) -> bool {
        matches!(
            self.rule,
            "units_conserved" | "item_is_sum_of_holds" | "version_counts_entries" | "charged_once"
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

/// What an audit found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Orders by state.
    pub orders: BTreeMap<&'static str, u64>,
    /// Units of all products: initial and restocked, available, held, sold.
    pub units: Units,
    /// Minor units that the provider's book shows as charged.
    pub charged: i64,
    /// Minor units that the provider's book shows as given back.
    pub refunded: i64,
    /// What is on its way: not wrong yet. What is `not_projected` is wrong if it stays.
    pub unsettled: Vec<Violation>,
    /// Orders whose refund or charge an operator took as settled by hand: their money is elsewhere.
    pub settled_by_hand: Vec<Uuid>,
    /// What is wrong. Databases are read one after the other, each in one snapshot: while orders flow, what rests on two
    /// of them may be gone in the next moment. [`Violation::rests_on_one_database`] tells.
    pub violations: Vec<Violation>,
    /// How far each service had come in its snapshot.
    pub positions: Vec<GroupPosition>,
}

/// Sums over all products.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Units {
    /// Initial and restocked.
    pub total: i64,
    /// Can be reserved.
    pub available: i64,
    /// Held by orders on their way.
    pub held: i64,
    /// Sold.
    pub sold: i64,
}

impl Report {
    /// Nothing is wrong and nothing is on its way.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.unsettled.is_empty()
    }

    fn unsettled(&mut self, rule: &'static str, detail: String) {
        self.unsettled.push(Violation { rule, detail });
    }

    fn wrong(&mut self, rule: &'static str, detail: String) {
        self.violations.push(Violation { rule, detail });
    }
}

/// What an order in a state must have.
enum Keeps {
    /// Its units and its money.
    Everything,
    /// Its units; it is not paid yet.
    Units,
    /// Nothing.
    Nothing,
    /// That changes just now.
    OnItsWay,
}

const fn keeps(state: OrderState) -> Keeps {
    match state {
        OrderState::Paid | OrderState::Shipped | OrderState::Delivered | OrderState::ReturnRequested => {
            Keeps::Everything
        }
        OrderState::AwaitingPayment => Keeps::Units,
        OrderState::Cancelled
        | OrderState::Returned
        | OrderState::Rejected
        | OrderState::PaymentFailed
        | OrderState::Expired => Keeps::Nothing,
        OrderState::Accepted | OrderState::Reserving | OrderState::Charging | OrderState::Compensating => {
            Keeps::OnItsWay
        }
    }
}

/// Audits everything.
///
/// # Errors
/// If a database can't be read.
pub async fn audit(databases: &Databases) -> Result<Report, sqlx::Error> {
    let mut report = Report::default();
    let mut api = messaging::snapshot(&databases.api).await?;
    report.positions.extend(messaging::positions(&mut api).await?);
    let orders = store::orders(&mut api).await?;
    for order in orders.values() {
        *report.orders.entry(order.state.as_str()).or_default() += 1;
        if matches!(keeps(order.state), Keeps::OnItsWay) {
            report.unsettled("on_its_way", format!("order {} is {}", order.id, order.state.as_str()));
        }
        if order.settled_by_hand {
            report.settled_by_hand.push(order.id);
        }
    }
    for id in store::acknowledged(&mut api).await? {
        if !orders.contains_key(&id) {
            report.unsettled("not_projected", format!("order {id} is acknowledged and not projected"));
        }
    }
    drop(api);
    let mut holds = Vec::new();
    for pool in &databases.stock {
        let mut stock = messaging::snapshot(pool).await?;
        report.positions.extend(messaging::positions(&mut stock).await?);
        let found = store::holds(&mut stock).await?;
        let items = store::items(&mut stock).await?;
        check_items(&mut report, &items, &found, &store::ledger_entries(&mut stock).await?);
        holds.extend(found);
    }
    check_holds(&mut report, &orders, &holds);
    let mut charges = Vec::new();
    for pool in &databases.payment {
        let mut payment = messaging::snapshot(pool).await?;
        report.positions.extend(messaging::positions(&mut payment).await?);
        charges.extend(store::charges(&mut payment).await?);
        check_book(&mut report, &store::book(&mut payment).await?);
    }
    check_charges(&mut report, &orders, &charges);
    report.settled_by_hand.sort_unstable();
    Ok(report)
}

fn check_items(report: &mut Report, items: &[Item], holds: &[Hold], ledger: &HashMap<String, i64>) {
    let mut sums: HashMap<&str, (i64, i64)> = HashMap::new();
    for hold in holds {
        let (held, sold) = sums.entry(&hold.sku).or_default();
        match hold.status.as_str() {
            "held" => *held += hold.quantity,
            "sold" => *sold += hold.quantity,
            _ => {}
        }
    }
    for item in items {
        let (held, sold) = sums.get(item.sku.as_str()).copied().unwrap_or_default();
        if item.initial + item.restocked != item.available + item.held + item.sold || item.available < 0 {
            report.wrong("units_conserved", format!("{item:?}"));
        }
        if (item.held, item.sold) != (held, sold) {
            report.wrong("item_is_sum_of_holds", format!("{item:?}, holds: {held} held, {sold} sold"));
        }
        let entries = ledger.get(&item.sku).copied().unwrap_or_default();
        if item.version != entries {
            report.wrong("version_counts_entries", format!("{item:?} has {entries} ledger entries"));
        }
        report.units.total += item.initial + item.restocked;
        report.units.available += item.available;
        report.units.held += item.held;
        report.units.sold += item.sold;
    }
}

fn check_holds(report: &mut Report, orders: &HashMap<Uuid, Order>, holds: &[Hold]) {
    let mut kept: HashMap<Uuid, i64> = HashMap::new();
    for hold in holds.iter().filter(|hold| matches!(hold.status.as_str(), "held" | "sold")) {
        let Some(order) = orders.get(&hold.order_id) else {
            report.unsettled(
                "not_projected",
                format!("order {} holds {} and is not projected", hold.order_id, hold.sku),
            );
            continue;
        };
        *kept.entry(order.id).or_default() += hold.quantity;
        match (keeps(order.state), hold.status.as_str()) {
            (Keeps::Nothing, _) => {
                report.wrong(
                    "no_orphan_holds",
                    format!("order {} is {}, {hold:?}", order.id, order.state.as_str()),
                );
            }
            (Keeps::Everything, "held") => {
                report.unsettled(
                    "on_its_way",
                    format!("order {} is paid, {} not confirmed yet", order.id, hold.sku),
                );
            }
            (Keeps::Units, "sold") => {
                report.wrong("sold_is_paid", format!("order {} is not paid, {hold:?}", order.id))
            }
            (Keeps::Everything | Keeps::Units | Keeps::OnItsWay, _) => {}
        }
    }
    for order in orders.values() {
        let units = kept.get(&order.id).copied().unwrap_or_default();
        if matches!(keeps(order.state), Keeps::Everything | Keeps::Units) && units != order.units {
            report.wrong(
                "orders_keep_their_units",
                format!(
                    "order {} is {} with {} units and keeps {units}",
                    order.id,
                    order.state.as_str(),
                    order.units
                ),
            );
        }
    }
}

fn check_charges(report: &mut Report, orders: &HashMap<Uuid, Order>, charges: &[Charge]) {
    let mut charged = HashSet::new();
    for charge in charges {
        let kept = charge.state == "approved" && charge.amount > 0;
        let Some(order) = orders.get(&charge.order_id) else {
            report.unsettled(
                "not_projected",
                format!("order {} has a charge and is not projected", charge.order_id),
            );
            continue;
        };
        if kept {
            charged.insert(order.id);
        }
        match keeps(order.state) {
            Keeps::Nothing if order.settled_by_hand => {}
            Keeps::Nothing | Keeps::Units if kept => {
                report.wrong(
                    "money_conserved",
                    format!("order {} is {}, {charge:?}", order.id, order.state.as_str()),
                );
            }
            Keeps::Everything if kept && charge.amount != order.due => {
                report.wrong(
                    "charged_what_is_due",
                    format!("order {} owes {}, {charge:?}", order.id, order.due),
                );
            }
            Keeps::Nothing if charge.is_open => report.unsettled("on_its_way", format!("{charge:?}")),
            Keeps::Nothing | Keeps::Units | Keeps::Everything | Keeps::OnItsWay => {}
        }
    }
    for order in orders.values() {
        let by_hand = order.settled_by_hand;
        if matches!(keeps(order.state), Keeps::Everything)
            && order.due > 0
            && !charged.contains(&order.id)
            && !by_hand
        {
            report.wrong("paid_is_charged", format!("order {} is {}", order.id, order.state.as_str()));
        }
    }
}

fn check_book(report: &mut Report, book: &store::Book) {
    report.charged += book.charged;
    report.refunded += book.refunded;
    for order in &book.charged_twice {
        report.wrong("charged_once", format!("the provider's book has order {order} charged twice"));
    }
    if book.charged - book.refunded != book.kept_by_worker {
        let detail = format!(
            "the provider's book has {} charged and {} refunded, the worker keeps {}",
            book.charged, book.refunded, book.kept_by_worker
        );
        // A charge whose answer is on its way is in one of the two only.
        if book.open_charges > 0 {
            report.unsettled("on_its_way", detail);
        } else {
            report.wrong("books_agree", detail);
        }
    }
}
