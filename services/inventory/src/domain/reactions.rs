//! How the inventory service reacts to the events of payments and orders.
//!
//! Their topics have no order relative to each other. If `OrderCancelled` comes first, the answer
//! is `InventoryFailed` with the reason `order_cancelled`, and the `PaymentCompleted` that comes
//! later takes no stock. Nothing is impossible here: the two may come in any order, or alone.
//!
//! Nothing is taken for an order whose deadline has passed, since it would only be restored.

use contracts::inventory::{
    InventoryEvent, InventoryFailed, InventoryFailure, InventoryRestored, InventoryUpdated,
};
use contracts::orders::OrderCancelled;
use contracts::payments::PaymentCompleted;
use contracts::{Line, OrderId, Shortage, Sku};
use reel_core::model::Rows;

use super::{Inventory, Reservation, Stock};

reel_core::inputs! {
    /// What the inventory service reacts to.
    pub enum InventoryInput { PaymentCompleted, OrderCancelled }
}

pub(super) fn react(state: &Inventory, input: &InventoryInput) -> Option<InventoryEvent> {
    match (input, state.reservations.get(&input.order_id())) {
        (InventoryInput::PaymentCompleted(e), None) => Some(take(e, &state.stock)),
        (InventoryInput::OrderCancelled(e), None) => {
            Some(fail(e.order_id, InventoryFailure::OrderCancelled))
        }
        (InventoryInput::OrderCancelled(e), Some(Reservation::Taken { lines })) => {
            Some(InventoryRestored { order_id: e.order_id, lines: lines.clone() }.into())
        }
        (
            InventoryInput::OrderCancelled(_),
            Some(Reservation::Failed { .. } | Reservation::Restored { .. }),
        ) => None,
        (InventoryInput::PaymentCompleted(_), Some(_)) => None,
    }
}

/// Takes no stock for an order whose deadline has passed.
pub(super) fn react_expired(state: &Inventory, input: &InventoryInput) -> Option<InventoryEvent> {
    match (input, state.reservations.get(&input.order_id())) {
        (InventoryInput::PaymentCompleted(e), None) => {
            Some(fail(e.order_id, InventoryFailure::TooLate))
        }
        _ => react(state, input),
    }
}

fn take(payment: &PaymentCompleted, stock: &Rows<Sku, Stock>) -> InventoryEvent {
    let order_id = payment.order_id;
    let short: Vec<Shortage> =
        payment.lines.iter().filter_map(|line| shortage(line, stock)).collect();
    if short.is_empty() {
        InventoryUpdated { order_id, lines: payment.lines.clone() }.into()
    } else {
        InventoryFailed { order_id, reason: InventoryFailure::OutOfStock, short }.into()
    }
}

/// No stock is taken, for a reason that is not the stock.
fn fail(order_id: OrderId, reason: InventoryFailure) -> InventoryEvent {
    InventoryFailed { order_id, reason, short: vec![] }.into()
}

fn shortage(line: &Line, stock: &Rows<Sku, Stock>) -> Option<Shortage> {
    let available = stock.get(&line.sku).map_or(0, |stock| stock.on_hand);
    (available < line.quantity).then(|| Shortage {
        sku: line.sku.clone(),
        wanted: line.quantity,
        available,
    })
}

impl InventoryInput {
    /// The order that the event is about.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::PaymentCompleted(e) => e.order_id,
            Self::OrderCancelled(e) => e.order_id,
        }
    }
}
