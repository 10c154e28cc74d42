//! Money: each charge and refund belongs to one order, and worker, provider and order say the same of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;
use uuid::Uuid;

use crate::store::{Booked, Charge, MovementRow, Order};
use crate::{Keeps, Report, Violation, keeps};

/// What was taken and given back, minor units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Moved {
    charged: i64,
    refunded: i64,
    /// How often each.
    charges: u32,
    refunds: u32,
}

/// An entry of `money_movements`.
#[derive(Debug, Deserialize)]
struct Movement {
    order_id: Uuid,
    kind: Kind,
    amount: Amount,
    reference: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Charged,
    Refunded,
}

#[derive(Debug, Deserialize)]
struct Amount {
    amount: i64,
}

/// What the provider may have taken and given back for a charge in this state; while a call is on its way, both answers.
fn possible(charge: &Charge) -> &'static [(bool, bool)] {
    match charge.state.as_str() {
        "approved" => &[(true, false)],
        "refunded" => &[(true, true)],
        "refund_requested" => &[(true, false), (true, true)],
        "declined" | "closed" | "barred" => &[(false, false)],
        // Not answered yet, or given up without an answer.
        "requested" | "unknown" | "closing" => &[(false, false), (true, false)],
        _ => &[(false, false), (true, false), (true, true)],
    }
}

/// What the worker has written down for a charge in this state.
fn written(charge: &Charge) -> &'static [(bool, bool)] {
    match charge.state.as_str() {
        "approved" | "refund_requested" => &[(true, false)],
        "refunded" => &[(true, true)],
        "failed" => &[(false, false), (true, false)],
        _ => &[(false, false)],
    }
}

fn fits(moved: Moved, charge: &Charge, states: &[(bool, bool)]) -> bool {
    let of = |yes: bool| if yes { charge.amount } else { 0 };
    states.iter().any(|(taken, back)| (moved.charged, moved.refunded) == (of(*taken), of(*back)))
        && moved.charges <= 1
        && moved.refunds <= 1
}

/// What the worker noted as moved, by order.
#[derive(Debug, Default)]
pub(crate) struct Movements {
    moved: BTreeMap<Uuid, Moved>,
    /// The provider's references, and whose they are.
    references: HashMap<(Kind, String), Uuid>,
}

/// Compares the charges with the worker's own movements and with the provider's book.
pub(crate) fn check(report: &mut Report, charges: &[Charge], movements: Movements, book: &[Booked]) {
    let mut moved = movements.moved;
    let mut booked = booked(report, book);
    for charge in charges {
        let order = charge.order_id;
        let movements = moved.remove(&order).unwrap_or_default();
        if !fits(movements, charge, written(charge)) {
            let detail = format!("order {order}: {charge:?}, and its movements are {movements:?}");
            report.wrong(Violation::new("charge_is_its_movements", detail).of_order(order));
        }
        let booked = booked.remove(&order).unwrap_or_default();
        if !book.is_empty() && !fits(Moved { charges: 0, ..booked }, charge, possible(charge)) {
            let detail = format!(
                "order {order}: the provider's book has {} charged and {} refunded, the worker has {charge:?}",
                booked.charged, booked.refunded
            );
            report.wrong(Violation::new("books_agree", detail).of_order(order));
        }
    }
    for (order, movements) in moved {
        let detail = format!("order {order} has no charge, and its movements are {movements:?}");
        report.wrong(Violation::new("charge_is_its_movements", detail).of_order(order));
    }
    for (order, booked) in booked.into_iter().filter(|(_, booked)| booked.charged != 0) {
        let detail = format!("order {order} has no charge, and the provider's book has {booked:?}");
        report.wrong(Violation::new("books_agree", detail).of_order(order));
    }
}

impl Movements {
    /// Counts what a transaction moved.
    pub(crate) fn count(&mut self, report: &mut Report, row: &MovementRow) {
        let entries: Vec<Movement> = match serde_json::from_str(&row.entries) {
            Ok(entries) => entries,
            Err(error) => {
                let detail = format!(
                    "the movements {}/{}/{} can't be read: {error}",
                    row.partition_id, row.epoch, row.seq
                );
                report.wrong(Violation::new("charge_is_its_movements", detail));
                return;
            }
        };
        for Movement { order_id, kind, amount, reference } in entries {
            let of = self.moved.entry(order_id).or_default();
            match kind {
                Kind::Charged => (of.charged, of.charges) = (of.charged + amount.amount, of.charges + 1),
                Kind::Refunded => (of.refunded, of.refunds) = (of.refunded + amount.amount, of.refunds + 1),
            }
            let known = self.references.insert((kind, reference.clone()), order_id);
            if let Some(other) = known.filter(|other| *other != order_id) {
                let detail = format!("{kind:?} {reference} is of order {other} and of order {order_id}");
                report.wrong(Violation::new("charge_of_one_order", detail).of_order(order_id));
            }
        }
    }
}

fn booked(report: &mut Report, book: &[Booked]) -> BTreeMap<Uuid, Moved> {
    let mut booked: BTreeMap<Uuid, Moved> = BTreeMap::new();
    for Booked { order_id, charged, refunded } in book {
        let of = booked.entry(*order_id).or_default();
        of.charged += charged;
        of.refunded += refunded;
        of.charges += 1;
        report.charged += charged;
        report.refunded += refunded;
    }
    for (order, _) in booked.iter().filter(|(_, booked)| booked.charges > 1) {
        let detail = format!("the provider's book has order {order} charged twice");
        report.wrong(Violation::new("charged_once", detail).of_order(*order));
    }
    booked
}

/// Compares all charges with the orders.
pub(crate) fn check_orders(report: &mut Report, orders: &HashMap<Uuid, Order>, charges: &[Charge]) {
    let mut charged = HashSet::new();
    let mut seen = HashSet::new();
    for charge in charges {
        let id = charge.order_id;
        if !seen.insert(id) {
            let detail = format!("order {id} has two charges, one is {charge:?}");
            report.wrong(Violation::new("charge_of_one_order", detail).of_order(id));
        }
        let Some(order) = orders.get(&id) else {
            let detail = format!("order {id} has a charge and is not projected");
            report.unsettled(Violation::new("not_projected", detail).of_order(id));
            continue;
        };
        if charge.state == "approved" && charge.amount > 0 {
            charged.insert(id);
        }
        check_charge(report, order, charge);
    }
    for order in orders.values() {
        let by_hand = order.settled_by_hand;
        let is_paid = matches!(keeps(order.state), Keeps::Everything);
        if is_paid && order.due > 0 && !charged.contains(&order.id) && !by_hand {
            let detail = format!("order {} is {}", order.id, order.state.as_str());
            report.wrong(Violation::new("paid_is_charged", detail).of_order(order.id));
        }
        if !matches!(keeps(order.state), Keeps::OnItsWay)
            && !by_hand
            && !seen.contains(&order.id)
            && order.charged != 0
        {
            let detail = format!("order {} shows {} as charged and has no charge", order.id, order.charged);
            report.wrong(Violation::new("order_shows_its_money", detail).of_order(order.id));
        }
    }
}

fn check_charge(report: &mut Report, order: &Order, charge: &Charge) {
    let state = order.state.as_str();
    let kept = charge.state == "approved" && charge.amount > 0;
    let mut wrong = |rule, detail| report.wrong(Violation::new(rule, detail).of_order(order.id));
    if charge.customer_id != order.customer_id {
        let detail = format!("order {} is of customer {}, {charge:?}", order.id, order.customer_id);
        wrong("charge_of_its_customer", detail);
    }
    match keeps(order.state) {
        Keeps::Nothing if order.settled_by_hand => {}
        Keeps::Nothing | Keeps::Units if kept => {
            wrong("money_conserved", format!("order {} is {state}, {charge:?}", order.id));
        }
        Keeps::Everything if kept && charge.amount != order.due => {
            wrong("charged_what_is_due", format!("order {} owes {}, {charge:?}", order.id, order.due));
        }
        Keeps::Nothing if charge.is_open => {
            report.unsettled(Violation::new("on_its_way", format!("{charge:?}")).of_order(order.id));
            return;
        }
        Keeps::OnItsWay => return,
        Keeps::Nothing | Keeps::Units | Keeps::Everything => {}
    }
    if charge.is_open || order.settled_by_hand {
        return;
    }
    let shows = (order.charged, order.refunded);
    let has = match charge.state.as_str() {
        "approved" => (charge.amount, 0),
        "refunded" => (charge.amount, charge.amount),
        _ => (0, 0),
    };
    if shows != has {
        let detail = format!(
            "order {} shows {} as charged and {} as given back, {charge:?}",
            order.id, order.charged, order.refunded
        );
        report.wrong(Violation::new("order_shows_its_money", detail).of_order(order.id));
    }
}
