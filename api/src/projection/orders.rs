//! `order-events` into `orders`.

use std::collections::{HashMap, HashSet};

use domain_types::{MoneyError, OrderId, RequestId};
use messaging::{Handler, HandlerError, HandlerFactory, Outputs, Ownership, Received, Record, Traced, Tx};
use schemas::{DecodeError, Envelope, Message, OrderEvent};

use super::store;
use crate::orders::model::Order;
use crate::remembered::Remembered;

/// Most orders that a partition's owner remembers.
const MAX_REMEMBERED: usize = 20_000;

/// An event that can't be applied.
#[derive(Debug, thiserror::Error)]
enum EventError {
    #[error("the event names no order")]
    NoOrder,
    #[error("order {order}: version {found} came, {expected} is next")]
    Gap { order: OrderId, expected: i64, found: i64 },
    #[error("order {order}: its lines can't be summed up")]
    Money {
        order: OrderId,
        #[source]
        source: MoneyError,
    },
}

/// Makes the handler of a partition of `order-events`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orders;

/// Applies the events of one partition.
#[derive(Debug)]
pub(crate) struct OrdersHandler {
    /// Orders as they are committed; only those that may still change.
    remembered: Remembered<Order>,
    /// Orders of the open transaction.
    open: HashMap<OrderId, Order>,
}

impl Default for OrdersHandler {
    fn default() -> Self {
        Self { remembered: Remembered::new(MAX_REMEMBERED), open: HashMap::new() }
    }
}

impl HandlerFactory for Orders {
    type Handler = OrdersHandler;

    async fn take_over(&self, _ownership: Ownership) -> Result<OrdersHandler, HandlerError> {
        Ok(OrdersHandler::default())
    }
}

impl Handler for OrdersHandler {
    type Input = Envelope<OrderEvent>;

    fn decode(&self, record: &Record) -> Result<Self::Input, DecodeError> {
        Envelope::decode(&record.value)
    }

    fn traced(&self, input: &Self::Input) -> Option<Traced> {
        Some(Traced {
            message_id: input.message_id,
            message_type: input.message.type_name(),
            order_id: input.order_id,
        })
    }

    async fn handle(
        &mut self,
        tx: &mut Tx,
        batch: &[Received<Self::Input>],
        _outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        self.open = self.load(tx, batch).await?;
        let stored: HashSet<OrderId> = self.open.keys().copied().collect();
        let mut changed = HashSet::new();
        let mut answered = Vec::new();
        for Received { input, .. } in batch {
            if apply(&mut self.open, input, &mut answered).map_err(HandlerError::permanent)?
                && let Some(id) = input.order_id
            {
                changed.insert(id);
            }
        }
        let changed: Vec<(&Order, bool)> =
            changed.iter().filter_map(|id| Some((self.open.get(id)?, !stored.contains(id)))).collect();
        store::forget_requests(tx, &answered).await?;
        store::save_orders(tx, &changed).await?;
        Ok(())
    }

    fn committed(&mut self) {
        for (id, order) in self.open.drain().filter(|(_, order)| !order.is_final) {
            self.remembered.put(id, order);
        }
    }

    fn rolled_back(&mut self) {
        self.remembered.forget_all();
        self.open.clear();
    }
}

impl OrdersHandler {
    /// The orders of a batch as they are now.
    async fn load(
        &mut self,
        tx: &mut Tx,
        batch: &[Received<Envelope<OrderEvent>>],
    ) -> Result<HashMap<OrderId, Order>, HandlerError> {
        let mut orders = HashMap::with_capacity(batch.len());
        let mut wanted = HashSet::new();
        for id in batch.iter().filter_map(|received| received.input.order_id) {
            match self.remembered.take(id) {
                Some(order) => {
                    orders.insert(id, order);
                }
                None if !orders.contains_key(&id) => {
                    wanted.insert(id);
                }
                None => {}
            }
        }
        let wanted: Vec<OrderId> = wanted.into_iter().collect();
        orders.extend(store::load_orders(tx, &wanted).await?);
        Ok(orders)
    }
}

/// Applies one event; `false` if it is not newer than what is there.
fn apply(
    orders: &mut HashMap<OrderId, Order>,
    input: &Envelope<OrderEvent>,
    answered: &mut Vec<RequestId>,
) -> Result<bool, EventError> {
    let id = input.order_id.ok_or(EventError::NoOrder)?;
    let present = orders.get_mut(&id);
    match (&input.message, present) {
        (OrderEvent::OrderPlaced(event), None) => {
            let order = Order::placed(id, event).map_err(|source| EventError::Money { order: id, source })?;
            orders.insert(id, order);
            Ok(true)
        }
        (OrderEvent::OrderPlaced(_), Some(_)) => Ok(false),
        (OrderEvent::OrderChanged(event), present) => {
            let expected = present.as_ref().map_or(2, |order| order.version + 1);
            match present {
                Some(order) if event.version == expected => {
                    order.apply(event);
                    answered.extend(event.request.as_ref().map(|request| request.id));
                    Ok(true)
                }
                Some(_) if event.version < expected => Ok(false),
                _ => Err(EventError::Gap { order: id, expected, found: event.version }),
            }
        }
    }
}
