//! The plan: which order ends how, which a seed decides beforehand. Pure.

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

/// The circumstances of an order, which decide how it should end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// There is enough money and stock.
    Good,
    /// The account holds a cent.
    TooLittleMoney,
    /// The customer has no account.
    UnknownAccount,
    /// More is ordered than there ever was.
    TooLittleStock,
    /// The customer cancels after this time from the answer, which may be too late.
    Cancel(Duration),
    /// There is enough money and stock, but inventory is paused.
    Late,
}

/// An order of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The circumstances that decide how it should end.
    pub wish: Wish,
    /// The customer who places it.
    pub customer: String,
    /// Products and quantities.
    pub lines: Vec<(&'static str, i64)>,
}

/// All orders of a demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The orders, in the order in which they are placed.
    pub orders: Vec<Planned>,
    /// The indices of those that are placed while inventory is paused.
    pub late: Range<usize>,
    /// The deadline of each.
    pub settle_within: Duration,
}

/// Orders of each other kind, in percent; at least one each if there are enough orders.
const TOO_LITTLE_MONEY: usize = 4;
const UNKNOWN_ACCOUNT: usize = 4;
const TOO_LITTLE_STOCK: usize = 4;
const CANCEL: usize = 6;
const LATE: usize = 5;
/// Range of the random times of cancels; most orders are confirmed within it.
const CANCEL_WITHIN_MS: u64 = 150;

/// Products of which there is enough.
pub(super) const PLENTY: [&str; 9] = [
    "TEA-GREEN",
    "TEA-BLACK",
    "TEA-OOLONG",
    "COFFEE",
    "COCOA",
    "MUG",
    "TEAPOT",
    "GRINDER",
    "FILTERS",
];
/// A product of which there is little.
pub(super) const SCARCE: &str = "KETTLE";
pub(super) const SCARCE_PIECES: i64 = 5;
const MORE_THAN_SCARCE: i64 = 100;
pub(super) const RICH: usize = 50;
pub(super) const POOR: usize = 5;

impl Plan {
    /// Returns a plan of this many orders.
    #[must_use]
    pub fn new(orders: usize, seed: u64, settle_within: Duration) -> Self {
        let mut rng = Rng::with_seed(seed);
        let share = |percent: usize| (orders * percent / 100).max(1);
        let late = share(LATE);

        let mut wishes = Vec::with_capacity(orders);
        for (wish, percent) in [
            (Wish::TooLittleMoney, TOO_LITTLE_MONEY),
            (Wish::UnknownAccount, UNKNOWN_ACCOUNT),
            (Wish::TooLittleStock, TOO_LITTLE_STOCK),
            (Wish::Cancel(Duration::ZERO), CANCEL),
        ] {
            wishes.extend(std::iter::repeat_n(wish, share(percent)));
        }

        wishes.truncate(orders - late);
        wishes.resize(orders - late, Wish::Good);
        rng.shuffle(&mut wishes);

        // The late orders come one after another, so that inventory is paused only once.
        let first_late = wishes.len() * 2 / 5;
        wishes.splice(first_late..first_late, std::iter::repeat_n(Wish::Late, late));
        let orders = wishes.into_iter().map(|wish| Planned::new(wish, &mut rng)).collect();
        Self { orders, late: first_late..first_late + late, settle_within }
    }
}

impl Planned {
    fn new(wish: Wish, rng: &mut Rng) -> Self {
        let customer = match wish {
            Wish::TooLittleMoney => poor(rng.usize(..POOR)),
            Wish::UnknownAccount => format!("nobody-{}", rng.u32(..)),
            _ => rich(rng.usize(..RICH)),
        };

        let mut lines: Vec<(&str, i64)> = (0..rng.usize(1..=3))
            .map(|_| (PLENTY[rng.usize(..PLENTY.len())], rng.i64(1..=3)))
            .collect();
        let wish = match wish {
            Wish::Cancel(_) => Wish::Cancel(Duration::from_millis(rng.u64(..CANCEL_WITHIN_MS))),
            other => other,
        };
        if wish == Wish::TooLittleStock {
            lines.push((SCARCE, MORE_THAN_SCARCE));
        }
        Self { wish, customer, lines }
    }
}

pub(super) fn rich(nth: usize) -> String {
    format!("customer-{nth:02}")
}

pub(super) fn poor(nth: usize) -> String {
    format!("poor-{nth}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(orders: usize, seed: u64) -> Plan {
        Plan::new(orders, seed, Duration::from_secs(4))
    }

    #[test]
    fn one_seed_gives_one_plan_and_another_another() {
        assert_eq!(plan(200, 7), plan(200, 7));
        assert_ne!(plan(200, 7), plan(200, 8));
    }

    #[test]
    fn every_ending_is_in_a_plan_and_most_orders_are_good() {
        for orders in [20, 100, 1_000] {
            let plan = plan(orders, 1);
            assert_eq!(plan.orders.len(), orders);
            let count = |wanted: fn(&Wish) -> bool| {
                plan.orders.iter().filter(|order| wanted(&order.wish)).count()
            };
            assert!(count(|wish| *wish == Wish::Good) * 10 >= orders * 7);
            assert!(count(|wish| *wish == Wish::TooLittleMoney) > 0);
            assert!(count(|wish| *wish == Wish::UnknownAccount) > 0);
            assert!(count(|wish| *wish == Wish::TooLittleStock) > 0);
            assert!(count(|wish| matches!(wish, Wish::Cancel(_))) > 0);
            assert_eq!(count(|wish| *wish == Wish::Late), plan.late.len());
            assert!(plan.orders[plan.late.clone()].iter().all(|order| order.wish == Wish::Late));
        }
    }

    #[test]
    fn a_plan_may_be_as_short_as_one_order() {
        for orders in 1..20 {
            assert_eq!(plan(orders, 3).orders.len(), orders);
        }
    }
}
