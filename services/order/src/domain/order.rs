//! One order: what it remembers, how events change it, what may be asked of it.

use std::time::Duration;

use contracts::orders::{CancelReason, OrderCancelled, OrderCreated, OrderEvent};
use contracts::{CustomerId, Money, OrderId, PricedLine, RequestHash, Sku};
use reel::model::Timestamp;
use serde::{Deserialize, Serialize};

use super::Orders;

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Who pays.
    pub customer: CustomerId,
    /// One for each product.
    pub lines: Vec<PricedLine>,
    /// What the lines cost together.
    pub total: Money,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// Its deadline.
    pub settle_by: Timestamp,
    /// Of the request that placed it.
    pub request_hash: RequestHash,
    /// How far it has come.
    pub status: Status,
}

/// How far an order has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Its money or its stock is not there yet.
    Open,
    /// It has both.
    Confirmed,
    /// It will not be.
    Cancelled {
        /// Why.
        reason: CancelReason,
        /// More about the reason, for people.
        detail: Option<String>,
    },
}

/// What the order service can be asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum OrderCommand {
    /// A customer orders.
    PlaceOrder(PlaceOrder),
    /// A customer thinks better of it.
    CancelOrder {
        /// The order.
        order_id: OrderId,
    },
    /// The deadline passed.
    ExpireOrder {
        /// The order.
        order_id: OrderId,
    },
}

/// A customer orders.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlaceOrder {
    /// The order, by customer and `Idempotency-Key`.
    pub order_id: OrderId,
    /// Who pays.
    pub customer: CustomerId,
    /// What is ordered, as the request has it.
    pub lines: Vec<WantedLine>,
    /// How long it may take.
    pub settle_within: Duration,
    /// Of the request.
    pub request_hash: RequestHash,
}

/// A line of a request, with the price that the price list has for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WantedLine {
    /// The product.
    pub sku: Sku,
    /// How many.
    pub quantity: i64,
    /// What one costs; nothing where the price list does not have it.
    pub unit_price: Option<Money>,
}

/// Why the order service refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderRejection {
    /// The `Idempotency-Key` belongs to another request.
    #[error("the key was used for another order")]
    KeyReused,
    /// The price list does not have the product.
    #[error("there is no product {sku}")]
    UnknownProduct {
        /// Which line, from 0.
        line: usize,
        /// The product.
        sku: Sku,
    },
    /// The total is more than an amount can hold, or in more than one currency.
    #[error("the lines cannot be added up: the total is too large, or in more than one currency")]
    NoTotal,
    /// There is no such order.
    #[error("there is no such order")]
    NotFound,
    /// It is confirmed.
    #[error("the order is confirmed: it is too late to cancel it")]
    TooLate,
}

pub(super) fn evolve(state: &mut Orders, event: &OrderEvent) {
    match event {
        OrderEvent::OrderCreated(e) => {
            let order = Order {
                customer: e.customer.clone(),
                lines: e.lines.clone(),
                total: e.total,
                placed_at: e.placed_at,
                settle_by: e.settle_by,
                request_hash: e.request_hash.clone(),
                status: Status::Open,
            };
            state.orders.put(e.order_id, order);
        }
        OrderEvent::OrderConfirmed(e) => settle(state, e.order_id, Status::Confirmed),
        OrderEvent::OrderCancelled(e) => settle(state, e.order_id, Status::Cancelled { reason: e.reason, detail: e.detail.clone() }),
    }
}

fn settle(state: &mut Orders, order_id: OrderId, status: Status) {
    if let Some(order) = state.orders.get(&order_id).cloned() {
        state.orders.put(order_id, Order { status, ..order });
    }
}

pub(super) fn decide(order: Option<&Order>, command: &OrderCommand, now: Timestamp) -> Result<Option<OrderEvent>, OrderRejection> {
    match (command, order) {
        (OrderCommand::PlaceOrder(place), None) => place.at(now).map(Some),
        (OrderCommand::PlaceOrder(place), Some(order)) if order.request_hash == place.request_hash => Ok(None),
        (OrderCommand::PlaceOrder(_), Some(_)) => Err(OrderRejection::KeyReused),
        (_, None) => Err(OrderRejection::NotFound),
        (OrderCommand::CancelOrder { order_id }, Some(order)) => match order.status {
            Status::Open => Ok(Some(cancelled(*order_id, CancelReason::Customer, None))),
            Status::Confirmed => Err(OrderRejection::TooLate),
            Status::Cancelled { .. } => Ok(None),
        },
        (OrderCommand::ExpireOrder { order_id }, Some(order)) => match order.status {
            Status::Open => Ok(Some(cancelled(*order_id, CancelReason::Expired, None))),
            Status::Confirmed | Status::Cancelled { .. } => Ok(None),
        },
    }
}

pub(super) fn cancelled(order_id: OrderId, reason: CancelReason, detail: Option<String>) -> OrderEvent {
    OrderCancelled { order_id, reason, detail }.into()
}

pub(super) fn order_id(event: &OrderEvent) -> OrderId {
    match event {
        OrderEvent::OrderCreated(e) => e.order_id,
        OrderEvent::OrderConfirmed(e) => e.order_id,
        OrderEvent::OrderCancelled(e) => e.order_id,
    }
}

impl Status {
    /// One word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Confirmed => "confirmed",
            Self::Cancelled { .. } => "cancelled",
        }
    }
}

impl OrderCommand {
    /// The order that it is about.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::PlaceOrder(place) => place.order_id,
            Self::CancelOrder { order_id } | Self::ExpireOrder { order_id } => *order_id,
        }
    }
}

impl PlaceOrder {
    fn at(&self, now: Timestamp) -> Result<OrderEvent, OrderRejection> {
        let lines = self.merged()?;
        let mut prices = lines.iter().map(|line| line.unit_price.checked_times(line.quantity));
        let first = prices.next().flatten();
        let total = prices.fold(first, |sum, price| sum?.checked_add(price?)).ok_or(OrderRejection::NoTotal)?;
        let created = OrderCreated {
            order_id: self.order_id,
            customer: self.customer.clone(),
            lines,
            total,
            placed_at: now,
            settle_by: now + self.settle_within,
            request_hash: self.request_hash.clone(),
        };
        Ok(created.into())
    }

    /// One line for each product, where it was first named.
    fn merged(&self) -> Result<Vec<PricedLine>, OrderRejection> {
        let mut merged: Vec<PricedLine> = Vec::new();
        for (nth, WantedLine { sku, quantity, unit_price }) in self.lines.iter().enumerate() {
            let unit_price = unit_price.ok_or_else(|| OrderRejection::UnknownProduct { line: nth, sku: sku.clone() })?;
            match merged.iter_mut().find(|line| line.sku == *sku) {
                Some(line) => line.quantity = line.quantity.checked_add(*quantity).ok_or(OrderRejection::NoTotal)?,
                None => merged.push(PricedLine { sku: sku.clone(), quantity: *quantity, unit_price }),
            }
        }
        Ok(merged)
    }
}
