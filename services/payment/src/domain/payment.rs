//! One payment: what was said to an order.

use contracts::payments::{PaymentEvent, PaymentFailure};
use contracts::{CustomerId, Money, OrderId};

use super::Payments;

/// What was said to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Whose account it is about.
    pub customer: CustomerId,
    /// How much.
    pub amount: Money,
    /// What was said.
    pub status: Status,
}

/// What was said to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The money was taken.
    Completed,
    /// The money was not taken.
    Failed(PaymentFailure),
    /// The money was taken and given back.
    Refunded,
}

pub(super) fn evolve(state: &mut Payments, event: &PaymentEvent) {
    let mut say = |order_id: OrderId, customer: &CustomerId, amount, status| {
        state.payments.put(order_id, Payment { customer: customer.clone(), amount, status });
    };
    match event {
        PaymentEvent::PaymentCompleted(e) => say(e.order_id, &e.customer, e.amount, Status::Completed),
        PaymentEvent::PaymentFailed(e) => say(e.order_id, &e.customer, e.amount, Status::Failed(e.reason)),
        PaymentEvent::PaymentRefunded(e) => say(e.order_id, &e.customer, e.amount, Status::Refunded),
        PaymentEvent::AccountCredited(_) => {}
    }
}

impl Status {
    /// One word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed(_) => "failed",
            Self::Refunded => "refunded",
        }
    }
}
