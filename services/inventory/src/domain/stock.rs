//! Stock and the receipts of goods.

use contracts::inventory::{InventoryEvent, StockReceived};
use contracts::{Line, ReceiptId, RequestHash, Sku};
use serde::{Deserialize, Serialize};

use super::Inventory;

/// The stock of a product.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stock {
    /// Sum of all receipts.
    pub received: i64,
    /// Quantity available to new orders.
    pub on_hand: i64,
    /// Quantity held by orders.
    pub taken: i64,
}

/// A receipt of goods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub sku: Sku,
    /// The quantity, above zero.
    pub quantity: i64,
    /// Hash of the request.
    pub request_hash: RequestHash,
}

/// The commands of the inventory service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum InventoryCommand {
    /// Receive goods.
    ReceiveStock {
        /// The receipt's id, derived from the product and the `Idempotency-Key`.
        receipt_id: ReceiptId,
        sku: Sku,
        /// The quantity, which must be above zero.
        quantity: i64,
        /// Hash of the request.
        request_hash: RequestHash,
    },
}

/// Why the inventory service rejects a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryRejection {
    /// The `Idempotency-Key` belongs to another request.
    #[error("the key was used for another receipt")]
    KeyReused,
    /// The quantity is zero or less.
    #[error("the quantity is not above zero")]
    NotPositive,
    /// The sum of all receipts would overflow.
    #[error("there would be more of the product than can be counted")]
    TooMany,
}

/// Folds an event into the stock. Quantities are only added, so that partitions may be folded in
/// any order (law 6). Halfway through such a fold a sum may be negative or overflow, but wrapping
/// addition is associative and commutative, so the final sum is right.
pub(super) fn evolve(state: &mut Inventory, event: &InventoryEvent) {
    match event {
        InventoryEvent::InventoryUpdated(e) => move_lines(state, &e.lines, 1),
        InventoryEvent::InventoryRestored(e) => move_lines(state, &e.lines, -1),
        InventoryEvent::InventoryFailed(_) => {}
        InventoryEvent::StockReceived(e) => {
            let stock = state.stock.entry(e.sku.clone());
            stock.received = stock.received.wrapping_add(e.quantity);
            stock.on_hand = stock.on_hand.wrapping_add(e.quantity);
            let receipt = Receipt {
                sku: e.sku.clone(),
                quantity: e.quantity,
                request_hash: e.request_hash.clone(),
            };
            state.receipts.put(e.receipt_id, receipt);
        }
    }
}

/// Moves lines to an order (`sign` 1) or back (-1).
fn move_lines(state: &mut Inventory, lines: &[Line], sign: i64) {
    for line in lines {
        let quantity = line.quantity.wrapping_mul(sign);
        let stock = state.stock.entry(line.sku.clone());
        stock.on_hand = stock.on_hand.wrapping_sub(quantity);
        stock.taken = stock.taken.wrapping_add(quantity);
    }
}

pub(super) fn decide(
    state: &Inventory,
    command: &InventoryCommand,
) -> Result<Option<InventoryEvent>, InventoryRejection> {
    let InventoryCommand::ReceiveStock { receipt_id, sku, quantity, request_hash } = command;

    // The same key again: a retry has no further effect, another request is rejected.
    if let Some(receipt) = state.receipts.get(receipt_id) {
        return if receipt.request_hash == *request_hash {
            Ok(None)
        } else {
            Err(InventoryRejection::KeyReused)
        };
    }

    if *quantity <= 0 {
        return Err(InventoryRejection::NotPositive);
    }

    let received = state.stock.get(sku).map_or(0, |stock| stock.received);

    // What is on hand never exceeds what was received, so it cannot overflow either, even if the
    // stock of every order is restored.
    received.checked_add(*quantity).ok_or(InventoryRejection::TooMany)?;

    let received = StockReceived {
        receipt_id: *receipt_id,
        sku: sku.clone(),
        quantity: *quantity,
        request_hash: request_hash.clone(),
    };

    Ok(Some(received.into()))
}
