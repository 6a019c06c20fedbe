//! Every order's saga, joined from the three logs.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::inventory::InventoryEvent;
use contracts::orders::{CancelReason, OrderCreated, OrderEvent};
use contracts::payments::{PaymentCompleted, PaymentEvent};
use contracts::{CustomerId, Line, OrderId};
use reel::model::Timestamp;

use super::fold::Recorded;
use super::{Findings, Kind};

/// What three services have said of one order.
#[derive(Debug, Clone)]
pub struct Saga {
    /// The order.
    pub order_id: OrderId,
    /// How it began, and when that was recorded.
    pub created: Option<(OrderCreated, Timestamp)>,
    /// How the order service ended it.
    pub ending: Option<Ending>,
    /// When the last event of any service was recorded.
    pub last_at: Timestamp,
    endings: usize,
    paid: Vec<PaymentCompleted>,
    taken: Vec<Vec<Line>>,
    /// Payment has said that it holds nothing for the order.
    money_back: bool,
    /// Inventory has said that it holds nothing for the order.
    stock_back: bool,
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With its money and its stock.
    Confirmed,
    /// With both back, in the end.
    Cancelled {
        /// Why.
        reason: CancelReason,
        /// More about the reason.
        detail: Option<String>,
        /// When that was recorded.
        at: Timestamp,
    },
}

/// Joins the logs, each in pieces.
pub(super) fn join<const N: usize>(
    orders: [&Vec<Recorded<OrderEvent>>; N],
    payments: [&Vec<Recorded<PaymentEvent>>; N],
    inventory: [&Vec<Recorded<InventoryEvent>>; N],
) -> Vec<Saga> {
    let mut sagas = BTreeMap::new();
    for Recorded { event, at } in orders.into_iter().flatten() {
        match event {
            OrderEvent::OrderCreated(e) => saga(&mut sagas, e.order_id, *at).created = Some((e.clone(), *at)),
            OrderEvent::OrderConfirmed(e) => saga(&mut sagas, e.order_id, *at).end(Ending::Confirmed),
            OrderEvent::OrderCancelled(e) => {
                let ending = Ending::Cancelled { reason: e.reason, detail: e.detail.clone(), at: *at };
                saga(&mut sagas, e.order_id, *at).end(ending);
            }
        }
    }
    for Recorded { event, at } in payments.into_iter().flatten() {
        match event {
            PaymentEvent::PaymentCompleted(e) => saga(&mut sagas, e.order_id, *at).paid.push(e.clone()),
            PaymentEvent::PaymentFailed(e) => saga(&mut sagas, e.order_id, *at).money_back = true,
            PaymentEvent::PaymentRefunded(e) => saga(&mut sagas, e.order_id, *at).money_back = true,
            PaymentEvent::AccountCredited(_) => {}
        }
    }
    for Recorded { event, at } in inventory.into_iter().flatten() {
        match event {
            InventoryEvent::InventoryUpdated(e) => saga(&mut sagas, e.order_id, *at).taken.push(e.lines.clone()),
            InventoryEvent::InventoryFailed(e) => saga(&mut sagas, e.order_id, *at).stock_back = true,
            InventoryEvent::InventoryRestored(e) => saga(&mut sagas, e.order_id, *at).stock_back = true,
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
    /// From OrderCreated to the last event of any service, undoing included; none for an order that was never created.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        self.created.as_ref().map(|(_, at)| self.last_at.since(*at))
    }

    /// Says whether it has not ended, or is not undone, or is none that can be.
    pub(super) fn judge(&self, now: Timestamp, findings: &mut Findings) {
        if self.created.is_none() {
            findings.add(Kind::FoldMismatch, format!("order {} was never created, and events speak of it", self.order_id));
        }
        if self.endings > 1 {
            findings.add(Kind::FoldMismatch, format!("order {} ended {} times", self.order_id, self.endings));
        }
        match (&self.created, &self.ending) {
            (Some((_, at)), None) => findings.add(Kind::Open, format!("order {} since {:.1?}", self.order_id, now.since(*at))),
            (_, Some(Ending::Cancelled { at, .. })) if !(self.money_back && self.stock_back) => {
                let waits = match (self.money_back, self.stock_back) {
                    (false, false) => "payment and inventory have",
                    (false, true) => "payment has",
                    (true, _) => "inventory has",
                };
                let what = format!("order {} since {:.1?}: {waits} not answered its cancel", self.order_id, now.since(*at));
                findings.add(Kind::Undoing, what);
            }
            _ => {}
        }
    }

    /// Says whether money or stock was taken more than once, or for a confirmed order not at all.
    pub(super) fn judge_taken(&self, findings: &mut Findings) {
        for (times, what) in [(self.paid.len(), "money"), (self.taken.len(), "stock")] {
            if times > 1 || (times == 0 && self.ending == Some(Ending::Confirmed)) {
                findings.add(Kind::FoldMismatch, format!("order {}: its {what} was taken {times} times", self.order_id));
            }
        }
    }

    /// The money that an account should be without for this order: of a confirmed order its total, once.
    pub(super) fn money_held(&self) -> Option<(&CustomerId, i64)> {
        match (&self.ending, &self.created) {
            (Some(Ending::Confirmed), Some((created, _))) => Some((&created.customer, created.total.amount)),
            _ if self.money_back => None,
            _ => self.paid.first().map(|paid| (&paid.customer, paid.amount.amount)),
        }
    }

    /// The stock that should be off the shelf for this order: of a confirmed order its lines, once.
    pub(super) fn stock_held(&self) -> Vec<Line> {
        match (&self.ending, &self.created) {
            (Some(Ending::Confirmed), Some((created, _))) => created.lines.iter().map(Line::from).collect(),
            _ if self.stock_back => Vec::new(),
            _ => self.taken.first().cloned().unwrap_or_default(),
        }
    }

    fn end(&mut self, ending: Ending) {
        self.ending = Some(ending);
        self.endings += 1;
    }
}
