//! A sample of each event, for tests of the wire format.

use reel_core::model::{Event, Key, Timestamp};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::inventory::{
    InventoryEvent, InventoryFailed, InventoryFailure, InventoryRestored, InventoryUpdated,
    StockReceived,
};
use crate::orders::{CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderEvent};
use crate::payments::{
    AccountCredited, PaymentCompleted, PaymentEvent, PaymentFailed, PaymentFailure, PaymentRefunded,
};
use crate::{
    Currency, CustomerId, DepositId, Line, Money, OrderId, PricedLine, ReceiptId, RequestHash,
    Shortage, Sku,
};

/// An event and its form outside Rust.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The topic that carries it.
    pub topic: &'static str,
    /// The name of its type.
    pub name: &'static str,
    pub key: Key,
    /// The payload of its record.
    pub payload: Vec<u8>,
    /// The content of the payload: uuids as text, times in microseconds.
    pub json: Value,
}

/// A sample of each event of all services.
///
/// # Panics
/// If a sample does not fit its schema.
#[must_use]
pub fn all() -> Vec<Sample> {
    let orders = orders().into_iter().map(|event| match &event {
        OrderEvent::OrderCreated(content) => sample(&event, content),
        OrderEvent::OrderConfirmed(content) => sample(&event, content),
        OrderEvent::OrderCancelled(content) => sample(&event, content),
    });
    let payments = payments().into_iter().map(|event| match &event {
        PaymentEvent::PaymentCompleted(content) => sample(&event, content),
        PaymentEvent::PaymentFailed(content) => sample(&event, content),
        PaymentEvent::PaymentRefunded(content) => sample(&event, content),
        PaymentEvent::AccountCredited(content) => sample(&event, content),
    });
    let inventory = inventory().into_iter().map(|event| match &event {
        InventoryEvent::InventoryUpdated(content) => sample(&event, content),
        InventoryEvent::InventoryFailed(content) => sample(&event, content),
        InventoryEvent::InventoryRestored(content) => sample(&event, content),
        InventoryEvent::StockReceived(content) => sample(&event, content),
    });
    orders.chain(payments).chain(inventory).collect()
}

fn sample<E: Event>(event: &E, content: &impl Serialize) -> Sample {
    let payload = event.encode().expect("a sample fits its schema");
    let json = serde_json::to_value(content).expect("a sample is a plain struct");
    Sample { topic: E::TOPIC, name: event.name(), key: event.key(), payload, json }
}

/// A sample of each event of the order service.
#[must_use]
pub fn orders() -> Vec<OrderEvent> {
    let line = PricedLine { sku: sku("TEA-GREEN"), quantity: 2, unit_price: eur(450) };
    vec![
        OrderCreated {
            order_id: order_id(),
            customer: customer(),
            lines: vec![line, PricedLine { sku: sku("MUG"), quantity: 1, unit_price: eur(990) }],
            total: eur(1_890),
            placed_at: Timestamp::from_micros(1_700_000_000_123_456),
            settle_by: Timestamp::from_micros(1_700_000_900_123_456),
            request_hash: RequestHash::of(&"a request"),
        }
        .into(),
        OrderConfirmed { order_id: order_id() }.into(),
        OrderCancelled {
            order_id: order_id(),
            reason: CancelReason::PaymentFailed,
            detail: Some(PaymentFailure::InsufficientFunds.to_string()),
        }
        .into(),
    ]
}

/// A sample of each event of the payment service.
#[must_use]
pub fn payments() -> Vec<PaymentEvent> {
    let (order_id, customer, amount) = (order_id(), customer(), eur(1_890));
    vec![
        PaymentCompleted { order_id, customer: customer.clone(), amount, lines: lines() }.into(),
        PaymentFailed {
            order_id,
            customer: customer.clone(),
            amount,
            reason: PaymentFailure::UnknownAccount,
        }
        .into(),
        PaymentRefunded { order_id, customer: customer.clone(), amount }.into(),
        AccountCredited {
            deposit_id: DepositId::from(Uuid::from_u128(2)),
            customer,
            amount: eur(i64::MAX),
            request_hash: RequestHash::of(&"a deposit"),
        }
        .into(),
    ]
}

/// A sample of each event of the inventory service.
#[must_use]
pub fn inventory() -> Vec<InventoryEvent> {
    let order_id = order_id();
    let short = vec![Shortage { sku: sku("MUG"), wanted: 1, available: 0 }];
    vec![
        InventoryUpdated { order_id, lines: lines() }.into(),
        InventoryFailed { order_id, reason: InventoryFailure::OutOfStock, short }.into(),
        InventoryRestored { order_id, lines: lines() }.into(),
        StockReceived {
            receipt_id: ReceiptId::from(Uuid::from_u128(3)),
            sku: sku("MUG"),
            quantity: 12,
            request_hash: RequestHash::of(&"a receipt"),
        }
        .into(),
    ]
}

fn order_id() -> OrderId {
    OrderId::of_request(&customer(), "a key")
}

fn customer() -> CustomerId {
    "anna".parse().expect("a customer")
}

fn sku(text: &str) -> Sku {
    text.parse().expect("a sku")
}

fn eur(cents: i64) -> Money {
    Money::new(cents, Currency::EUR)
}

fn lines() -> Vec<Line> {
    vec![Line { sku: sku("TEA-GREEN"), quantity: 2 }, Line { sku: sku("MUG"), quantity: 1 }]
}
