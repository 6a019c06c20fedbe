//! What the order service publishes, on the topic `orders`.

use apache_avro::AvroSchema;
use reel::model::{Key, Keyed, Timestamp};
use serde::{Deserialize, Serialize};

use crate::symbols::symbols;
use crate::{CustomerId, Money, OrderId, PricedLine, RequestHash};

/// A customer placed an order. It is settled by its deadline or cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct OrderCreated {
    /// The order.
    pub order_id: OrderId,
    /// Who pays.
    pub customer: CustomerId,
    /// One for each product.
    pub lines: Vec<PricedLine>,
    /// What the lines cost together.
    pub total: Money,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// The deadline, after which the order is cancelled.
    pub settle_by: Timestamp,
    /// Of the request that placed it.
    pub request_hash: RequestHash,
}

/// The order has its money and its stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct OrderConfirmed {
    /// The order.
    pub order_id: OrderId,
}

/// The order will not be; what was taken for it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct OrderCancelled {
    /// The order.
    pub order_id: OrderId,
    /// Why.
    pub reason: CancelReason,
    /// More about the reason, for people.
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
        /// The customer asked for it.
        Customer = "customer",
        /// The deadline passed.
        Expired = "expired",
    }
}

reel::events! {
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
