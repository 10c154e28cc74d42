//! Properties of any sequence of commands, with repeats, late and reordered ones.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::HashMap;

use common::{World, change, confirm, define, failure_code, id, product, release, reserve, restock, sku};
use domain_types::Sku;
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};
use schemas::{ProductData, StockCommand};
use stock_domain::{Answer, Fact, HoldStatus, Item};

const ORDERS: u32 = 8;
const CUSTOMERS: u32 = 3;
const LIMIT: u32 = 4;

/// A command, and the order in whose name it comes.
type Sent = (u32, StockCommand);

fn any_sku() -> impl Strategy<Value = Sku> {
    prop_oneof![Just(sku("A")), Just(sku("B")), Just(sku("LIMITED")), Just(sku("GHOST"))]
}

/// An order always asks for the same, but its commands come in any order and number.
fn order_command() -> impl Strategy<Value = Sent> {
    (0..ORDERS, any_sku(), 0..4_u8).prop_map(|(order, sku, which)| {
        let order_key = order * 10 + u32::try_from(sku.as_str().len()).unwrap();
        let command = match which {
            0 => reserve(&sku, order % 3 + 1, order % CUSTOMERS),
            1 => confirm(&sku),
            2 => release(&sku),
            _ => restock(&sku),
        };
        (order_key, command)
    })
}

fn admin_command() -> impl Strategy<Value = Sent> {
    let quantity = prop_oneof![-5..=5_i64, any::<i64>()];
    (0..40_u32, any_sku(), quantity, any::<bool>()).prop_map(|(request, sku, quantity, edits)| {
        // A request id is for one change.
        let request = request * 2 + u32::from(edits);
        let limit_per_customer = (sku.as_str() == "LIMITED").then_some(LIMIT);
        let edited = ProductData { limit_per_customer, name: format!("{request}"), ..product() };
        (0, if edits { define(request, &sku, edited, None) } else { change(request, &sku, quantity) })
    })
}

fn commands() -> impl Strategy<Value = Vec<Sent>> {
    vec(prop_oneof![6 => order_command(), 1 => admin_command()], 0..120)
}

fn world() -> World {
    let mut world = World::default();
    for (request, name, limit) in [(9_001, "A", None), (9_002, "B", None), (9_003, "LIMITED", Some(LIMIT))] {
        let product = ProductData { limit_per_customer: limit, ..product() };
        world.apply(0, &define(request, &sku(name), product, Some(6))).unwrap();
    }
    world.load_customers(&sku("LIMITED"), 0..CUSTOMERS);
    world
}

/// What the holds say, counted independently: held and sold units of a sku.
fn held_and_sold(world: &World, sku: &Sku) -> (i64, i64) {
    let of = |wanted: fn(HoldStatus) -> bool| {
        let holds = world.stock.holds().filter(|(_, hold)| hold.sku == *sku && wanted(hold.status));
        holds.map(|(_, hold)| i64::from(hold.asked.unwrap().units.get())).sum()
    };
    (of(|status| status == HoldStatus::Held), of(|status| matches!(status, HoldStatus::Sold { .. })))
}

fn failed(answer: &Answer) -> bool {
    match answer {
        Answer::Saga(_, message) => failure_code(message).is_some(),
        Answer::Admin(_) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_sequence_keeps_every_unit_accounted_for(commands in commands()) {
        let mut world = world();
        for (order, command) in &commands {
            world.apply(*order, command).unwrap();
            for item in world.stock.items() {
                prop_assert_eq!(item.initial + item.restocked, item.available + item.held + item.sold);
                prop_assert!(item.available >= 0 && item.held >= 0 && item.sold >= 0, "{:?}", item);
                prop_assert_eq!((item.held, item.sold), held_and_sold(&world, &item.sku));
                prop_assert!(item.granted >= item.initial + item.restocked);
            }
        }
    }

    #[test]
    fn a_repeat_at_any_later_time_changes_nothing_and_is_answered_alike(
        commands in commands(), again in vec(any::<proptest::sample::Index>(), 0..40)
    ) {
        let mut world = world();
        let mut answered: Vec<(Sent, Answer)> = Vec::new();
        for (order, command) in &commands {
            let answer = world.apply(*order, command).unwrap().answer;
            // A failure is not remembered: the same command may succeed later.
            if !failed(&answer) {
                answered.push(((*order, command.clone()), answer));
            }
            if let Some(index) = again.get(answered.len() % 41).filter(|_| !answered.is_empty()) {
                let ((order, command), answer) = index.get(&answered);
                let before = world.stock.clone();
                let decision = world.apply(*order, command).unwrap();
                prop_assert_eq!(&decision.answer, answer, "{:?}", command);
                prop_assert_eq!(&decision.entry, &None);
                prop_assert_eq!(&world.stock, &before);
            }
        }
        let before = world.stock.clone();
        for ((order, command), answer) in &answered {
            prop_assert_eq!(&world.apply(*order, command).unwrap().answer, answer);
        }
        prop_assert_eq!(&world.stock, &before);
    }

    #[test]
    fn an_immediate_repeat_changes_nothing_even_of_a_failed_command(commands in commands()) {
        let mut world = world();
        for (order, command) in &commands {
            let answer = world.apply(*order, command).unwrap().answer;
            let before = world.stock.clone();
            prop_assert_eq!(world.apply(*order, command).unwrap().answer, answer);
            prop_assert_eq!(&world.stock, &before);
        }
    }

    #[test]
    fn the_limit_per_customer_holds_at_every_moment(commands in commands()) {
        let mut world = world();
        for (order, command) in &commands {
            world.apply(*order, command).unwrap();
            let mut units: HashMap<_, i64> = HashMap::new();
            for (_, hold) in world.stock.holds().filter(|(_, hold)| hold.sku == sku("LIMITED")) {
                if let Some(asked) = hold.asked {
                    *units.entry(asked.customer_id).or_default() += hold.counted_units();
                }
            }
            prop_assert!(units.values().all(|units| *units <= i64::from(LIMIT)), "{:?}", units);
        }
    }

    #[test]
    fn the_ledger_alone_tells_what_the_item_is(commands in commands()) {
        let mut world = world();
        for (order, command) in &commands {
            world.apply(*order, command).unwrap();
        }
        let mut folded: HashMap<Sku, Item> = HashMap::new();
        let mut given_back: HashMap<Sku, i64> = HashMap::new();
        for (sku, entry) in &world.ledger {
            let item = Item::evolve(folded.remove(sku), sku, entry).unwrap();
            folded.insert(sku.clone(), item);
            if let Fact::Released { units, .. } | Fact::Restocked { units, .. } = &entry.fact {
                *given_back.entry(sku.clone()).or_default() += i64::from(units.get());
            }
        }
        prop_assert_eq!(folded.len(), world.stock.item_count());
        for (sku, item) in &folded {
            prop_assert_eq!(Some(item), world.stock.item(sku));
            let entries = world.ledger.iter().filter(|(of, _)| of == sku).count();
            prop_assert_eq!(item.version, i64::try_from(entries).unwrap());
            let back = given_back.get(sku).copied().unwrap_or(0);
            prop_assert_eq!(item.granted, item.initial + item.restocked + back);
        }
    }

    #[test]
    fn more_buyers_than_units_hold_exactly_the_units(stock in 0..30_u32, buyers in 0..60_u32) {
        let (mut world, shoe) = World::with_shoe(product(), stock);
        for buyer in 0..buyers {
            world.apply(buyer, &reserve(&shoe, 1, buyer)).unwrap();
        }
        prop_assert_eq!(world.item(&shoe).held, i64::from(stock.min(buyers)));
    }

    #[test]
    fn batches_that_load_what_they_need_decide_like_one_long_run(
        commands in commands(), batch in 1..20_usize
    ) {
        // As the worker does it: the items stay, everything else is loaded anew for each batch.
        let mut whole = world();
        let mut stored = world();
        for commands in commands.chunks(batch) {
            let mut answers = Vec::new();
            for (order, command) in commands {
                answers.push(whole.apply(*order, command).unwrap());
            }
            let mut loaded = stored.clone();
            loaded.stock.keep_items_only();
            for (order, command) in commands {
                load(&mut loaded, &stored, *order, command);
            }
            for ((order, command), answer) in commands.iter().zip(answers) {
                let decision = loaded.apply(*order, command).unwrap();
                prop_assert_eq!(&decision, &answer);
                // The stored world learns what was decided.
                stored.commands += 1;
                stored.stock.evolve(&decision).unwrap();
            }
        }
        prop_assert_eq!(whole.stock, stored.stock);
    }
}

/// Loads what a command needs, from the stored world's holds and changes.
fn load(loaded: &mut World, stored: &World, order: u32, command: &StockCommand) {
    let order_id = domain_types::OrderId(id(order));
    let key = stock_domain::HoldKey { order_id, line: common::LINE };
    if let Some(hold) = stored.stock.hold(&key) {
        loaded.stock.load_hold(key, hold.clone());
    }
    match command {
        StockCommand::DefineProduct(define) => load_change(loaded, stored, define.request_id),
        StockCommand::ChangeStock(change) => load_change(loaded, stored, change.request_id),
        StockCommand::ReserveStock(reserve) => {
            let of_customer = |hold: &&stock_domain::Hold| {
                hold.sku == reserve.sku
                    && hold.asked.is_some_and(|asked| asked.customer_id == reserve.customer_id)
            };
            let holds = stored.stock.holds().map(|(_, hold)| hold).filter(of_customer);
            let units = holds.map(stock_domain::Hold::counted_units).sum();
            loaded.stock.load_customer_units(reserve.sku.clone(), reserve.customer_id, units);
        }
        StockCommand::ConfirmStock(_) | StockCommand::ReleaseStock(_) | StockCommand::RestockStock(_) => {}
    }
}

fn load_change(loaded: &mut World, stored: &World, request_id: domain_types::RequestId) {
    if let Some(change) = stored.stock.change(&request_id) {
        loaded.stock.load_change(request_id, change.clone());
    }
}
