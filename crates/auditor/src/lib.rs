#![doc = include_str!("../README.md")]

use std::collections::{BTreeMap, HashMap, HashSet};

use messaging::GroupPosition;
use schemas::OrderState;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

pub mod door;
pub mod first_come;
mod money;
pub mod settled;
mod stock;
mod store;
pub mod trail;
mod violation;

use money::Movements;
use stock::Ledgers;
use store::{Hold, Item, Order, Product};

pub use violation::{Place, Violation};

/// The consumer group of one of the api's consumers. A setting names the groups (`NAME-order-events`); the api's own positions
/// say which name it has. If it was changed, both are there: the one that has come further is the api's.
pub fn api_group(positions: &[GroupPosition], consumer: &str) -> String {
    let mut reached: BTreeMap<&str, i64> = BTreeMap::new();
    for position in positions {
        if position.group.strip_suffix(consumer).is_some_and(|name| name.ends_with('-')) {
            *reached.entry(&position.group).or_default() += position.next.0;
        }
    }
    let furthest = reached.into_iter().max_by_key(|(_, reached)| *reached);
    furthest.map_or_else(|| format!("api-{consumer}"), |(group, _)| group.to_owned())
}

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

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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

    fn unsettled(&mut self, found: Violation) {
        self.unsettled.push(found);
    }

    fn wrong(&mut self, found: Violation) {
        self.violations.push(found);
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
    let mut orders = HashMap::new();
    store::orders(&mut api, |order| {
        check_order(&mut report, &order);
        orders.insert(order.id, order);
    })
    .await?;
    for id in store::acknowledged(&mut api).await? {
        if !orders.contains_key(&id) {
            let detail = format!("order {id} is acknowledged and not projected");
            report.unsettled(Violation::new("not_projected", detail).of_order(id));
        }
    }
    let products = store::products(&mut api).await?;
    drop(api);
    let (mut all_holds, mut all_items) = (Vec::new(), Vec::new());
    for pool in &databases.stock {
        let mut connection = messaging::snapshot(pool).await?;
        report.positions.extend(messaging::positions(&mut connection).await?);
        let (holds, items) = (store::holds(&mut connection).await?, store::items(&mut connection).await?);
        let mut ledgers = Ledgers::new(store::ledger_by_sku(&mut connection).await?);
        store::ledger_batches(&mut connection, |row| ledgers.batch(&mut report, row)).await?;
        stock::check(&mut report, &items, &holds, ledgers);
        all_holds.extend(holds);
        all_items.extend(items);
    }
    check_holds(&mut report, &orders, &all_holds);
    check_products(&mut report, &products, &all_items);
    let (mut all_charges, mut movements, mut book) = (Vec::new(), Movements::default(), Vec::new());
    for pool in &databases.payment {
        let mut connection = messaging::snapshot(pool).await?;
        report.positions.extend(messaging::positions(&mut connection).await?);
        all_charges.extend(store::charges(&mut connection).await?);
        store::movements(&mut connection, |row| movements.count(&mut report, row)).await?;
        // The provider's book is one, whatever database a charge is in.
        book.extend(store::book(&mut connection).await?);
    }
    money::check(&mut report, &all_charges, movements, &book);
    money::check_orders(&mut report, &orders, &all_charges);
    report.settled_by_hand.sort_unstable();
    // Databases and maps give them in any order; two looks that found the same are to be equal.
    report.violations.sort_unstable();
    report.unsettled.sort_unstable();
    Ok(report)
}

fn check_order(report: &mut Report, order: &Order) {
    let Order { id, state, .. } = *order;
    *report.orders.entry(state.as_str()).or_default() += 1;
    if matches!(keeps(state), Keeps::OnItsWay) {
        let detail = format!("order {id} is {}", state.as_str());
        report.unsettled(Violation::new("on_its_way", detail).of_order(id));
    }
    if order.settled_by_hand {
        report.settled_by_hand.push(id);
    }
    if let Some(differs) = &order.row_differs {
        report.wrong(Violation::new("row_is_document", format!("order {id}: {differs}")).of_order(id));
    }
}

fn check_holds(report: &mut Report, orders: &HashMap<Uuid, Order>, holds: &[Hold]) {
    let mut kept: HashMap<(Uuid, &str), i64> = HashMap::new();
    for hold in holds.iter().filter(|hold| matches!(hold.status.as_str(), "held" | "sold")) {
        let id = hold.order_id;
        let of = |rule, detail| Violation::new(rule, detail).of_order(id).of_sku(&hold.sku);
        let Some(order) = orders.get(&id) else {
            let detail = format!("order {id} holds {} and is not projected", hold.sku);
            report.unsettled(of("not_projected", detail));
            continue;
        };
        *kept.entry((id, &hold.sku)).or_default() += hold.quantity;
        let state = order.state.as_str();
        match (keeps(order.state), hold.status.as_str()) {
            (Keeps::Nothing, _) => {
                report.wrong(of("no_orphan_holds", format!("order {id} is {state}, {hold:?}")));
            }
            (Keeps::Everything, "held") => {
                let detail = format!("order {id} is paid, {} not confirmed yet", hold.sku);
                report.unsettled(of("on_its_way", detail));
            }
            (Keeps::Units, "sold") => {
                report.wrong(of("sold_is_paid", format!("order {id} is not paid, {hold:?}")));
            }
            (Keeps::Everything | Keeps::Units | Keeps::OnItsWay, _) => {}
        }
    }
    for order in orders.values() {
        if !matches!(keeps(order.state), Keeps::Everything | Keeps::Units) {
            continue;
        }
        for (sku, units) in &order.lines {
            let keeps = kept.get(&(order.id, sku.as_str())).copied().unwrap_or_default();
            if keeps != *units {
                let (id, state) = (order.id, order.state.as_str());
                let detail = format!("order {id} is {state} with {units} units of {sku} and keeps {keeps}");
                let found = Violation::new("orders_keep_their_units", detail);
                report.wrong(found.of_order(id).of_sku(sku));
            }
        }
    }
}

/// The api's products were read before the items, so that none may be ahead.
fn check_products(report: &mut Report, products: &[Product], items: &[Item]) {
    let shown: HashMap<&str, &Product> =
        products.iter().map(|product| (product.sku.as_str(), product)).collect();
    for item in items {
        let sku = &item.sku;
        match shown.get(sku.as_str()) {
            Some(product) if product.version == item.version && product.available == item.available => {}
            Some(product) if product.version >= item.version => {
                let detail = format!("the api shows {product:?}, the stock is {item:?}");
                report.wrong(Violation::new("product_is_item", detail).of_sku(sku));
            }
            Some(product) => {
                let detail = format!(
                    "{sku}: the api shows version {} of {} ledger entries",
                    product.version, item.version
                );
                report.unsettled(Violation::new("not_projected", detail).of_sku(sku));
            }
            None => {
                let detail = format!("{sku} is not projected");
                report.unsettled(Violation::new("not_projected", detail).of_sku(sku));
            }
        }
    }
    let known: HashSet<&str> = items.iter().map(|item| item.sku.as_str()).collect();
    for product in products.iter().filter(|product| !known.contains(product.sku.as_str())) {
        let detail = format!("the api shows {product:?}, of which there is no stock");
        report.wrong(Violation::new("product_is_item", detail).of_sku(&product.sku));
    }
}

#[cfg(test)]
mod tests {
    use messaging::NextOffset;

    use super::*;

    fn position(group: &str, next: i64) -> GroupPosition {
        GroupPosition {
            group: group.to_owned(),
            topic: "order-events".to_owned(),
            partition: 0,
            next: NextOffset(next),
            cluster_id: String::new(),
            log_id: None,
            epoch: 1,
        }
    }

    #[test]
    fn the_api_s_group_is_the_one_that_its_positions_name_and_of_two_the_one_that_has_come_further() {
        assert_eq!(api_group(&[], "order-events"), "api-order-events");
        let others = [position("front-admission", 9), position("front-reorder-events", 9)];
        assert_eq!(api_group(&others, "order-events"), "api-order-events".to_owned());
        let renamed = [position("api-order-events", 4), position("front-order-events", 7)];
        assert_eq!(api_group(&renamed, "order-events"), "front-order-events");
    }
}
