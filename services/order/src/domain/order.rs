//! One order: its state, how events change it, and the commands that it takes.

use std::time::Duration;

use contracts::orders::{CancelReason, OrderCancelled, OrderCreated, OrderEvent};
use contracts::{CustomerId, Money, OrderId, PricedLine, RequestHash, Sku};
use reel_core::model::Timestamp;
use serde::{Deserialize, Serialize};

use super::Orders;

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
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
    /// Open, confirmed or cancelled.
    pub status: Status,
}

/// Whether an order is open, confirmed or cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Its money or its stock is not taken yet.
    Open,
    /// Its money and its stock are taken.
    Confirmed,
    /// It will not be fulfilled; whatever was taken for it is returned.
    Cancelled {
        /// Why.
        reason: CancelReason,
        /// Details of the reason, for people.
        detail: Option<String>,
    },
}

/// The commands of the order service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum OrderCommand {
    /// Place an order.
    PlaceOrder(PlaceOrder),
    /// Cancel an order for the customer.
    CancelOrder { order_id: OrderId },
    /// Cancel an order that is still open at its deadline.
    ExpireOrder { order_id: OrderId },
}

/// The command to place an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlaceOrder {
    /// The order's id, derived from the customer and the `Idempotency-Key`.
    pub order_id: OrderId,
    /// Who pays.
    pub customer: CustomerId,
    /// The lines of the request; a product may occur more than once.
    pub lines: Vec<RequestedLine>,
    /// Time for which the order may stay open.
    pub settle_within: Duration,
    /// Hash of the request.
    pub request_hash: RequestHash,
}

/// A line of a request, with its price from the price list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RequestedLine {
    pub sku: Sku,
    /// The quantity.
    pub quantity: i64,
    /// The price of one; `None` if the product is not in the price list.
    pub unit_price: Option<Money>,
}

/// Why the order service rejects a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderRejection {
    /// The `Idempotency-Key` belongs to another request.
    #[error("the key was used for another order")]
    KeyReused,
    /// The product is not in the price list.
    #[error("there is no product {sku}")]
    UnknownProduct {
        /// The index of the line, from 0.
        line: usize,
        sku: Sku,
    },
    /// The total overflows, or the lines are in more than one currency.
    #[error("the lines cannot be added up: the total is too large, or in more than one currency")]
    NoTotal,
    /// There is no such order.
    #[error("there is no such order")]
    NotFound,
    /// The order is confirmed.
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
        OrderEvent::OrderCancelled(e) => settle(
            state,
            e.order_id,
            Status::Cancelled { reason: e.reason, detail: e.detail.clone() },
        ),
    }
}

fn settle(state: &mut Orders, order_id: OrderId, status: Status) {
    if let Some(order) = state.orders.get(&order_id).cloned() {
        state.orders.put(order_id, Order { status, ..order });
    }
}

pub(super) fn decide(
    order: Option<&Order>,
    command: &OrderCommand,
    now: Timestamp,
) -> Result<Option<OrderEvent>, OrderRejection> {
    match (command, order) {
        (OrderCommand::PlaceOrder(place), None) => place.create(now).map(Some),
        (OrderCommand::PlaceOrder(place), Some(order))
            if order.request_hash == place.request_hash =>
        {
            Ok(None)
        }
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

pub(super) fn cancelled(
    order_id: OrderId,
    reason: CancelReason,
    detail: Option<String>,
) -> OrderEvent {
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
    /// The status in one word, as it is stored and shown.
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
    /// The order that the command is about.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::PlaceOrder(place) => place.order_id,
            Self::CancelOrder { order_id } | Self::ExpireOrder { order_id } => *order_id,
        }
    }
}

impl PlaceOrder {
    fn create(&self, now: Timestamp) -> Result<OrderEvent, OrderRejection> {
        let lines = self.merged()?;

        let mut prices = lines.iter().map(|line| line.unit_price.checked_times(line.quantity));
        let first = prices.next().flatten();
        let total = prices
            .fold(first, |sum, price| sum?.checked_add(price?))
            .ok_or(OrderRejection::NoTotal)?;

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

    /// One line for each product, in the order in which the products first occur.
    fn merged(&self) -> Result<Vec<PricedLine>, OrderRejection> {
        let mut merged: Vec<PricedLine> = Vec::new();
        for (nth, RequestedLine { sku, quantity, unit_price }) in self.lines.iter().enumerate() {
            let unit_price = unit_price
                .ok_or_else(|| OrderRejection::UnknownProduct { line: nth, sku: sku.clone() })?;
            match merged.iter_mut().find(|line| line.sku == *sku) {
                Some(line) => {
                    line.quantity =
                        line.quantity.checked_add(*quantity).ok_or(OrderRejection::NoTotal)?;
                }
                None => {
                    merged.push(PricedLine { sku: sku.clone(), quantity: *quantity, unit_price });
                }
            }
        }
        Ok(merged)
    }
}
