//! A world of one partition: everything is loaded, commands are applied in order.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "shared by several test programs"
)]

use domain_types::{
    Attempt, Currency, CustomerId, LineNumber, MessageId, Money, OrderId, Quantity, RequestId, Sku, Timestamp,
};
use schemas::{
    ChangeStock, ConfirmStock, DefineProduct, OrderSagaMessage, ProductData, ProductKind, ReleaseStock,
    ReserveRefusal, ReserveStock, RestockStock, StockCommand, StockConfirmed, StockRefused, StockReleased,
    StockReserved, StockRestocked,
};
use stock_domain::{Answer, Cause, Decision, Entry, Item, Stock, StockError};

pub const LINE: LineNumber = LineNumber(0);

pub fn id(number: u32) -> uuid::Uuid {
    uuid::Uuid::from_u128(u128::from(number) + 1)
}

pub fn sku(name: &str) -> Sku {
    Sku::new(name).unwrap()
}

pub fn units(number: u32) -> Quantity {
    Quantity::new(number).unwrap()
}

pub fn product() -> ProductData {
    ProductData {
        name: "Shoe".into(),
        option: None,
        category: "shoes".into(),
        kind: ProductKind::Limited,
        price: Money::new(129_000, Currency::KRW),
        sale: None,
        limit_per_customer: None,
    }
}

pub fn define(request: u32, sku: &Sku, product: ProductData, initial_stock: Option<u32>) -> StockCommand {
    let request_id = RequestId(id(request));
    DefineProduct { request_id, sku: sku.clone(), product, initial_stock }.into()
}

pub fn change(request: u32, sku: &Sku, quantity: i64) -> StockCommand {
    let request_id = RequestId(id(request));
    ChangeStock { request_id, sku: sku.clone(), quantity, reason: "delivery".into() }.into()
}

pub fn reserve_line(line: LineNumber, sku: &Sku, quantity: u32, customer: u32) -> StockCommand {
    ReserveStock {
        line,
        attempt: Attempt::FIRST,
        sku: sku.clone(),
        quantity: units(quantity),
        customer_id: CustomerId(id(customer)),
        ordered_at: Timestamp::from_millis(0),
    }
    .into()
}

pub fn reserve(sku: &Sku, quantity: u32, customer: u32) -> StockCommand {
    reserve_line(LINE, sku, quantity, customer)
}

pub fn confirm(sku: &Sku) -> StockCommand {
    ConfirmStock { line: LINE, attempt: Attempt::FIRST, sku: sku.clone(), silent: false }.into()
}

pub fn release(sku: &Sku) -> StockCommand {
    ReleaseStock { line: LINE, attempt: Attempt::FIRST, sku: sku.clone() }.into()
}

pub fn restock(sku: &Sku) -> StockCommand {
    RestockStock { line: LINE, attempt: Attempt::FIRST, sku: sku.clone() }.into()
}

pub fn reserved(stock_version: i64) -> OrderSagaMessage {
    StockReserved { line: LINE, attempt: Attempt::FIRST, stock_version }.into()
}

pub fn refused(reason: ReserveRefusal, stock_version: i64) -> OrderSagaMessage {
    StockRefused { line: LINE, attempt: Attempt::FIRST, reason, stock_version }.into()
}

pub fn confirmed(stock_version: i64) -> OrderSagaMessage {
    StockConfirmed { line: LINE, attempt: Attempt::FIRST, stock_version }.into()
}

pub fn released(units: u32, stock_version: i64) -> OrderSagaMessage {
    StockReleased { line: LINE, attempt: Attempt::FIRST, units, stock_version }.into()
}

pub fn restocked(units: u32, stock_version: i64) -> OrderSagaMessage {
    StockRestocked { line: LINE, attempt: Attempt::FIRST, units, stock_version }.into()
}

pub fn failure_code(message: &OrderSagaMessage) -> Option<&str> {
    if let OrderSagaMessage::StockCommandFailed(failed) = message { Some(&failed.code) } else { None }
}

#[derive(Default, Clone)]
pub struct World {
    pub stock: Stock,
    pub ledger: Vec<(Sku, Entry)>,
    pub commands: i64,
}

impl World {
    /// A world with one product, `SHOE`.
    pub fn with_shoe(product: ProductData, initial: u32) -> (Self, Sku) {
        let (mut world, shoe) = (Self::default(), sku("SHOE"));
        world.apply(9_999, &define(9_999, &shoe, product, Some(initial))).unwrap();
        (world, shoe)
    }

    /// Says that these customers have no units yet.
    pub fn load_customers(&mut self, sku: &Sku, customers: std::ops::Range<u32>) {
        for customer in customers {
            self.stock.load_customer_units(sku.clone(), CustomerId(id(customer)), 0);
        }
    }

    pub fn apply(&mut self, order: u32, command: &StockCommand) -> Result<Decision, StockError> {
        self.commands += 1;
        let cause = Cause {
            message_id: MessageId(id(u32::try_from(self.commands).unwrap() + 1_000_000)),
            offset: self.commands,
            at: Timestamp::from_millis(self.commands),
        };
        let decision = self.stock.decide(Some(OrderId(id(order))), command, cause)?;
        self.stock.evolve(&decision)?;
        self.ledger.extend(decision.entry.clone());
        Ok(decision)
    }

    /// The reply to an order's command.
    pub fn ask(&mut self, order: u32, command: &StockCommand) -> OrderSagaMessage {
        match self.apply(order, command).unwrap().answer {
            Answer::Saga(to, message) => {
                assert_eq!(to, OrderId(id(order)));
                message
            }
            Answer::Admin(event) => panic!("an admin's answer to an order's command: {event:?}"),
        }
    }

    pub fn item(&self, sku: &Sku) -> Item {
        self.stock.item(sku).unwrap().clone()
    }

    /// `[initial, restocked, available, held, sold, granted]`
    pub fn counts(&self, sku: &Sku) -> [i64; 6] {
        let item = self.item(sku);
        [item.initial, item.restocked, item.available, item.held, item.sold, item.granted]
    }
}
