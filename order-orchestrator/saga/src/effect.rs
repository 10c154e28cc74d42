//! What is to be published.

use domain_types::{LineNumber, Sku};
use schemas::{
    ChargePayment, ClosePayment, ConfirmStock, OrderEvent, PaymentCommand, RefundPayment, ReleaseStock,
    ReserveStock, RestockStock, StepName, StockCommand, TimerName,
};

use crate::state::{CommandRef, Line, Saga};

/// A message that a decision leads to. Its place among the effects of its input is the index of its message id.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// For the stock worker; key: the sku.
    Stock {
        /// The record's key.
        sku: Sku,
        /// The command.
        command: StockCommand,
    },
    /// For the payment worker; key: the customer.
    Payment(PaymentCommand),
    /// For everybody; key: the order.
    Event(OrderEvent),
}

/// The command that `saga` now waits for under this name, made of its state. `None` if there is no such line or payment.
pub(crate) fn command(saga: &Saga, CommandRef { step, line }: CommandRef) -> Option<Effect> {
    match step {
        StepName::Reserve => stock(saga, line?, |number, line| {
            ReserveStock {
                line: number,
                attempt: line.attempt,
                sku: line.sku.clone(),
                quantity: line.quantity,
                customer_id: saga.customer_id,
                ordered_at: saga.ordered_at,
            }
            .into()
        }),
        StepName::Confirm => stock(saga, line?, |number, line| {
            let silent = saga.definition().step(StepName::Confirm).is_silent(line.attempt);
            ConfirmStock { line: number, attempt: line.attempt, sku: line.sku.clone(), silent }.into()
        }),
        StepName::Release => stock(saga, line?, |number, line| {
            ReleaseStock { line: number, attempt: line.attempt, sku: line.sku.clone() }.into()
        }),
        StepName::Restock => stock(saga, line?, |number, line| {
            RestockStock { line: number, attempt: line.attempt, sku: line.sku.clone() }.into()
        }),
        StepName::Charge | StepName::Close | StepName::Refund => payment(saga, step),
    }
}

fn stock(
    saga: &Saga,
    number: LineNumber,
    make: impl FnOnce(LineNumber, &Line) -> StockCommand,
) -> Option<Effect> {
    let line = saga.line(number)?;
    Some(Effect::Stock { sku: line.sku.clone(), command: make(number, line) })
}

fn payment(saga: &Saga, step: StepName) -> Option<Effect> {
    let payment = saga.payment.as_ref()?;
    let (customer_id, attempt) = (saga.customer_id, payment.attempt);
    let command = match step {
        StepName::Charge => ChargePayment {
            customer_id,
            attempt,
            amount: saga.amount,
            method: payment.method.clone(),
            deadline: saga
                .timer
                .filter(|timer| timer.name == TimerName::ChargeDeadline)
                .map_or(saga.now, |timer| timer.due_at),
        }
        .into(),
        StepName::Close => ClosePayment { customer_id, attempt }.into(),
        StepName::Refund => {
            RefundPayment { customer_id, attempt, amount: payment.charged.unwrap_or(saga.amount) }.into()
        }
        StepName::Reserve | StepName::Confirm | StepName::Release | StepName::Restock => return None,
    };
    Some(Effect::Payment(command))
}
