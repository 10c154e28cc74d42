//! Good logs pass; each way of serving somebody out of turn is found.
#![allow(clippy::unwrap_used)]

use auditor::Place;
use auditor::first_come::{FirstCome, Orders, Walk};
use domain_types::{
    Attempt, Currency, CustomerId, LineNumber, MessageId, Money, OrderId, Quantity, RequestId, Sku, Timestamp,
};
use schemas::{
    ChangeStock, Envelope, OrderSagaMessage, OrderedLine, PaymentMethod, PlaceOrder, ReleaseStock,
    ReserveRefusal, ReserveStock, StockCommand, StockRefused, StockReleased, StockReserved, Ticket,
};
use uuid::Uuid;

fn order(number: u128) -> OrderId {
    OrderId(Uuid::from_u128(number))
}

fn sku() -> Sku {
    Sku::new("SHOE").unwrap()
}

fn envelope<M: schemas::Message>(order_id: Option<OrderId>, message: impl Into<M>) -> Envelope<M> {
    Envelope {
        message_id: MessageId(Uuid::nil()),
        order_id,
        causation_id: None,
        occurred_at: Timestamp::from_millis(0),
        message: message.into(),
    }
}

/// What the stock worker said to a reserve.
#[derive(Clone, Copy)]
enum Said {
    Granted,
    SoldOut,
    Closed,
}

enum Step {
    /// Order, units, ticket (generation, number), answer.
    Reserve(u128, u32, Option<(i64, i64)>, Said),
    /// Order, units that came back.
    Release(u128, u32),
    Change(i64),
    /// A reserve that arrives once more.
    Again(u128, u32),
}

fn check(steps: &[Step]) -> FirstCome {
    let (line, attempt) = (LineNumber(0), Attempt(1));
    let mut orders = Orders::default();
    let mut commands: Vec<Envelope<StockCommand>> = Vec::new();
    let reserve = |id: u128, units: u32| {
        let reserve = ReserveStock {
            line,
            attempt,
            sku: sku(),
            quantity: Quantity::new(units).unwrap(),
            customer_id: CustomerId(Uuid::nil()),
            ordered_at: Timestamp::from_millis(0),
        };
        envelope(Some(order(id)), reserve)
    };
    for step in steps {
        match *step {
            Step::Reserve(id, units, ticket, said) => {
                orders.note(envelope::<OrderSagaMessage>(
                    Some(order(id)),
                    PlaceOrder {
                        customer_id: CustomerId(Uuid::nil()),
                        lines: vec![OrderedLine {
                            sku: sku(),
                            name: "Shoe".to_owned(),
                            option: None,
                            unit_price: Money::new(1, Currency::KRW),
                            quantity: Quantity::new(units).unwrap(),
                            product_version: 1,
                            ticket: ticket.map(|(generation, number)| Ticket { generation, number }),
                        }],
                        payment_method: Some(PaymentMethod("tok_approve".to_owned())),
                        fingerprint: "f".to_owned(),
                        publish_before: Timestamp::from_millis(0),
                        policy: None,
                        definition: 1,
                    },
                ));
                let refused = |reason| StockRefused { line, attempt, reason, stock_version: 1 };
                orders.note(match said {
                    Said::Granted => {
                        envelope(Some(order(id)), StockReserved { line, attempt, stock_version: 1 })
                    }
                    Said::SoldOut => envelope(Some(order(id)), refused(ReserveRefusal::SoldOut)),
                    Said::Closed => envelope(Some(order(id)), refused(ReserveRefusal::SaleClosed)),
                });
                commands.push(reserve(id, units));
            }
            Step::Again(id, units) => commands.push(reserve(id, units)),
            Step::Release(id, units) => {
                orders.note(envelope(
                    Some(order(id)),
                    StockReleased { line, attempt, units, stock_version: 1 },
                ));
                commands.push(envelope(Some(order(id)), ReleaseStock { line, attempt, sku: sku() }));
            }
            Step::Change(quantity) => {
                let change = ChangeStock {
                    request_id: RequestId(Uuid::nil()),
                    sku: sku(),
                    quantity,
                    reason: "r".to_owned(),
                };
                commands.push(envelope(None, change));
            }
        }
    }
    let mut walk = Walk::default();
    for (offset, command) in (0..).zip(&commands) {
        let at = Place { topic: "stock-commands", partition: 0, offset };
        walk.command(&orders, command, at);
    }
    walk.finish(&orders)
}

fn rules(found: &FirstCome) -> Vec<&'static str> {
    found.violations.iter().map(|violation| violation.rule).collect()
}

#[test]
fn o6_whoever_comes_after_the_last_unit_is_refused_and_that_is_fair() {
    let found = check(&[
        Step::Reserve(1, 1, Some((7, 1)), Said::Granted),
        Step::Reserve(2, 1, Some((7, 2)), Said::Granted),
        Step::Reserve(3, 1, None, Said::SoldOut),
        Step::Reserve(4, 1, None, Said::SoldOut),
    ]);
    assert_eq!((rules(&found).len(), found.reserves), (0, 4));
    assert!(found.skus_without_promise.contains("SHOE"), "two orders came without a ticket");
}

#[test]
fn o6_a_later_order_served_before_an_earlier_one_is_found() {
    let found = check(&[Step::Reserve(1, 1, None, Said::SoldOut), Step::Reserve(2, 1, None, Said::Granted)]);
    assert_eq!(rules(&found), ["first_come"]);
    let detail = &found.violations.first().unwrap().detail;
    assert!(detail.contains("SHOE") && detail.contains("stock-commands/0@1"), "{detail}");
    assert!(detail.contains(&order(1).to_string()) && detail.contains(&order(2).to_string()), "{detail}");
}

#[test]
fn o6_a_smaller_order_may_be_served_after_a_larger_one_was_refused() {
    let smaller =
        check(&[Step::Reserve(1, 5, None, Said::SoldOut), Step::Reserve(2, 4, None, Said::Granted)]);
    assert_eq!(rules(&smaller).len(), 0);
    let not_smaller = check(&[
        Step::Reserve(1, 5, None, Said::SoldOut),
        Step::Reserve(2, 3, None, Said::SoldOut),
        Step::Reserve(3, 4, None, Said::Granted),
    ]);
    assert_eq!(rules(&not_smaller), ["first_come"], "three units were refused in between");
}

#[test]
fn o6_units_that_came_back_or_were_added_begin_a_new_round() {
    for came in [Step::Release(9, 1), Step::Change(1)] {
        let found = check(&[
            Step::Reserve(1, 1, None, Said::SoldOut),
            came,
            Step::Reserve(2, 1, None, Said::Granted),
        ]);
        assert_eq!(rules(&found).len(), 0);
    }
    for nothing in [Step::Release(9, 0), Step::Change(-1), Step::Reserve(9, 1, None, Said::Closed)] {
        let found = check(&[
            Step::Reserve(1, 1, None, Said::SoldOut),
            nothing,
            Step::Reserve(2, 1, None, Said::Granted),
        ]);
        assert_eq!(rules(&found), ["first_come"]);
    }
}

#[test]
fn o6_a_repeated_reserve_counts_once_where_it_was_first() {
    let found = check(&[
        Step::Reserve(1, 1, None, Said::Granted),
        Step::Reserve(2, 1, None, Said::SoldOut),
        Step::Again(1, 1),
    ]);
    assert_eq!((rules(&found).len(), found.reserves), (0, 2));
}

#[test]
fn o6_a_ticket_that_was_not_honoured_is_found_unless_units_were_taken_away_or_the_count_was_lost() {
    let sold_out =
        [Step::Reserve(1, 1, Some((7, 1)), Said::Granted), Step::Reserve(2, 1, Some((7, 2)), Said::SoldOut)];
    let found = check(&sold_out);
    assert_eq!((rules(&found), found.tickets), (vec!["ticket"], 2));
    let refused = found.violations.first().unwrap();
    assert_eq!((refused.order, refused.sku.as_deref()), (Some(order(2).uuid()), Some("SHOE")));
    assert_eq!(refused.record, Some(Place { topic: "stock-commands", partition: 0, offset: 1 }));
    let [first, second] = sold_out;
    assert_eq!(rules(&check(&[first, Step::Change(-1), second])).len(), 0);
    let lost = check(&[
        Step::Reserve(1, 1, Some((7, 1)), Said::Granted),
        Step::Reserve(2, 1, Some((8, 1)), Said::SoldOut),
    ]);
    assert_eq!((rules(&lost).len(), lost.tickets), (0, 0));
}
