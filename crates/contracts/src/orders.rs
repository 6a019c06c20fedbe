//! What the order service publishes, on the topic `orders`.

use apache_avro::AvroSchema;
use reel_core::model::{Key, Keyed, Timestamp};
use serde::{Deserialize, Serialize};

use crate::symbols::symbols;
use crate::{CustomerId, Money, OrderId, PricedLine, RequestHash};

/// A customer placed an order. It is confirmed by its deadline, or cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct OrderCreated {
    pub order_id: OrderId,
    /// Who pays.
    pub customer: CustomerId,
    /// One line for each product.
    pub lines: Vec<PricedLine>,
    /// Sum of the lines.
    pub total: Money,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// The deadline: an order that is still open then is cancelled.
    pub settle_by: Timestamp,
    /// Hash of the request that placed it.
    pub request_hash: RequestHash,
}

/// The order's money and stock are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct OrderConfirmed {
    pub order_id: OrderId,
}

/// The order will not be fulfilled; whatever was taken for it is returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct OrderCancelled {
    pub order_id: OrderId,
    /// Why it was cancelled.
    pub reason: CancelReason,
    /// Details of the reason, for people.
    pub detail: Option<String>,
}

symbols! {
    /// Why an order was cancelled.
    pub enum CancelReason {
        /// A reason that this version does not know.
        Unknown = "unknown",
        /// The money could not be taken.
        PaymentFailed = "payment_failed",
        /// The stock could not be taken.
        OutOfStock = "out_of_stock",
        /// The customer cancelled it.
        Customer = "customer",
        /// The deadline passed.
        Expired = "expired",
    }
}

reel_core::events! {
    /// What the order service publishes.
    pub enum OrderEvent on "orders" {
        OrderCreated: ["../../../schemas/order/OrderCreated.v1.avsc"],
        OrderConfirmed: ["../../../schemas/order/OrderConfirmed.v1.avsc"],
        OrderCancelled: ["../../../schemas/order/OrderCancelled.v1.avsc"],
    }
}

impl Keyed for OrderCreated {
    fn key(&self) -> Key {
        self.order_id.into()
    }
}

impl Keyed for OrderConfirmed {
    fn key(&self) -> Key {
        self.order_id.into()
    }
}

impl Keyed for OrderCancelled {
    fn key(&self) -> Key {
        self.order_id.into()
    }
}
