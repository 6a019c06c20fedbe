//! What came in is what is there and what orders hold, by account and by product. What came in and what orders should hold
//! is told by the events, what is there by the tables.

use std::collections::BTreeMap;
use std::fmt::Display;

use contracts::inventory::InventoryEvent;
use contracts::payments::PaymentEvent;
use contracts::{CustomerId, Sku};
use inventory::domain::Inventory;
use payment::domain::Payments;

use super::fold::Recorded;
use super::{Findings, Kind, Saga};

/// One account or product. In i128, so that no sum of i64 overflows.
#[derive(Debug, Default)]
struct Balance {
    /// By the events: deposits, receipts.
    came_in: i128,
    /// By the events: what orders that are not undone should hold.
    held: i128,
    /// By the table: what came in.
    noted: i128,
    /// By the table: what is there.
    there: i128,
    /// By the table: what orders hold, where it says so.
    taken: Option<i128>,
}

/// Per account: deposits = balance + money held by orders not undone.
pub(super) fn money(sagas: &[Saga], events: &[Recorded<PaymentEvent>], tables: &Payments, findings: &mut Findings) {
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
        balance.noted = i128::from(account.deposited);
        balance.there = i128::from(account.balance);
        if account.balance < 0 {
            findings.add(Kind::Overdrawn, format!("account {customer} has {} on it", account.balance));
        }
    }
    tell(Kind::MoneyDrift, "account", &accounts, findings);
}

/// Per product: received = on hand + taken, and taken is what orders hold.
pub(super) fn stock(sagas: &[Saga], events: &[Recorded<InventoryEvent>], tables: &Inventory, findings: &mut Findings) {
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
        balance.noted = i128::from(stock.received);
        balance.there = i128::from(stock.on_hand);
        balance.taken = Some(i128::from(stock.taken));
    }
    tell(Kind::StockDrift, "product", &products, findings);
}

fn tell<K: Display>(kind: Kind, what: &str, balances: &BTreeMap<K, Balance>, findings: &mut Findings) {
    for (key, balance) in balances {
        let Balance { came_in, held, noted, there, taken } = balance;
        let taken = taken.map_or_else(String::new, |taken| format!(", taken {taken}"));
        let text = format!("{what} {key}: {came_in} came in, orders hold {held}; the table says in {noted}, there {there}{taken}");
        findings.weigh(kind, balance.drift(), text);
    }
}

impl Balance {
    /// By how much it is off: the largest of its differences, since one fault shows in several.
    fn drift(&self) -> u64 {
        let taken = self.taken.unwrap_or(self.held);
        let differences =
            [self.came_in - self.there - self.held, self.noted - self.there - taken, self.noted - self.came_in, taken - self.held];
        let largest = differences.into_iter().map(i128::unsigned_abs).max().unwrap_or(0);
        u64::try_from(largest).unwrap_or(u64::MAX)
    }
}
