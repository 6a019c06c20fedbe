//! Whether the databases and the topics of a quiet system say the same, and the right thing.
//!
//! The audit takes nobody's word: it reads every record of the three topics by the consumer's rule (law 3), folds what is
//! accepted with the production `evolve` (law 6), and compares the outcome row by row with the tables; then it joins the three
//! logs order by order. [`collect`](Places::collect) reads, [`audit`] computes and is pure.

mod collect;
mod collected;
mod command;
mod deadlines;
mod figures;
mod findings;
mod fold;
mod journal;
mod ledger;
mod parked;
mod sagas;
mod tables;
#[cfg(test)]
mod tests;

pub use collect::Places;
pub use collected::{Collected, DeadlineRow, Lane, OutboxRow, ParkedRow, Side};
pub use command::{Options, run};
pub use figures::Figures;
pub use findings::{Finding, Findings, Kind};
pub use sagas::{Ending, Saga};

use fold::Folded;
use reel::model::{Service, Timestamp};

/// What an audit found.
#[derive(Debug)]
pub struct Audit {
    /// The figures: what `--json` prints.
    pub figures: Figures,
    /// What is wrong, and where.
    pub findings: Findings,
    /// Every order's saga, joined from the three logs.
    pub sagas: Vec<Saga>,
}

/// Audits what was collected, as it was at `now`.
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
    fold::compare("reservations", &reservations.state.reservations, &inventory.state.reservations, &mut findings);
    fold::compare("stock", &reservations.state.stock, &inventory.state.stock, &mut findings);
    fold::compare("receipts", &reservations.state.receipts, &inventory.state.receipts, &mut findings);

    // What orders hold is compared with the tables, so only with what they had been told.
    let told = sagas::join([&orders.events], [&payments.events], [&reservations.events]);
    for saga in &told {
        saga.judge_taken(&mut findings);
    }
    ledger::money(&told, &payments.events, &payment.state, &mut findings);
    ledger::stock(&told, &reservations.events, &inventory.state, &mut findings);
    let sagas =
        sagas::join([&orders.events, &orders.later], [&payments.events, &payments.later], [&reservations.events, &reservations.later]);
    for saga in &sagas {
        saga.judge(now, &mut findings);
    }
    parked::tell(order, &mut findings);
    parked::tell(payment, &mut findings);
    parked::tell(inventory, &mut findings);

    Audit { figures: Figures::of(&sagas, &findings), findings, sagas }
}

/// A service of the order system, as findings name it.
fn name<S: Service>() -> &'static str {
    S::NAME
}
