//! How the payment service reacts to the events of orders and inventory.
//!
//! `OrderCancelled` comes after `OrderCreated`, because they share a topic and a key.
//! `InventoryFailed` may come before, between or after them. Whichever of `OrderCancelled` and
//! `InventoryFailed` reaches a payment first refunds it; the other then has nothing to do.
//!
//! Nothing is taken for an order whose deadline has passed, since it would only be refunded: under
//! more load than the services can carry, what can still be confirmed comes first.

use contracts::inventory::{InventoryFailed, InventoryFailure};
use contracts::orders::{OrderCancelled, OrderCreated};
use contracts::payments::{
    PaymentCompleted, PaymentEvent, PaymentFailed, PaymentFailure, PaymentRefunded,
};
use contracts::{Line, Money, OrderId};
use reel_core::model::{Impossible, Message};

use super::{Account, Payment, Payments, Status};

reel_core::inputs! {
    /// What the payment service reacts to.
    pub enum PaymentInput { OrderCreated, OrderCancelled, InventoryFailed }
}

pub(super) fn react(
    state: &Payments,
    input: &PaymentInput,
) -> Result<Option<PaymentEvent>, Impossible> {
    let payment = state.payments.get(&input.order_id());
    match (input, payment.map(|payment| payment.status)) {
        (PaymentInput::OrderCreated(e), None) => Ok(Some(pay(e, state.accounts.get(&e.customer)))),
        (PaymentInput::OrderCreated(_), Some(_)) => Ok(None),
        (PaymentInput::OrderCancelled(_), None) => {
            Err(impossible(input, "whose creation was never seen"))
        }
        (PaymentInput::InventoryFailed(e), None | Some(Status::Failed(_)))
            if matches!(e.reason, InventoryFailure::OutOfStock | InventoryFailure::TooLate) =>
        {
            Err(impossible(input, "which was never paid"))
        }
        (PaymentInput::InventoryFailed(_), None) => Ok(None),
        (
            PaymentInput::OrderCancelled(_) | PaymentInput::InventoryFailed(_),
            Some(Status::Completed),
        ) => Ok(payment.map(|payment| refund(input.order_id(), payment))),
        (
            PaymentInput::OrderCancelled(_) | PaymentInput::InventoryFailed(_),
            Some(Status::Failed(_) | Status::Refunded),
        ) => Ok(None),
    }
}

/// Takes no money for an order whose deadline has passed.
pub(super) fn react_expired(
    state: &Payments,
    input: &PaymentInput,
) -> Result<Option<PaymentEvent>, Impossible> {
    match input {
        PaymentInput::OrderCreated(e) if state.payments.get(&e.order_id).is_none() => {
            Ok(Some(fail(e, PaymentFailure::TooLate)))
        }
        _ => react(state, input),
    }
}

fn pay(order: &OrderCreated, account: Option<&Account>) -> PaymentEvent {
    let (order_id, customer, amount) = (order.order_id, order.customer.clone(), order.total);
    match failure(account, amount) {
        Some(reason) => fail(order, reason),
        None => PaymentCompleted {
            order_id,
            customer,
            amount,
            lines: order.lines.iter().map(Line::from).collect(),
        }
        .into(),
    }
}

fn fail(order: &OrderCreated, reason: PaymentFailure) -> PaymentEvent {
    let (order_id, customer, amount) = (order.order_id, order.customer.clone(), order.total);
    PaymentFailed { order_id, customer, amount, reason }.into()
}

fn failure(account: Option<&Account>, amount: Money) -> Option<PaymentFailure> {
    match account {
        None => Some(PaymentFailure::UnknownAccount),
        Some(account) if account.currency != amount.currency => Some(PaymentFailure::WrongCurrency),
        Some(account) if account.balance < amount.amount => Some(PaymentFailure::InsufficientFunds),
        Some(_) => None,
    }
}

fn refund(order_id: OrderId, payment: &Payment) -> PaymentEvent {
    PaymentRefunded { order_id, customer: payment.customer.clone(), amount: payment.amount }.into()
}

fn impossible(input: &PaymentInput, why: &str) -> Impossible {
    Impossible::because(format!("{} for order {}, {why}", input.name(), input.order_id()))
}

impl PaymentInput {
    /// The order that the event is about.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::OrderCreated(e) => e.order_id,
            Self::OrderCancelled(e) => e.order_id,
            Self::InventoryFailed(e) => e.order_id,
        }
    }
}
