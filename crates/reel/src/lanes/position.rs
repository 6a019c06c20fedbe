//! The consumer's rule (law 3): what a reader of a topic-partition does with the next record. Pure.

use uuid::Uuid;

use crate::failpoints::{Bug, planted};
use crate::kafka::Record;
use crate::wire::{Envelope, Opened};

/// Where a reader of a topic-partition stands: what it expects next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The offset from which it reads on.
    pub next_offset: i64,
    /// The number that it applies next.
    pub next_seq: i64,
    /// The offset of the last `reel.opened` that it read; -1 before the first.
    pub generation: i64,
    /// The id of that record; none before the first, and where only an event's cause tells the generation.
    pub opened_id: Option<Uuid>,
}

/// What is done with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It opens the lane of its owner anew: the generation is its offset.
    Opened,
    /// It is the one expected.
    Apply,
    /// Its number was applied before.
    Duplicate,
    /// It is of another generation than the last one opened: a zombie sent it.
    Stale,
    /// Numbers are missing before it. It is dropped; its owner sends again from the one expected on.
    Gap {
        /// The number that was found.
        found: i64,
    },
    /// It is no event of ours.
    Malformed(String),
}

impl Position {
    /// Before the first record.
    pub const START: Self = Self { next_offset: 0, next_seq: 0, generation: -1, opened_id: None };

    /// What is done with the record of this envelope.
    #[must_use]
    pub fn judge(&self, record: &Record) -> Verdict {
        let envelope = match &record.envelope {
            Ok(envelope) => envelope,
            Err(malformed) => return Verdict::Malformed(malformed.to_string()),
        };
        match (envelope.generation, envelope.number) {
            (None, None) if envelope.name == Opened::NAME => Verdict::Opened,
            (Some(generation), _) if generation != self.generation && !planted(Bug::NoGeneration) => Verdict::Stale,
            (Some(_), Some(number)) if number == self.next_seq => Verdict::Apply,
            (Some(_), Some(number)) if number < self.next_seq => Verdict::Duplicate,
            (Some(_), Some(number)) => Verdict::Gap { found: number },
            _ => Verdict::Malformed("the record has no number or no generation".into()),
        }
    }

    /// Where the reader stands after a record on which this was the verdict.
    #[must_use]
    pub fn after(&self, offset: i64, envelope: Option<&Envelope>, verdict: &Verdict) -> Self {
        let mut next = Self { next_offset: offset + 1, ..*self };
        match verdict {
            Verdict::Opened => {
                next.generation = offset;
                next.opened_id = envelope.map(|envelope| envelope.id);
            }
            Verdict::Apply => next.next_seq += 1,
            Verdict::Duplicate | Verdict::Stale | Verdict::Gap { .. } | Verdict::Malformed(_) => {}
        }
        next
    }

    /// Judges a record and goes past it.
    pub fn read(&mut self, record: &Record) -> Verdict {
        let verdict = self.judge(record);
        *self = self.after(record.offset, record.envelope.as_ref().ok(), &verdict);
        verdict
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::Partition;

    /// A record at this offset: a numbered event, or else a `reel.opened`.
    pub(in crate::lanes) fn record(offset: i64, generation: Option<i64>, number: Option<i64>) -> Record {
        let name = if number.is_some() { "Thing" } else { Opened::NAME };
        let envelope = Envelope { name: name.into(), generation, number, id: Uuid::from_u128(offset as u128), ..Envelope::default() };
        Record { topic: "t".into(), partition: Partition(0), offset, key: None, payload: None, envelope: Ok(envelope) }
    }

    fn read(records: &[Record]) -> (Vec<Verdict>, Position) {
        let mut position = Position::START;
        let verdicts = records.iter().map(|record| position.read(record)).collect();
        (verdicts, position)
    }

    #[test]
    fn numbers_are_applied_in_turn_and_duplicates_dropped() {
        let (verdicts, position) =
            read(&[record(0, None, None), record(1, Some(0), Some(0)), record(2, Some(0), Some(0)), record(3, Some(0), Some(1))]);
        assert_eq!(verdicts, [Verdict::Opened, Verdict::Apply, Verdict::Duplicate, Verdict::Apply]);
        assert_eq!(position, Position { next_offset: 4, next_seq: 2, generation: 0, opened_id: Some(Uuid::from_u128(0)) });
    }

    #[test]
    fn what_lies_behind_a_missing_number_is_dropped_until_it_comes() {
        let (verdicts, position) =
            read(&[record(0, None, None), record(1, Some(0), Some(1)), record(2, None, None), record(3, Some(2), Some(0))]);
        assert_eq!(verdicts, [Verdict::Opened, Verdict::Gap { found: 1 }, Verdict::Opened, Verdict::Apply]);
        assert_eq!(position.next_seq, 1);
    }

    #[test]
    fn a_zombies_records_are_dropped_after_the_next_opening() {
        let (verdicts, _) = read(&[record(0, None, None), record(1, None, None), record(2, Some(0), Some(0)), record(3, Some(1), Some(0))]);
        assert_eq!(verdicts, [Verdict::Opened, Verdict::Opened, Verdict::Stale, Verdict::Apply]);
    }

    #[test]
    fn a_record_without_a_number_is_malformed() {
        let mut foreign = record(0, None, Some(0));
        if let Ok(envelope) = &mut foreign.envelope {
            envelope.number = None;
        }
        assert!(matches!(Position::START.judge(&foreign), Verdict::Malformed(_)));
    }
}
