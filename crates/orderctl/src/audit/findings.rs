//! What is wrong, and where.

use std::fmt::{self, Display};

/// How many of each kind are told in full.
const TOLD: usize = 10;

/// What kind of thing is wrong (or only worth telling).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An order has not ended.
    Open,
    /// A cancelled order does not have everything back.
    Undoing,
    /// A message waits for the operator.
    Parked,
    /// Money is missing or there is too much of it; the amount is the finding's weight.
    MoneyDrift,
    /// Stock is missing or there is too much of it.
    StockDrift,
    /// A number is missing.
    Gap,
    /// Two events have one number.
    Fork,
    /// The tables are not what the events say.
    FoldMismatch,
    /// An event was published again: lawful.
    Duplicate,
    /// A record of an owner that has lost its lane: lawful.
    Stale,
    /// A record that is no event of ours: told, not counted.
    Foreign,
    /// A message that could not be handled and parks nothing: told, not counted.
    DeadLetter,
    /// A balance below zero, which comes of a deposit that was lost with its database: told, not counted.
    Overdrawn,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// How much it counts: 1, or so many cents or pieces.
    pub weight: u64,
    /// What is wrong, and where.
    pub what: String,
}

/// All that was found.
#[derive(Debug, Clone, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, kind: Kind, what: impl Into<String>) {
        self.weigh(kind, 1, what);
    }

    /// Nothing that weighs nothing is found.
    pub(super) fn weigh(&mut self, kind: Kind, weight: u64, what: impl Into<String>) {
        if weight > 0 {
            self.0.push(Finding { kind, weight, what: what.into() });
        }
    }

    /// The sum over a kind.
    #[must_use]
    pub fn total(&self, kind: Kind) -> u64 {
        self.of(kind).fold(0, |sum, finding| sum.saturating_add(finding.weight))
    }

    /// Those of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Finding> {
        self.0.iter().filter(move |finding| finding.kind == kind)
    }
}

impl Kind {
    /// Those that make an audit of a quiet system fail.
    pub const WRONG: [Self; 8] =
        [Self::Open, Self::Undoing, Self::Parked, Self::MoneyDrift, Self::StockDrift, Self::Gap, Self::Fork, Self::FoldMismatch];
    /// Those that are only told.
    pub const TOLD: [Self; 3] = [Self::Foreign, Self::DeadLetter, Self::Overdrawn];
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Open => "open",
            Self::Undoing => "undoing",
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

/// The first of each kind that is wrong or worth telling.
impl Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in Kind::WRONG.into_iter().chain(Kind::TOLD) {
            for finding in self.of(kind).take(TOLD) {
                writeln!(f, "  {kind}: {}", finding.what)?;
            }
            let more = self.of(kind).count().saturating_sub(TOLD);
            if more > 0 {
                writeln!(f, "  {kind}: {more} more")?;
            }
        }
        Ok(())
    }
}
