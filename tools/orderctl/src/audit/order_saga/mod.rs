//! The rules of the order saga: what must hold across its three services.
//!
//! - The tables of orders, payments and inventory equal the fold of their events (a fold mismatch
//!   if not).
//! - Every event of an order belongs to an order that was created (fold mismatch).
//! - An order ends at most once, confirmed or cancelled (fold mismatch).
//! - Money and stock are taken at most once for an order, and exactly once for a confirmed one
//!   (fold mismatch).
//! - Every order ends (open).
//! - Payment and inventory answer a cancel, and hold nothing for the order from then on (law 9;
//!   compensating).
//! - For each account, deposits = balance + the money that orders hold (money drift).
//! - For each product, receipts = stock on hand + the stock that orders hold (stock drift).
//!
//! A confirmed order holds its total and its lines; any other order holds what was taken for it
//! until that is given back. A balance below zero is reported but not counted, because it follows
//! from a deposit that was lost with its database.

mod collected;
mod figures;
mod ledger;
mod saga;

pub use collected::Collected;
pub use figures::Figures;
pub use saga::{Ending, Saga};

use reel::model::Timestamp;

use super::fold::{self, Folded};
use super::{Findings, parked};

/// The result of an audit.
#[derive(Debug)]
pub struct Audit {
    /// The figures: what `--json` prints.
    pub figures: Figures,
    /// What is wrong, and where.
    pub findings: Findings,
    /// Every order's saga, joined from the three logs.
    pub sagas: Vec<Saga>,
}

/// Audits what was collected, as of `now`.
#[must_use]
pub fn audit(collected: &Collected, now: Timestamp) -> Audit {
    let Collected { order, payment, inventory } = collected;
    let mut findings = Findings::default();
    let orders = Folded::of(order, &mut findings);
    let payments = Folded::of(payment, &mut findings);
    let reservations = Folded::of(inventory, &mut findings);

    fold::compare("orders", &orders.state.orders, &order.state.orders, &mut findings);
    fold::compare("payments", &payments.state.payments, &payment.state.payments, &mut findings);
    fold::compare("accounts", &payments.state.accounts, &payment.state.accounts, &mut findings);
    fold::compare("deposits", &payments.state.deposits, &payment.state.deposits, &mut findings);
    fold::compare(
        "reservations",
        &reservations.state.reservations,
        &inventory.state.reservations,
        &mut findings,
    );
    fold::compare("stock", &reservations.state.stock, &inventory.state.stock, &mut findings);
    fold::compare(
        "receipts",
        &reservations.state.receipts,
        &inventory.state.receipts,
        &mut findings,
    );

    // What orders hold is compared with the tables, so only the events count that the tables
    // reflect.
    let in_tables = saga::join([&orders.events], [&payments.events], [&reservations.events]);
    for saga in &in_tables {
        saga.check_taken(&mut findings);
    }
    ledger::money(&in_tables, &payments.events, &payment.state, &mut findings);
    ledger::stock(&in_tables, &reservations.events, &inventory.state, &mut findings);

    // How far each order has come is read from everything the topics hold.
    let sagas = saga::join(
        [&orders.events, &orders.later],
        [&payments.events, &payments.later],
        [&reservations.events, &reservations.later],
    );
    for saga in &sagas {
        saga.check_ending(now, &mut findings);
    }

    parked::report(order, &mut findings);
    parked::report(payment, &mut findings);
    parked::report(inventory, &mut findings);

    Audit { figures: Figures::of(&sagas, &findings), findings, sagas }
}
