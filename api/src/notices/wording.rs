//! What is told, in words.

use domain_types::OrderId;
use schemas::{OrderChanged, PaymentState};

/// A mail's subject and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wording {
    pub(super) subject: String,
    pub(super) body: String,
}

/// What a change says about the order's payment; `None`: nothing that its customer has to hear by mail.
pub(super) fn wording(order: OrderId, change: &OrderChanged) -> Option<Wording> {
    let payment = change.payment.as_ref()?;
    let amount = |amount: Option<domain_types::Money>| {
        amount.map_or_else(String::new, |money| {
            format!(" ({} {}, minor units)", money.amount, money.currency.code())
        })
    };
    let (subject, text) = match payment.state {
        PaymentState::Approved => {
            ("is paid", format!("Your payment was approved{}.", amount(payment.charged)))
        }
        PaymentState::Declined => {
            ("was not paid", "Your payment was declined. Nothing was charged, the order is over.".to_owned())
        }
        PaymentState::OverLimit => (
            "was not paid",
            "Your payment is over your limit. Nothing was charged, the order is over.".to_owned(),
        ),
        PaymentState::Abandoned => (
            "was not paid",
            "Your payment was not completed. Nothing was charged, the order is over.".to_owned(),
        ),
        PaymentState::Refunded => {
            ("is refunded", format!("Your payment was given back{}.", amount(payment.refunded)))
        }
        PaymentState::Pending | PaymentState::Closing | PaymentState::Closed | PaymentState::Refunding => {
            return None;
        }
    };
    Some(Wording { subject: format!("Order {order} {subject}"), body: format!("{text}\n\nOrder: {order}\n") })
}
