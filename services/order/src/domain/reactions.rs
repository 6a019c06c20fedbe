//! How the order service reacts to the events of payment and inventory.
//!
//! Their topics have no order relative to each other, nor to the order's own cancellation or
//! deadline. So a cancelled order may still see that its money or stock was taken, or returned;
//! then there is nothing left to decide.

use contracts::OrderId;
use contracts::inventory::{InventoryFailed, InventoryFailure, InventoryUpdated};
use contracts::orders::{CancelReason, OrderConfirmed, OrderEvent};
use contracts::payments::{PaymentFailed, PaymentFailure};
use reel_core::model::{Impossible, Message};

use super::order::{Order, Status, cancelled};

reel_core::inputs! {
    /// What the order service reacts to.
    pub enum OrderInput { PaymentFailed, InventoryUpdated, InventoryFailed }
}

pub(super) fn react(
    order: Option<&Order>,
    input: &OrderInput,
) -> Result<Option<OrderEvent>, Impossible> {
    let Some(order) = order else { return Err(impossible(input, "was never created")) };
    match (&order.status, input) {
        (Status::Open, OrderInput::PaymentFailed(e)) => {
            Ok(Some(match e.reason {
                // Payment read it after its deadline, which has not fired here yet.
                PaymentFailure::TooLate => cancelled(e.order_id, CancelReason::Expired, None),
                reason => {
                    cancelled(e.order_id, CancelReason::PaymentFailed, Some(reason.to_string()))
                }
            }))
        }
        (Status::Open, OrderInput::InventoryUpdated(e)) => {
            Ok(Some(OrderConfirmed { order_id: e.order_id }.into()))
        }
        (Status::Open, OrderInput::InventoryFailed(e)) => match e.reason {
            InventoryFailure::OutOfStock => {
                Ok(Some(cancelled(e.order_id, CancelReason::OutOfStock, shortage(e))))
            }
            InventoryFailure::TooLate => {
                Ok(Some(cancelled(e.order_id, CancelReason::Expired, None)))
            }
            InventoryFailure::Unknown => {
                Ok(Some(cancelled(e.order_id, CancelReason::Unknown, None)))
            }

            // Inventory publishes this reason only after our own OrderCancelled.
            InventoryFailure::OrderCancelled => Err(impossible(input, "is open")),
        },
        (Status::Confirmed, OrderInput::InventoryUpdated(_)) | (Status::Cancelled { .. }, _) => {
            Ok(None)
        }

        // The order was confirmed by inventory's answer to a completed payment, and payment and
        // inventory each answer only once.
        (Status::Confirmed, OrderInput::PaymentFailed(_) | OrderInput::InventoryFailed(_)) => {
            Err(impossible(input, "is confirmed"))
        }
    }
}

fn shortage(failed: &InventoryFailed) -> Option<String> {
    let short = failed.short.iter().map(|short| {
        format!("{}: {} wanted, {} available", short.sku, short.wanted, short.available)
    });
    Some(short.collect::<Vec<_>>().join("; ")).filter(|detail| !detail.is_empty())
}

fn impossible(input: &OrderInput, state: &str) -> Impossible {
    Impossible::because(format!("{} for order {}, which {state}", input.name(), input.order_id()))
}

impl OrderInput {
    /// The order that the event is about.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::PaymentFailed(e) => e.order_id,
            Self::InventoryUpdated(e) => e.order_id,
            Self::InventoryFailed(e) => e.order_id,
        }
    }
}
