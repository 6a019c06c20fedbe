//! The findings of an audit: what is wrong, and where.

use std::fmt::{self, Display};

/// Number of findings of a kind that are printed in full.
const SHOWN: usize = 10;

/// The kind of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An order has not ended.
    Open,
    /// A cancelled order does not have everything back.
    Compensating,
    /// A message is parked: it waits for the operator, or behind one that does.
    Parked,
    /// There is too little or too much money; the amount is the finding's weight.
    MoneyDrift,
    /// There is too little or too much stock; the quantity is the finding's weight.
    StockDrift,
    /// Sequences are missing in a topic-partition; their count is the finding's weight.
    Gap,
    /// Two events have the same sequence.
    Fork,
    /// A table, a head or an order is not what the events make it.
    FoldMismatch,
    /// An event was published again: lawful.
    Duplicate,
    /// A record of a former owner of the lane: lawful.
    Stale,
    /// A record that is not a service's event: reported, not counted.
    Foreign,
    /// A message that could not be handled and does not park its key: reported, not counted.
    DeadLetter,
    /// A balance below zero, after a deposit was lost with its database: reported, not counted.
    Overdrawn,
}

/// One thing that is wrong or worth a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of finding it is.
    pub kind: Kind,
    /// Its weight: 1, a count, or an amount in cents or pieces.
    pub weight: u64,
    /// What is wrong and where, for people.
    pub what: String,
}

/// All findings of an audit.
#[derive(Debug, Clone, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, kind: Kind, what: impl Into<String>) {
        self.weigh(kind, 1, what);
    }

    /// Adds a finding, unless its weight is zero.
    pub(super) fn weigh(&mut self, kind: Kind, weight: u64, what: impl Into<String>) {
        if weight > 0 {
            self.0.push(Finding { kind, weight, what: what.into() });
        }
    }

    /// Returns the total weight of a kind.
    #[must_use]
    pub fn total(&self, kind: Kind) -> u64 {
        self.of(kind).fold(0, |sum, finding| sum.saturating_add(finding.weight))
    }

    /// Returns the findings of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Finding> {
        self.0.iter().filter(move |finding| finding.kind == kind)
    }
}

impl Kind {
    /// The kinds that fail the audit of a quiet system.
    pub const WRONG: [Self; 8] = [
        Self::Open,
        Self::Compensating,
        Self::Parked,
        Self::MoneyDrift,
        Self::StockDrift,
        Self::Gap,
        Self::Fork,
        Self::FoldMismatch,
    ];
    /// The kinds that are only reported.
    pub const REPORTED: [Self; 3] = [Self::Foreign, Self::DeadLetter, Self::Overdrawn];
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Open => "open",
            Self::Compensating => "compensating",
            Self::Parked => "parked",
            Self::MoneyDrift => "money drift",
            Self::StockDrift => "stock drift",
            Self::Gap => "gap",
            Self::Fork => "fork",
            Self::FoldMismatch => "fold mismatch",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::Foreign => "foreign record",
            Self::DeadLetter => "dead letter",
            Self::Overdrawn => "overdrawn",
        })
    }
}

/// The first findings of each kind that fails the audit or is reported.
impl Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in Kind::WRONG.into_iter().chain(Kind::REPORTED) {
            for finding in self.of(kind).take(SHOWN) {
                writeln!(f, "  {kind}: {}", finding.what)?;
            }
            let more = self.of(kind).count().saturating_sub(SHOWN);
            if more > 0 {
                writeln!(f, "  {kind}: {more} more")?;
            }
        }
        Ok(())
    }
}
