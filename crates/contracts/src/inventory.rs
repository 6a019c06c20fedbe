//! What the inventory service publishes, on the topic `inventory`.

use apache_avro::AvroSchema;
use reel_core::model::{Key, Keyed};
use serde::{Deserialize, Serialize};

use crate::symbols::symbols;
use crate::{Line, OrderId, ReceiptId, RequestHash, Shortage, Sku};

/// The stock for the order was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct InventoryUpdated {
    pub order_id: OrderId,
    /// The lines that were taken.
    pub lines: Vec<Line>,
}

/// The stock for the order was not taken and will not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct InventoryFailed {
    pub order_id: OrderId,
    /// Why it was not taken.
    pub reason: InventoryFailure,
    /// The products of which there was too little.
    pub short: Vec<Shortage>,
}

/// The stock taken for the order was put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct InventoryRestored {
    pub order_id: OrderId,
    /// The lines that were put back.
    pub lines: Vec<Line>,
}

/// Goods were received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct StockReceived {
    pub receipt_id: ReceiptId,
    pub sku: Sku,
    /// The quantity, above zero.
    pub quantity: i64,
    /// Hash of the request.
    pub request_hash: RequestHash,
}

symbols! {
    /// Why stock was not taken.
    pub enum InventoryFailure {
        /// A reason that this version does not know.
        Unknown = "unknown",
        /// There was too little of a product.
        OutOfStock = "out_of_stock",
        /// The order's cancellation was read before its payment.
        OrderCancelled = "order_cancelled",
        /// The order's deadline had passed.
        TooLate = "too_late",
    }
}

reel_core::events! {
    /// What the inventory service publishes.
    pub enum InventoryEvent on "inventory" {
        InventoryUpdated: ["../../../schemas/inventory/InventoryUpdated.v1.avsc"],
        InventoryFailed: [
            "../../../schemas/inventory/InventoryFailed.v1.avsc",
            "../../../schemas/inventory/InventoryFailed.v2.avsc",
        ],
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
