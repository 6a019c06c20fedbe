//! Stock and what comes in.

use contracts::inventory::{InventoryEvent, StockReceived};
use contracts::{Line, ReceiptId, RequestHash, Sku};
use serde::{Deserialize, Serialize};

use super::Inventory;

/// What there is of a product.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stock {
    /// Everything that ever came in.
    pub received: i64,
    /// What is there for orders to come.
    pub on_hand: i64,
    /// What orders hold.
    pub taken: i64,
}

/// Goods that came in at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The product.
    pub sku: Sku,
    /// How many.
    pub quantity: i64,
    /// Of the request that brought them in.
    pub request_hash: RequestHash,
}

/// What the inventory service can be asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum InventoryCommand {
    /// Goods come in.
    ReceiveStock {
        /// The receipt, by product and `Idempotency-Key`.
        receipt_id: ReceiptId,
        /// The product.
        sku: Sku,
        /// How many: above zero.
        quantity: i64,
        /// Of the request.
        request_hash: RequestHash,
    },
}

/// Why the inventory service refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryRejection {
    /// The `Idempotency-Key` belongs to another request.
    #[error("the key was used for another receipt")]
    KeyReused,
    /// Nothing, or less, would come in.
    #[error("the quantity is not above zero")]
    NotPositive,
    /// There would be more than can be counted.
    #[error("there would be more of the product than can be counted")]
    TooMany,
}

/// Quantities are only added, so that partitions may be folded in any order (law 6). Halfway through such a fold a sum
/// may be below zero or out of range; adding in a circle, the whole of it comes out right all the same.
pub(super) fn evolve(state: &mut Inventory, event: &InventoryEvent) {
    match event {
        InventoryEvent::InventoryUpdated(e) => move_lines(state, &e.lines, 1),
        InventoryEvent::InventoryRestored(e) => move_lines(state, &e.lines, -1),
        InventoryEvent::InventoryFailed(_) => {}
        InventoryEvent::StockReceived(e) => {
            let stock = state.stock.entry(e.sku.clone());
            stock.received = stock.received.wrapping_add(e.quantity);
            stock.on_hand = stock.on_hand.wrapping_add(e.quantity);
            let receipt = Receipt { sku: e.sku.clone(), quantity: e.quantity, request_hash: e.request_hash.clone() };
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

pub(super) fn decide(state: &Inventory, command: &InventoryCommand) -> Result<Option<InventoryEvent>, InventoryRejection> {
    let InventoryCommand::ReceiveStock { receipt_id, sku, quantity, request_hash } = command;
    if let Some(receipt) = state.receipts.get(receipt_id) {
        return if receipt.request_hash == *request_hash { Ok(None) } else { Err(InventoryRejection::KeyReused) };
    }
    if *quantity <= 0 {
        return Err(InventoryRejection::NotPositive);
    }
    let received = state.stock.get(sku).map_or(0, |stock| stock.received);
    // What is on hand is never more than what was received, so it fits too, even when every order is undone.
    received.checked_add(*quantity).ok_or(InventoryRejection::TooMany)?;
    let received = StockReceived { receipt_id: *receipt_id, sku: sku.clone(), quantity: *quantity, request_hash: request_hash.clone() };
    Ok(Some(received.into()))
}
