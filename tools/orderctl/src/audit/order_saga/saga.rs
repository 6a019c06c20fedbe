//! Every order's saga, joined from the three logs, and the rules that each must keep.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::inventory::InventoryEvent;
use contracts::orders::{CancelReason, OrderCreated, OrderEvent};
use contracts::payments::{PaymentCompleted, PaymentEvent};
use contracts::{CustomerId, Line, OrderId};
use reel::model::Timestamp;

use crate::audit::fold::Recorded;
use crate::audit::{Findings, Kind};

/// The events of one order, from the three services.
#[derive(Debug, Clone)]
pub struct Saga {
    /// The order.
    pub order_id: OrderId,
    /// The event that created it, and when that was recorded.
    pub created: Option<(OrderCreated, Timestamp)>,
    /// How the order service ended it.
    pub ending: Option<Ending>,
    /// When the last event of any service was recorded.
    pub last_at: Timestamp,
    /// Number of events that end it: one, unless something is wrong.
    endings: usize,
    paid: Vec<PaymentCompleted>,
    taken: Vec<Vec<Line>>,
    /// Whether payment has published that it holds nothing for the order.
    money_back: bool,
    /// Whether inventory has published that it holds nothing for the order.
    stock_back: bool,
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It keeps its money and its stock.
    Confirmed,
    /// Both are given back, in the end.
    Cancelled {
        /// Why it was cancelled.
        reason: CancelReason,
        /// More about the reason.
        detail: Option<String>,
        /// When the cancel was recorded.
        at: Timestamp,
    },
}

/// Joins the logs of the three services, each of which comes in `N` parts.
pub(super) fn join<const N: usize>(
    orders: [&Vec<Recorded<OrderEvent>>; N],
    payments: [&Vec<Recorded<PaymentEvent>>; N],
    inventory: [&Vec<Recorded<InventoryEvent>>; N],
) -> Vec<Saga> {
    let mut sagas = BTreeMap::new();

    for Recorded { event, at } in orders.into_iter().flatten() {
        match event {
            OrderEvent::OrderCreated(e) => {
                saga(&mut sagas, e.order_id, *at).created = Some((e.clone(), *at));
            }
            OrderEvent::OrderConfirmed(e) => {
                saga(&mut sagas, e.order_id, *at).end(Ending::Confirmed);
            }
            OrderEvent::OrderCancelled(e) => {
                let ending =
                    Ending::Cancelled { reason: e.reason, detail: e.detail.clone(), at: *at };
                saga(&mut sagas, e.order_id, *at).end(ending);
            }
        }
    }

    for Recorded { event, at } in payments.into_iter().flatten() {
        match event {
            PaymentEvent::PaymentCompleted(e) => {
                saga(&mut sagas, e.order_id, *at).paid.push(e.clone());
            }
            PaymentEvent::PaymentFailed(e) => saga(&mut sagas, e.order_id, *at).money_back = true,
            PaymentEvent::PaymentRefunded(e) => saga(&mut sagas, e.order_id, *at).money_back = true,
            PaymentEvent::AccountCredited(_) => {}
        }
    }

    for Recorded { event, at } in inventory.into_iter().flatten() {
        match event {
            InventoryEvent::InventoryUpdated(e) => {
                saga(&mut sagas, e.order_id, *at).taken.push(e.lines.clone());
            }
            InventoryEvent::InventoryFailed(e) => {
                saga(&mut sagas, e.order_id, *at).stock_back = true;
            }
            InventoryEvent::InventoryRestored(e) => {
                saga(&mut sagas, e.order_id, *at).stock_back = true;
            }
            InventoryEvent::StockReceived(_) => {}
        }
    }

    sagas.into_values().collect()
}

fn saga(sagas: &mut BTreeMap<OrderId, Saga>, order_id: OrderId, at: Timestamp) -> &mut Saga {
    let saga = sagas.entry(order_id).or_insert_with(|| Saga {
        order_id,
        created: None,
        ending: None,
        last_at: at,
        endings: 0,
        paid: Vec::new(),
        taken: Vec::new(),
        money_back: false,
        stock_back: false,
    });
    saga.last_at = saga.last_at.max(at);
    saga
}

impl Saga {
    /// Returns the time from OrderCreated to the last event of any service, compensations included;
    /// `None` for an order that was never created.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        self.created.as_ref().map(|(_, at)| self.last_at.since(*at))
    }

    /// Checks that it was created, has ended once, and is compensated if it was cancelled.
    pub(super) fn check_ending(&self, now: Timestamp, findings: &mut Findings) {
        if self.created.is_none() {
            findings.add(
                Kind::FoldMismatch,
                format!("order {} was never created, although it has events", self.order_id),
            );
        }

        if self.endings > 1 {
            findings.add(
                Kind::FoldMismatch,
                format!("order {} ended {} times", self.order_id, self.endings),
            );
        }

        match (&self.created, &self.ending) {
            (Some((_, at)), None) => findings
                .add(Kind::Open, format!("order {} since {:.1?}", self.order_id, now.since(*at))),
            (_, Some(Ending::Cancelled { at, .. })) if !(self.money_back && self.stock_back) => {
                let silent = match (self.money_back, self.stock_back) {
                    (false, false) => "payment and inventory have",
                    (false, true) => "payment has",
                    (true, _) => "inventory has",
                };
                let what = format!(
                    "order {} since {:.1?}: {silent} not answered its cancel",
                    self.order_id,
                    now.since(*at)
                );
                findings.add(Kind::Compensating, what);
            }
            _ => {}
        }
    }

    /// Checks that money and stock were taken at most once, and exactly once for a confirmed order.
    pub(super) fn check_taken(&self, findings: &mut Findings) {
        for (times, what) in [(self.paid.len(), "money"), (self.taken.len(), "stock")] {
            if times > 1 || (times == 0 && self.ending == Some(Ending::Confirmed)) {
                findings.add(
                    Kind::FoldMismatch,
                    format!("order {}: its {what} was taken {times} times", self.order_id),
                );
            }
        }
    }

    /// Returns the money that the order should hold, and the account that it comes from. A
    /// confirmed order holds its total once, however often that was taken.
    pub(super) fn money_held(&self) -> Option<(&CustomerId, i64)> {
        match (&self.ending, &self.created) {
            (Some(Ending::Confirmed), Some((created, _))) => {
                Some((&created.customer, created.total.amount))
            }
            _ if self.money_back => None,
            _ => self.paid.first().map(|paid| (&paid.customer, paid.amount.amount)),
        }
    }

    /// Returns the stock that the order should hold. A confirmed order holds its lines once,
    /// however often they were taken.
    pub(super) fn stock_held(&self) -> Vec<Line> {
        match (&self.ending, &self.created) {
            (Some(Ending::Confirmed), Some((created, _))) => {
                created.lines.iter().map(Line::from).collect()
            }
            _ if self.stock_back => Vec::new(),
            _ => self.taken.first().cloned().unwrap_or_default(),
        }
    }

    fn end(&mut self, ending: Ending) {
        self.ending = Some(ending);
        self.endings += 1;
    }
}
