//! What the inventory service publishes, on the topic `inventory`.

use apache_avro::AvroSchema;
use reel::model::{Key, Keyed};
use serde::{Deserialize, Serialize};

use crate::symbols::symbols;
use crate::{Line, OrderId, ReceiptId, RequestHash, Shortage, Sku};

/// The stock for the order was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct InventoryUpdated {
    /// The order.
    pub order_id: OrderId,
    /// What was taken.
    pub lines: Vec<Line>,
}

/// The stock for the order was not taken and will not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct InventoryFailed {
    /// The order.
    pub order_id: OrderId,
    /// Why not.
    pub reason: InventoryFailure,
    /// The products of which there was not enough.
    pub short: Vec<Shortage>,
}

/// The stock taken for the order was put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct InventoryRestored {
    /// The order.
    pub order_id: OrderId,
    /// What was put back.
    pub lines: Vec<Line>,
}

/// Goods came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct StockReceived {
    /// The receipt.
    pub receipt_id: ReceiptId,
    /// The product.
    pub sku: Sku,
    /// How many.
    pub quantity: i64,
    /// Of the request that brought them in.
    pub request_hash: RequestHash,
}

symbols! {
    /// Why stock was not taken.
    pub enum InventoryFailure {
        /// A reason that this version does not know.
        Unknown = "unknown",
        /// There was not enough.
        OutOfStock = "out_of_stock",
        /// The order was cancelled before its payment was seen.
        OrderCancelled = "order_cancelled",
    }
}

reel::events! {
    /// What the inventory service publishes.
    pub enum InventoryEvent on "inventory" {
        InventoryUpdated: ["../../../schemas/inventory/InventoryUpdated.v1.avsc"],
        InventoryFailed: ["../../../schemas/inventory/InventoryFailed.v1.avsc"],
        InventoryRestored: ["../../../schemas/inventory/InventoryRestored.v1.avsc"],
        StockReceived: ["../../../schemas/inventory/StockReceived.v1.avsc"],
    }
}

impl Keyed for InventoryUpdated {
    fn key(&self) -> Key {
        self.order_id.into()
    }
}

impl Keyed for InventoryFailed {
    fn key(&self) -> Key {
        self.order_id.into()
    }
}

impl Keyed for InventoryRestored {
    fn key(&self) -> Key {
        self.order_id.into()
    }
}

impl Keyed for StockReceived {
    fn key(&self) -> Key {
        (&self.sku).into()
    }
}
