//! Units: each ledger is counted again, entry by entry; items and holds have to be what it leads to.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use schemas::Topic;
use serde::Deserialize;
use uuid::Uuid;

use crate::store::{Hold, Item, LedgerBatch, LedgerOfSku};
use crate::{Place, Report, Violation};

/// An order's line.
type Line = (Uuid, i64);

/// An entry of a batch's row of the ledger, as far as it counts units.
#[derive(Debug, Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    sku: Cow<'a, str>,
    /// That it made.
    version: i64,
    offset: i64,
    fact: Fact,
}

/// An entry, wherever it was kept.
#[derive(Debug, Deserialize)]
struct Change {
    /// Of the command behind it.
    offset: i64,
    fact: Fact,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Fact {
    ProductDefined {
        #[serde(default)]
        initial: Option<i64>,
    },
    StockChanged {
        quantity: i64,
    },
    Reserved(Units),
    Confirmed(Units),
    Released(Units),
    Restocked(Units),
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Units {
    order_id: Uuid,
    line: i64,
    units: i64,
}

/// Where a line's units are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Held,
    Sold,
    Released,
    Restocked,
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Sold => "sold",
            Self::Released => "released",
            Self::Restocked => "restocked",
        }
    }
}

/// What a ledger leads to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counted {
    initial: i64,
    restocked: i64,
    available: i64,
    held: i64,
    sold: i64,
}

impl Counted {
    const fn is_balanced(self) -> bool {
        self.initial + self.restocked == self.available + self.held + self.sold
            && self.available >= 0
            && self.held >= 0
            && self.sold >= 0
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { initial, restocked, available, held, sold } = self;
        write!(f, "{initial} initial, {restocked} restocked, {available} available, {held} held, {sold} sold")
    }
}

/// The ledger of one sku, as far as it was counted.
#[derive(Debug, Default)]
struct Ledger {
    counted: Counted,
    /// The number of entries.
    version: i64,
    lines: HashMap<Line, (Stage, i64)>,
}

impl Ledger {
    /// Counts one more entry; says what does not fit.
    fn entry(&mut self, fact: &Fact) -> Option<String> {
        self.version += 1;
        let counted = &mut self.counted;
        let unfit = match fact {
            Fact::ProductDefined { initial: Some(initial) } if self.version == 1 => {
                (counted.initial, counted.available) = (*initial, *initial);
                None
            }
            _ if self.version == 1 => Some("it begins without units to begin with".to_owned()),
            Fact::ProductDefined { initial: Some(_) } => Some("it begins a second time".to_owned()),
            Fact::ProductDefined { initial: None } => None,
            Fact::StockChanged { quantity } => {
                counted.available += quantity;
                counted.restocked += quantity;
                None
            }
            Fact::Reserved(of) => {
                counted.available -= of.units;
                counted.held += of.units;
                self.moved(*of, &[], Stage::Held)
            }
            Fact::Confirmed(of) => {
                counted.held -= of.units;
                counted.sold += of.units;
                self.moved(*of, &[Stage::Held], Stage::Sold)
            }
            Fact::Released(of) => {
                counted.held -= of.units;
                counted.available += of.units;
                self.moved(*of, &[Stage::Held], Stage::Released)
            }
            Fact::Restocked(of) => {
                let was_held =
                    self.lines.get(&(of.order_id, of.line)).map(|line| line.0) == Some(Stage::Held);
                *(if was_held { &mut counted.held } else { &mut counted.sold }) -= of.units;
                counted.available += of.units;
                self.moved(*of, &[Stage::Held, Stage::Sold], Stage::Restocked)
            }
        };
        let counted = self.counted;
        unfit.or_else(|| (!counted.is_balanced()).then(|| format!("{counted} do not add up")))
    }

    /// A line's units go on, all of them; from nowhere if there is no stage to come from.
    fn moved(&mut self, of: Units, from: &[Stage], to: Stage) -> Option<String> {
        let before = self.lines.insert((of.order_id, of.line), (to, of.units));
        match before {
            None if from.is_empty() => None,
            Some((stage, units)) if from.contains(&stage) && units == of.units => None,
            None => Some(format!("{} units were never held", of.units)),
            Some((stage, units)) => Some(format!("{units} units of it were {} before", stage.as_str())),
        }
    }
}

const fn whose(fact: &Fact) -> Option<Uuid> {
    match fact {
        Fact::Reserved(of) | Fact::Confirmed(of) | Fact::Released(of) | Fact::Restocked(of) => {
            Some(of.order_id)
        }
        Fact::ProductDefined { .. } | Fact::StockChanged { .. } => None,
    }
}

/// The ledger of one database, counted again.
#[derive(Debug)]
pub(crate) struct Ledgers {
    /// What it leads to, by sku.
    counted: BTreeMap<String, Ledger>,
    /// Rows of builds that kept it by sku, which are still to be counted: by sku and first version.
    by_sku: BTreeMap<(String, i64), LedgerOfSku>,
}

/// Compares the items and holds of one database with its ledger.
pub(crate) fn check(report: &mut Report, items: &[Item], holds: &[Hold], ledgers: Ledgers) {
    let mut ledgers = ledgers.finish(report);
    for item in items {
        check_item(report, item, ledgers.get(item.sku.as_str()));
    }
    check_sums(report, items, holds);
    for hold in holds {
        let ledger = ledgers.get_mut(hold.sku.as_str());
        let counted = ledger.and_then(|ledger| ledger.lines.remove(&(hold.order_id, hold.line)));
        let has = counted.map(|(stage, units)| (stage.as_str(), units));
        let never_held = matches!(hold.status.as_str(), "refused" | "tombstone");
        if has != (!never_held).then_some((hold.status.as_str(), hold.quantity)) {
            let says =
                has.map_or("nothing of it".to_owned(), |(stage, units)| format!("{units} units {stage}"));
            let detail =
                format!("order {}, {hold:?}, and the ledger of {} has {says}", hold.order_id, hold.sku);
            report
                .wrong(Violation::new("hold_is_in_ledger", detail).of_order(hold.order_id).of_sku(&hold.sku));
        }
    }
    for (sku, ledger) in ledgers {
        for ((order, line), (stage, units)) in ledger.lines {
            let detail = format!(
                "the ledger of {sku} has {units} units {} for order {order}, line {line}",
                stage.as_str()
            );
            let detail = format!("{detail}, which has no such hold");
            report.wrong(Violation::new("hold_is_in_ledger", detail).of_order(order).of_sku(&sku));
        }
    }
}

impl Ledgers {
    /// With the rows of builds that kept it by sku.
    pub(crate) fn new(by_sku: Vec<LedgerOfSku>) -> Self {
        let key = |row: LedgerOfSku| ((row.sku.clone(), row.first_version), row);
        Self { counted: BTreeMap::new(), by_sku: by_sku.into_iter().map(key).collect() }
    }

    /// Counts the next batch's entries.
    pub(crate) fn batch(&mut self, report: &mut Report, row: &LedgerBatch) {
        let entries: Vec<Entry<'_>> = match serde_json::from_str(&row.entries) {
            Ok(entries) => entries,
            Err(error) => {
                let detail = format!("ledger row {} of epoch {} can't be read: {error}", row.seq, row.epoch);
                report.wrong(Violation::new("ledger_adds_up", detail));
                return;
            }
        };
        for Entry { sku, version, offset, fact } in entries {
            while let Some(earlier) = self.next_of(&sku, version) {
                self.of_sku(report, &earlier);
            }
            self.change(report, row.partition_id, &sku, version, &Change { offset, fact });
        }
    }

    /// The row by sku that comes next, if it comes before that version.
    fn next_of(&mut self, sku: &str, version: i64) -> Option<LedgerOfSku> {
        if self.by_sku.is_empty() {
            return None;
        }
        let next = self.counted.get(sku).map_or(0, |ledger| ledger.version) + 1;
        if next < version { self.by_sku.remove(&(sku.to_owned(), next)) } else { None }
    }

    fn of_sku(&mut self, report: &mut Report, row: &LedgerOfSku) {
        let LedgerOfSku { partition_id, sku, first_version, entries } = row;
        match serde_json::from_str::<Vec<Change>>(entries) {
            Ok(changes) => {
                for (version, change) in (*first_version..).zip(&changes) {
                    self.change(report, *partition_id, sku, version, change);
                }
            }
            Err(error) => {
                let detail = format!("{sku}: the ledger row of entry {first_version} can't be read: {error}");
                report.wrong(Violation::new("ledger_adds_up", detail).of_sku(sku));
            }
        }
    }

    fn change(&mut self, report: &mut Report, partition: i32, sku: &str, version: i64, change: &Change) {
        let ledger = match self.counted.get_mut(sku) {
            Some(ledger) => ledger,
            None => self.counted.entry(sku.to_owned()).or_default(),
        };
        if version != ledger.version + 1 {
            let detail =
                format!("{sku}: ledger entry {} is to come and {version} is there", ledger.version + 1);
            report.wrong(Violation::new("ledger_adds_up", detail).of_sku(sku));
        }
        let Change { offset, fact } = change;
        let Some(unfit) = ledger.entry(fact) else { return };
        let record = Place { topic: Topic::StockCommands.name(), partition, offset: *offset };
        let mut detail = format!("{sku}: ledger entry {}, {fact:?} ({record}): {unfit}", ledger.version);
        let mut found = Violation::new("ledger_adds_up", "").of_sku(sku).at(record);
        if let Some(order) = whose(fact) {
            detail = format!("order {order}, {detail}");
            found = found.of_order(order);
        }
        report.wrong(Violation { detail, ..found });
    }

    /// What all of it leads to.
    fn finish(mut self, report: &mut Report) -> BTreeMap<String, Ledger> {
        while let Some((_, row)) = self.by_sku.pop_first() {
            self.of_sku(report, &row);
        }
        self.counted
    }
}

fn check_item(report: &mut Report, item: &Item, ledger: Option<&Ledger>) {
    let Item { initial, restocked, available, held, sold, .. } = *item;
    let has = Counted { initial, restocked, available, held, sold };
    let sku = &item.sku;
    if !has.is_balanced() {
        report.wrong(Violation::new("units_conserved", format!("{item:?}")).of_sku(sku));
    }
    let (counted, entries) = ledger.map_or_else(Default::default, |ledger| (ledger.counted, ledger.version));
    if item.version != entries {
        let detail = format!("{item:?} has {entries} ledger entries");
        report.wrong(Violation::new("version_counts_entries", detail).of_sku(sku));
    } else if has != counted {
        let detail = format!("{item:?}, its ledger leads to {counted}");
        report.wrong(Violation::new("item_is_its_ledger", detail).of_sku(sku));
    }
    report.units.total += initial + restocked;
    report.units.available += available;
    report.units.held += held;
    report.units.sold += sold;
}

fn check_sums(report: &mut Report, items: &[Item], holds: &[Hold]) {
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
        if (item.held, item.sold) != (held, sold) {
            let detail = format!("{item:?}, holds: {held} held, {sold} sold");
            report.wrong(Violation::new("item_is_sum_of_holds", detail).of_sku(&item.sku));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(sku: &str, versions: std::ops::RangeInclusive<i64>) -> Vec<String> {
        let entry = |version| {
            let fact = if version == 1 {
                r#"{"type":"product_defined","initial":0}"#
            } else {
                r#"{"type":"stock_changed","quantity":1}"#
            };
            format!(r#"{{"sku":"{sku}","version":{version},"offset":{version},"fact":{fact}}}"#)
        };
        versions.map(entry).collect()
    }

    fn batch(seq: i64, entries: &[Vec<String>]) -> LedgerBatch {
        LedgerBatch { partition_id: 0, epoch: 1, seq, entries: format!("[{}]", entries.concat().join(",")) }
    }

    fn of_sku(sku: &str, versions: std::ops::RangeInclusive<i64>) -> LedgerOfSku {
        let first_version = *versions.start();
        let entries = format!("[{}]", changed(sku, versions).join(","));
        LedgerOfSku { partition_id: 0, sku: sku.to_owned(), first_version, entries }
    }

    #[test]
    fn a_ledger_by_sku_by_batch_and_by_sku_again_is_one() {
        let rows = || vec![of_sku("A", 1..=2), of_sku("A", 3..=3), of_sku("B", 1..=1), of_sku("A", 6..=7)];
        let batches =
            [batch(0, &[changed("A", 4..=4), changed("B", 2..=3)]), batch(1, &[changed("A", 5..=5)])];
        let counted = |rows: Vec<LedgerOfSku>, batches: &[LedgerBatch]| {
            let (mut report, mut ledgers) = (Report::default(), Ledgers::new(rows));
            batches.iter().for_each(|row| ledgers.batch(&mut report, row));
            let counted = ledgers.finish(&mut report);
            let available = counted.values().map(|ledger| ledger.counted.available).collect::<Vec<_>>();
            (available, report.violations.len())
        };
        assert_eq!(counted(rows(), &batches), (vec![6, 2], 0));
        let missing = rows().into_iter().filter(|row| row.first_version != 3).collect();
        assert_ne!(counted(missing, &batches).1, 0, "a row by sku is missing");
        assert_ne!(counted(rows(), &batches[..1]).1, 0, "a batch is missing");
    }
}
