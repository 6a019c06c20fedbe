//! The conservation of money and stock: for each account and each product, what came in equals what
//! is there plus what orders hold. The events give what came in and what orders should hold, the
//! tables what is there.

use std::collections::BTreeMap;
use std::fmt::Display;

use contracts::inventory::InventoryEvent;
use contracts::payments::PaymentEvent;
use contracts::{CustomerId, Sku};
use inventory::domain::Inventory;
use payment::domain::Payments;

use super::Saga;
use crate::audit::fold::Recorded;
use crate::audit::{Findings, Kind};

/// One account or product, in cents or pieces. In i128, so that no sum of i64 overflows.
#[derive(Debug, Default)]
struct Balance {
    /// By the events: deposits or receipts.
    came_in: i128,
    /// By the events: what orders should hold.
    held: i128,
    /// By the table: deposits or receipts.
    table_in: i128,
    /// By the table: what is there.
    available: i128,
    /// By the table: what orders hold. Accounts have no such column.
    taken: Option<i128>,
}

/// Checks each account: deposits = balance + the money that orders hold.
pub(super) fn money(
    sagas: &[Saga],
    events: &[Recorded<PaymentEvent>],
    tables: &Payments,
    findings: &mut Findings,
) {
    let mut accounts: BTreeMap<&CustomerId, Balance> = BTreeMap::new();
    for recorded in events {
        if let PaymentEvent::AccountCredited(e) = &recorded.event {
            accounts.entry(&e.customer).or_default().came_in += i128::from(e.amount.amount);
        }
    }

    for (customer, cents) in sagas.iter().filter_map(Saga::money_held) {
        accounts.entry(customer).or_default().held += i128::from(cents);
    }

    for (customer, account) in tables.accounts.iter() {
        let balance = accounts.entry(customer).or_default();
        balance.table_in = i128::from(account.deposited);
        balance.available = i128::from(account.balance);
        if account.balance < 0 {
            findings.add(
                Kind::Overdrawn,
                format!("account {customer} has a balance of {}", account.balance),
            );
        }
    }

    report_drift(Kind::MoneyDrift, "account", &accounts, findings);
}

/// Checks each product: received = on hand + taken, and taken is what orders hold.
pub(super) fn stock(
    sagas: &[Saga],
    events: &[Recorded<InventoryEvent>],
    tables: &Inventory,
    findings: &mut Findings,
) {
    let held: Vec<_> = sagas.iter().flat_map(Saga::stock_held).collect();

    let mut products: BTreeMap<&Sku, Balance> = BTreeMap::new();
    for recorded in events {
        if let InventoryEvent::StockReceived(e) = &recorded.event {
            products.entry(&e.sku).or_default().came_in += i128::from(e.quantity);
        }
    }

    for line in &held {
        products.entry(&line.sku).or_default().held += i128::from(line.quantity);
    }

    for (sku, stock) in tables.stock.iter() {
        let balance = products.entry(sku).or_default();
        balance.table_in = i128::from(stock.received);
        balance.available = i128::from(stock.on_hand);
        balance.taken = Some(i128::from(stock.taken));
    }

    report_drift(Kind::StockDrift, "product", &products, findings);
}

fn report_drift<K: Display>(
    kind: Kind,
    what: &str,
    balances: &BTreeMap<K, Balance>,
    findings: &mut Findings,
) {
    for (key, balance) in balances {
        let Balance { came_in, held, table_in, available, taken } = balance;
        let taken = taken.map_or_else(String::new, |taken| format!(", taken {taken}"));
        let text = format!(
            "{what} {key}: {came_in} came in, orders hold {held}; \
             the table says in {table_in}, available {available}{taken}"
        );
        findings.weigh(kind, balance.drift(), text);
    }
}

impl Balance {
    /// Returns by how much it is off: the largest of its differences, because one fault shows in
    /// several of them.
    fn drift(&self) -> u64 {
        let taken = self.taken.unwrap_or(self.held);
        let differences = [
            self.came_in - self.available - self.held,
            self.table_in - self.available - taken,
            self.table_in - self.came_in,
            taken - self.held,
        ];
        let largest = differences.into_iter().map(i128::unsigned_abs).max().unwrap_or(0);
        u64::try_from(largest).unwrap_or(u64::MAX)
    }
}
