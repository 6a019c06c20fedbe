//! The consumer's rule (law 3): what a reader of a topic-partition does with the next record.

use uuid::Uuid;

use super::Record;
use crate::wire::{Envelope, Opened};

/// Where a reader of a topic-partition is: what it expects next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The offset from which it reads on.
    pub next_offset: i64,
    /// The sequence that it applies next.
    pub next_sequence: i64,
    /// The log epoch: the offset of the last `reel.opened` that it read; -1 before the first.
    pub epoch: i64,
    /// The id of that record; none before the first, and if only an event's cause gave the epoch.
    pub opened_id: Option<Uuid>,
}

/// What is done with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It begins a new epoch, which is its offset.
    Opened,
    /// It is the one expected.
    Apply,
    /// Its sequence was applied before.
    Duplicate,
    /// It is of an earlier epoch than the last one opened: a zombie sent it.
    Stale,
    /// It is of a later epoch than the last one opened, whose `reel.opened` must be before it and
    /// was not read. So the log lost its end, this reader had read beyond that, and what was
    /// written since is in the place of other records.
    EpochMissed {
        /// The epoch of the record.
        epoch: i64,
    },
    /// Sequences are missing before it. It is dropped; its owner sends again from the one expected.
    Gap {
        /// The sequence that was found.
        found: i64,
    },
    /// It is not an event of ours.
    Malformed(String),
}

impl Position {
    /// Before the first record.
    pub const START: Self = Self { next_offset: 0, next_sequence: 0, epoch: -1, opened_id: None };

    /// Classifies the next record.
    #[must_use]
    pub fn classify(&self, record: &Record) -> Verdict {
        let envelope = match &record.envelope {
            Ok(envelope) => envelope,
            Err(malformed) => return Verdict::Malformed(malformed.to_string()),
        };

        match (envelope.epoch, envelope.sequence) {
            (None, None) if envelope.event_type == Opened::NAME => Verdict::Opened,
            // An epoch is the offset of a record before this one; any other is made up.
            (Some(epoch), _) if (self.epoch + 1..record.offset).contains(&epoch) => {
                Verdict::EpochMissed { epoch }
            }
            (Some(epoch), _) if epoch != self.epoch => Verdict::Stale,
            (Some(_), Some(found)) if found == self.next_sequence => Verdict::Apply,
            (Some(_), Some(found)) if found < self.next_sequence => Verdict::Duplicate,
            (Some(_), Some(found)) => Verdict::Gap { found },
            _ => Verdict::Malformed("the record has no sequence or no epoch".into()),
        }
    }

    /// The position behind a record that got this verdict; before it, if records are missing that
    /// nobody will send again.
    #[must_use]
    pub fn after(&self, offset: i64, envelope: Option<&Envelope>, verdict: &Verdict) -> Self {
        let next = Self { next_offset: offset + 1, ..*self };
        match verdict {
            Verdict::Opened => {
                Self { epoch: offset, opened_id: envelope.map(|envelope| envelope.id), ..next }
            }
            Verdict::Apply => Self { next_sequence: self.next_sequence + 1, ..next },
            Verdict::EpochMissed { .. } => *self,
            Verdict::Duplicate | Verdict::Stale | Verdict::Gap { .. } | Verdict::Malformed(_) => {
                next
            }
        }
    }

    /// Classifies a record and moves behind it.
    pub fn read(&mut self, record: &Record) -> Verdict {
        let verdict = self.classify(record);
        *self = self.after(record.offset, record.envelope.as_ref().ok(), &verdict);
        verdict
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::Partition;

    /// A record at this offset: an event with a sequence, or else a `reel.opened`.
    pub(in crate::log) fn record(offset: i64, epoch: Option<i64>, sequence: Option<i64>) -> Record {
        let event_type = if sequence.is_some() { "Thing" } else { Opened::NAME };
        let envelope = Envelope {
            event_type: event_type.into(),
            epoch,
            sequence,
            id: Uuid::from_u128(offset as u128),
            ..Envelope::default()
        };
        Record {
            topic: "t".into(),
            partition: Partition(0),
            offset,
            key: None,
            payload: None,
            envelope: Ok(envelope),
        }
    }

    fn opened(offset: i64) -> Record {
        record(offset, None, None)
    }

    fn event(offset: i64, epoch: i64, sequence: i64) -> Record {
        record(offset, Some(epoch), Some(sequence))
    }

    fn read(records: &[Record]) -> (Vec<Verdict>, Position) {
        let mut position = Position::START;
        let verdicts = records.iter().map(|record| position.read(record)).collect();
        (verdicts, position)
    }

    #[test]
    fn sequences_are_applied_in_turn_and_duplicates_dropped() {
        let (verdicts, position) =
            read(&[opened(0), event(1, 0, 0), event(2, 0, 0), event(3, 0, 1)]);
        assert_eq!(verdicts, [Verdict::Opened, Verdict::Apply, Verdict::Duplicate, Verdict::Apply]);
        let opened_id = Some(Uuid::from_u128(0));
        assert_eq!(position, Position { next_offset: 4, next_sequence: 2, epoch: 0, opened_id });
    }

    #[test]
    fn what_follows_a_missing_sequence_is_dropped_until_it_comes() {
        let (verdicts, position) = read(&[opened(0), event(1, 0, 1), opened(2), event(3, 2, 0)]);
        assert_eq!(
            verdicts,
            [Verdict::Opened, Verdict::Gap { found: 1 }, Verdict::Opened, Verdict::Apply]
        );
        assert_eq!(position.next_sequence, 1);
    }

    #[test]
    fn a_zombies_records_are_dropped_after_the_next_epoch_began() {
        let (verdicts, _) = read(&[opened(0), opened(1), event(2, 0, 0), event(3, 1, 0)]);
        assert_eq!(verdicts, [Verdict::Opened, Verdict::Opened, Verdict::Stale, Verdict::Apply]);
    }

    #[test]
    fn a_later_epoch_that_was_never_opened_means_that_records_are_lost() {
        let mut position =
            Position { next_offset: 10, next_sequence: 7, epoch: 2, opened_id: None };
        let before = position;
        assert_eq!(position.read(&event(10, 8, 4)), Verdict::EpochMissed { epoch: 8 });
        assert_eq!(position, before, "nothing is skipped");
        assert_eq!(position.read(&event(10, 10, 4)), Verdict::Stale, "it precedes no record");
        assert_eq!(position.read(&opened(11)), Verdict::Opened);
        assert_eq!(position.read(&event(12, 11, 7)), Verdict::Apply);
    }

    #[test]
    fn a_record_without_a_sequence_is_malformed() {
        let mut foreign = record(0, None, Some(0));
        if let Ok(envelope) = &mut foreign.envelope {
            envelope.sequence = None;
        }
        assert!(matches!(Position::START.classify(&foreign), Verdict::Malformed(_)));
    }
}
