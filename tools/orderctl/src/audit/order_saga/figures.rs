//! The figures of an audit, each of which is a field of the JSON output.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use super::{Audit, Ending, Saga};
use crate::audit::{Findings, Kind};

/// The figures of an audit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Orders that were placed.
    pub orders: u64,
    /// Orders that were confirmed.
    pub confirmed: u64,
    /// Orders that were cancelled, by reason.
    pub cancelled: BTreeMap<String, u64>,
    /// Orders that have not ended.
    pub open: u64,
    /// Orders that were cancelled and have compensations outstanding.
    pub compensating: u64,
    /// Messages that wait for the operator, or behind one that does.
    pub parked: u64,
    /// Cents by which deposits differ from balance plus what orders hold, over all accounts.
    pub money_drift: u64,
    /// Pieces by which receipts differ from stock on hand plus what orders hold, over all products.
    pub stock_drift: u64,
    /// Sequences that are missing in a topic-partition.
    pub gaps: u64,
    /// Sequences that two events have.
    pub forks: u64,
    /// Records that were published again: lawful.
    pub duplicates: u64,
    /// Records of owners that had lost their lane: lawful.
    pub stale: u64,
    /// Rows, heads, deadlines and orders that are not what the events make them.
    pub fold_mismatches: u64,
    /// Whether the audit of a quiet system succeeds.
    pub ok: bool,
}

impl Figures {
    pub(super) fn of(sagas: &[Saga], findings: &Findings) -> Self {
        let created = || sagas.iter().filter(|saga| saga.created.is_some());
        let mut figures = Self {
            orders: created().count() as u64,
            open: findings.total(Kind::Open),
            compensating: findings.total(Kind::Compensating),
            parked: findings.total(Kind::Parked),
            money_drift: findings.total(Kind::MoneyDrift),
            stock_drift: findings.total(Kind::StockDrift),
            gaps: findings.total(Kind::Gap),
            forks: findings.total(Kind::Fork),
            duplicates: findings.total(Kind::Duplicate),
            stale: findings.total(Kind::Stale),
            fold_mismatches: findings.total(Kind::FoldMismatch),
            ok: Kind::WRONG.into_iter().all(|kind| findings.total(kind) == 0),
            ..Self::default()
        };

        for saga in created() {
            match &saga.ending {
                Some(Ending::Confirmed) => figures.confirmed += 1,
                Some(Ending::Cancelled { reason, .. }) => {
                    *figures.cancelled.entry(reason.to_string()).or_default() += 1;
                }
                None => {}
            }
        }

        figures
    }
}

/// Writes the figures, then what is wrong and where, for people.
impl Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures {
            orders, confirmed, open, compensating, parked, money_drift, stock_drift, ..
        } = &self.figures;
        let Figures { gaps, forks, duplicates, stale, fold_mismatches, cancelled, ok, .. } =
            &self.figures;

        let verdict = if *ok { "ok" } else { "NOT OK" };
        writeln!(f, "audit: {verdict}")?;
        write!(
            f,
            "  orders {orders}, confirmed {confirmed}, cancelled {}",
            cancelled.values().sum::<u64>()
        )?;
        let reasons: Vec<String> =
            cancelled.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        if !reasons.is_empty() {
            write!(f, " ({})", reasons.join(", "))?;
        }
        writeln!(
            f,
            "\n  open {open}, compensating {compensating}, parked {parked}, \
             money drift {money_drift}, stock drift {stock_drift}"
        )?;
        writeln!(
            f,
            "  gaps {gaps}, forks {forks}, fold mismatches {fold_mismatches}; \
             lawful: duplicates {duplicates}, stale {stale}"
        )?;
        write!(f, "{}", self.findings)
    }
}
