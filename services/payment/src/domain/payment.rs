//! One payment: the answer to an order.

use contracts::payments::{PaymentEvent, PaymentFailure};
use contracts::{CustomerId, Money, OrderId};

use super::Payments;

/// The answer to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The customer whose account pays.
    pub customer: CustomerId,
    /// The order's total.
    pub amount: Money,
    /// Whether the money was taken.
    pub status: Status,
}

/// Whether the money for an order was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The money was taken.
    Completed,
    /// The money was not taken.
    Failed(PaymentFailure),
    /// The money was taken and refunded.
    Refunded,
}

pub(super) fn evolve(state: &mut Payments, event: &PaymentEvent) {
    let mut put = |order_id: OrderId, customer: &CustomerId, amount, status| {
        state.payments.put(order_id, Payment { customer: customer.clone(), amount, status });
    };
    match event {
        PaymentEvent::PaymentCompleted(e) => {
            put(e.order_id, &e.customer, e.amount, Status::Completed);
        }
        PaymentEvent::PaymentFailed(e) => {
            put(e.order_id, &e.customer, e.amount, Status::Failed(e.reason));
        }
        PaymentEvent::PaymentRefunded(e) => {
            put(e.order_id, &e.customer, e.amount, Status::Refunded);
        }
        PaymentEvent::AccountCredited(_) => {}
    }
}

impl Status {
    /// The status in one word, as it is stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed(_) => "failed",
            Self::Refunded => "refunded",
        }
    }
}
