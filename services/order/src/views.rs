//! Orders as clients see them.

use contracts::{CustomerId, Money, OrderId, PricedLine};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{Order, Status};
use crate::timeline::{self, TimelineEntry};

/// An order as clients see it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderView {
    #[schema(value_type = Uuid)]
    order_id: OrderId,
    #[schema(value_type = String, example = "ann")]
    customer: CustomerId,
    /// `open`, `confirmed` or `cancelled`.
    #[schema(pattern = "^(open|confirmed|cancelled)$", example = "open")]
    status: &'static str,
    /// Why it was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "out_of_stock")]
    reason: Option<&'static str>,
    /// Details of the reason, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    total: Money,
    lines: Vec<PricedLine>,
    #[schema(format = DateTime)]
    placed_at: String,
    /// The deadline: an order that is still open then is cancelled.
    #[schema(format = DateTime)]
    settle_by: String,
}

/// An order with its saga, as far as this service knows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SagaView {
    #[serde(flatten)]
    order: OrderView,
    #[serde(rename = "undo", skip_serializing_if = "Option::is_none")]
    compensation: Option<CompensationView>,
    /// What happened to it, oldest first.
    timeline: Vec<TimelineEntry>,
}

/// How far a cancelled order is compensated.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "status")]
enum CompensationView {
    /// Money or stock is not back yet.
    #[serde(rename = "undoing")]
    Compensating {
        /// Seconds since it was cancelled; absent until the timeline has that event.
        #[serde(skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
    },
    /// Money and stock are back, or were never taken.
    #[serde(rename = "undone")]
    Compensated,
}

/// A page of orders.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderPage {
    pub(crate) orders: Vec<OrderView>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

impl OrderView {
    pub(crate) fn new(order_id: OrderId, order: Order) -> Self {
        let status = order.status.name();
        let (reason, detail) = match order.status {
            Status::Cancelled { reason, detail } => (Some(reason.as_str()), detail),
            Status::Open | Status::Confirmed => (None, None),
        };

        let (placed_at, settle_by) = (order.placed_at.to_string(), order.settle_by.to_string());
        Self {
            order_id,
            customer: order.customer,
            status,
            reason,
            detail,
            total: order.total,
            lines: order.lines,
            placed_at,
            settle_by,
        }
    }
}

impl CompensationView {
    fn from_timeline(timeline: &[TimelineEntry]) -> Self {
        if timeline::is_over(timeline) {
            Self::Compensated
        } else {
            Self::Compensating { seconds: timeline::cancelled_for(timeline) }
        }
    }
}

impl SagaView {
    pub(crate) fn new(order_id: OrderId, order: Order, timeline: Vec<TimelineEntry>) -> Self {
        let compensation = matches!(order.status, Status::Cancelled { .. })
            .then(|| CompensationView::from_timeline(&timeline));
        Self { order: OrderView::new(order_id, order), compensation, timeline }
    }
}
