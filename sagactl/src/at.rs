//! `at` and `diff`: an order, its charge, or a product's stock, as it was, folded from the log.

mod charge;
mod sku;

use std::collections::BTreeMap;

use domain_types::{OrderId, Timestamp};
use messaging::Record;
use order_orchestrator::PresentSaga;
use saga::{Saga, fold};
use schemas::{Message, Topic};
use serde::Serialize;
use serde_json::Value;

use crate::cli::{At, Diff, Subject};
use crate::failure::{Failure, Verdict};
use crate::list::short;
use crate::log::{Walk, recorded_parkings};
use crate::servers::Servers;
use crate::show;
use crate::terminal::{Terminal, Tone, plain};
use crate::view::SagaView;

/// Up to when.
#[derive(Debug, Clone, Copy, Default)]
struct Until {
    time: Option<Timestamp>,
    /// Of the topic that is looked at first.
    offset: Option<i64>,
}

impl Until {
    fn at(time: Timestamp) -> Self {
        Self { time: Some(time), offset: None }
    }

    fn in_time(&self, record: &Record) -> bool {
        self.time.is_none_or(|time| record.time <= time)
    }

    fn has(&self, record: &Record) -> bool {
        self.in_time(record) && self.offset.is_none_or(|offset| record.offset.0 <= offset)
    }
}

/// An input that was applied.
#[derive(Debug, Clone, Serialize)]
struct Applied {
    at: Timestamp,
    rule: &'static str,
    partition: i32,
    offset: i64,
}

/// The order after everything for which `until` holds.
struct Then {
    partition: i32,
    saga: Option<Saga>,
    last: Option<Applied>,
}

async fn then(
    servers: &Servers,
    order_id: OrderId,
    until: impl Fn(&Record) -> bool + Send + 'static,
) -> Result<Then, Failure> {
    let (present, history, mut snapshot) = show::find(servers, order_id).await?;
    let partition = present.partition;
    let positions = snapshot.positions().await?;
    let end =
        positions.iter().find(|position| position.partition == partition).map_or(0, |found| found.next.0);
    let begin = history.iter().map(|entry| entry.offset).min().unwrap_or(0);
    let reader = servers.log()?;
    let folding = tokio::task::spawn_blocking(move || {
        let recorded = recorded_parkings(&reader)?.remove(&partition).unwrap_or_default();
        let mut walk = Walk::of_sagas(recorded);
        let (mut saga, mut last, mut over) = (None, None, false);
        let key = order_id.to_string();
        reader.read(Topic::OrderSaga.name(), partition, begin, end, |record| {
            over = over || !until(&record);
            if over || record.key_str() != Some(&key) {
                return;
            }
            walk.next(record, |record, input| {
                let (after, decision) = fold(saga.take(), &input.message, record.time);
                saga = after;
                if decision.advance().is_some() {
                    let (rule, offset) = (input.message.type_name(), record.offset.0);
                    last = Some(Applied { at: record.time, rule, partition, offset });
                }
            });
        })?;
        Ok::<_, Failure>((saga, last))
    });
    let (saga, last) = folding.await.map_err(|error| Failure::away(error.to_string()))??;
    Ok(Then { partition, saga, last })
}

#[derive(Serialize)]
struct Was {
    order_id: OrderId,
    after: Option<Applied>,
    saga: Option<SagaView>,
}

fn view(order_id: OrderId, then: &Then) -> Option<SagaView> {
    let saga = then.saga.clone()?;
    Some(SagaView::new(&PresentSaga { order_id, partition: then.partition, saga }))
}

pub(crate) async fn at(servers: &Servers, options: &At, terminal: &Terminal) -> Result<Verdict, Failure> {
    let until = Until { time: options.time, offset: options.offset };
    let order = match &options.subject {
        Subject::Order(order) if options.charge => {
            let was = charge::then(servers, *order, until).await?;
            return charge::print(*order, was, terminal);
        }
        Subject::Order(order) => *order,
        Subject::Sku(_) if options.charge => return Err(no_order()),
        Subject::Sku(sku) => {
            let was = sku::then(servers, sku, move |record| until.has(record)).await?;
            return stock_at(sku, was, terminal);
        }
    };
    let then = then(servers, order, move |record| until.has(record)).await?;
    let was = Was { order_id: order, after: then.last.clone(), saga: view(order, &then) };
    if terminal.json {
        terminal.json(&was)?;
    } else {
        match (&was.saga, &was.after) {
            (Some(saga), Some(after)) => print(saga, after, terminal),
            _ => terminal.line(format!("order {order} had not begun then")),
        }
    }
    Ok(Verdict::found_if(was.saga.is_none()))
}

fn no_order() -> Failure {
    Failure::usage("--charge is about an order: name it by its id")
}

#[derive(Serialize)]
struct StockWas {
    after: Option<Applied>,
    stock: Option<sku::StockView>,
}

fn stock_at(
    sku: &domain_types::Sku,
    was: Option<(sku::StockView, Applied)>,
    terminal: &Terminal,
) -> Result<Verdict, Failure> {
    let found = was.is_some();
    if terminal.json {
        let (stock, after) = was.unzip();
        terminal.json(&StockWas { after, stock })?;
    } else if let Some((stock, after)) = was {
        terminal.line(terminal.toned(Tone::Bold, &format!("Product {sku}, version {}", stock.version)));
        terminal.line(format!(
            "  since {} at {} (stock-commands/{}@{})",
            after.rule,
            terminal.time(after.at),
            after.partition,
            after.offset
        ));
        let (initial, restocked) = (stock.initial, stock.restocked);
        let (available, held, sold) = (stock.available, stock.held, stock.sold);
        terminal.line(format!(
            "  {initial} initial + {restocked} restocked = {available} available + {held} held + {sold} sold"
        ));
    } else {
        terminal.line(format!("there was no product {sku} then"));
    }
    Ok(Verdict::found_if(!found))
}

fn print(saga: &SagaView, after: &Applied, terminal: &Terminal) {
    let reason = saga.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let head = format!("Order {} was {}{reason}", saga.order_id, saga.state.as_str());
    terminal.line(terminal.toned(Tone::Bold, &head));
    terminal.line(format!(
        "  since {} at {} (order-saga/{}@{}), version {}",
        after.rule,
        terminal.time(after.at),
        after.partition,
        after.offset,
        saga.version
    ));
    for line in &saga.lines {
        let stage = crate::describe::word(&line.stage);
        terminal.line(format!("  line {}: {} of {}, {stage}", line.line, line.quantity, plain(&line.sku)));
    }
    if let Some(payment) = &saga.payment {
        terminal.line(format!(
            "  payment: {}, {}",
            plain(&payment.method),
            plain(&crate::describe::word(&payment.stage))
        ));
    }
    for waiting in &saga.waiting_for {
        terminal.line(format!("  waited for {}", short(waiting, |at| terminal.time(at))));
    }
}

/// One field that changed.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Change {
    pub(crate) field: String,
    pub(crate) from: Value,
    pub(crate) to: Value,
}

/// The fields that differ, by their path.
pub(crate) fn changes<T: Serialize>(from: &T, to: &T) -> Vec<Change> {
    let flat = |value: &T| {
        let mut fields = BTreeMap::new();
        flatten("", serde_json::to_value(value).unwrap_or(Value::Null), &mut fields);
        fields
    };
    let (from, to) = (flat(from), flat(to));
    let mut names: Vec<&String> = from.keys().chain(to.keys()).collect();
    names.sort();
    names.dedup();
    let value =
        |fields: &BTreeMap<String, Value>, name: &str| fields.get(name).cloned().unwrap_or(Value::Null);
    names
        .into_iter()
        .map(|name| Change { field: name.clone(), from: value(&from, name), to: value(&to, name) })
        .filter(|change| change.from != change.to)
        .collect()
}

fn flatten(path: &str, value: Value, fields: &mut BTreeMap<String, Value>) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                flatten(&join(&name), value, fields);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.into_iter().enumerate() {
                flatten(&join(&index.to_string()), value, fields);
            }
        }
        value => {
            fields.insert(path.to_owned(), value);
        }
    }
}

#[derive(Serialize)]
struct Differs {
    of: String,
    from: Timestamp,
    to: Timestamp,
    changes: Vec<Change>,
}

pub(crate) async fn diff(servers: &Servers, options: &Diff, terminal: &Terminal) -> Result<Verdict, Failure> {
    let (from, to) = (options.from, options.to);
    if from >= to {
        return Err(Failure::usage("--from must be before --to"));
    }
    let (until_from, until_to) =
        (move |record: &Record| record.time <= from, move |record: &Record| record.time <= to);
    let (of, changes) = match &options.subject {
        Subject::Order(order) if options.charge => {
            let charge = |was: Option<(charge::ChargeView, charge::After)>| was.map(|(charge, _)| charge);
            let earlier = charge(charge::then(servers, *order, Until::at(from)).await?);
            let later = charge(charge::then(servers, *order, Until::at(to)).await?);
            (format!("the charge of order {order}"), changes(&earlier, &later))
        }
        Subject::Sku(_) if options.charge => return Err(no_order()),
        Subject::Order(order) => {
            let earlier = then(servers, *order, until_from).await?;
            let later = then(servers, *order, until_to).await?;
            (format!("order {order}"), changes(&view(*order, &earlier), &view(*order, &later)))
        }
        Subject::Sku(sku) => {
            let stock = |was: Option<(sku::StockView, Applied)>| was.map(|(stock, _)| stock);
            let earlier = stock(sku::then(servers, sku, until_from).await?);
            let later = stock(sku::then(servers, sku, until_to).await?);
            (format!("product {sku}"), changes(&earlier, &later))
        }
    };
    if terminal.json {
        terminal.json(&Differs { of, from, to, changes })?;
        return Ok(Verdict::Fine);
    }
    if changes.is_empty() {
        terminal.line(format!("nothing happened to {of} between them"));
    }
    for change in &changes {
        terminal.line(format!(
            "{}: {} -> {}",
            plain(&change.field),
            plain(&change.from.to_string()),
            plain(&change.to.to_string())
        ));
    }
    Ok(Verdict::Fine)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_named_by_its_path() {
        let from = json!({"a": 1, "lines": [{"stage": "held", "units": 2}], "gone": true});
        let to = json!({"a": 1, "lines": [{"stage": "sold", "units": 2}], "came": "x"});
        let found: Vec<String> = changes(&from, &to)
            .iter()
            .map(|change| format!("{} {} {}", change.field, change.from, change.to))
            .collect();
        assert_eq!(found, ["came null \"x\"", "gone true null", "lines.0.stage \"held\" \"sold\""]);
    }
}
