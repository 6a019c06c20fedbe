//! How a reader goes through a topic-partition from which sequences may be missing (law 3).

use super::{Position, Record, Verdict};

/// What was read of a topic-partition, and up to where that may be committed.
///
/// While sequences are missing, the position before them is the committable one: a reader that
/// starts again from there meets the gap again, and nothing behind it counts as consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputCursor {
    /// Nothing is missing before the position.
    Contiguous(Position),
    /// Sequences are missing: the owner of the log sends them again.
    BlockedOnGap {
        /// Before the missing sequences.
        committable: Position,
        /// Behind the last record read.
        read: Position,
    },
}

impl InputCursor {
    /// A cursor at a position before which nothing is missing.
    #[must_use]
    pub fn new(position: Position) -> Self {
        Self::Contiguous(position)
    }

    /// Classifies a record and moves behind it; `None` for one that was read before.
    pub fn read(&mut self, record: &Record) -> Option<Verdict> {
        let (before, was_blocked) = (self.position(), self.is_blocked());
        if record.offset < before.next_offset {
            return None;
        }

        let mut read = before;
        let verdict = read.read(record);
        *self = self.moved(read, &verdict);

        let (topic, partition, offset) = (&record.topic, record.partition, record.offset);
        let expected = before.next_sequence;
        match (was_blocked, &verdict) {
            (false, Verdict::Gap { found }) => tracing::error!(
                event.code = "input.blocked", %topic, %partition, offset, expected, found,
                "sequences are missing: the input is blocked until its owner sends them"
            ),
            (true, Verdict::Apply) => tracing::info!(
                event.code = "input.unblocked", %topic, %partition, expected,
                "the missing sequences have arrived"
            ),
            _ => {}
        }

        Some(verdict)
    }

    /// The position that may be committed: nothing before it is missing.
    #[must_use]
    pub fn committable(&self) -> Position {
        match self {
            Self::Contiguous(position) => *position,
            Self::BlockedOnGap { committable, .. } => *committable,
        }
    }

    /// The offset of the record that is read next.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.position().next_offset
    }

    /// Whether sequences are missing.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        matches!(self, Self::BlockedOnGap { .. })
    }

    /// The position behind the last record read.
    fn position(&self) -> Position {
        match self {
            Self::Contiguous(position) | Self::BlockedOnGap { read: position, .. } => *position,
        }
    }

    /// The cursor after a record with this verdict; `read` is the position behind the record.
    fn moved(self, read: Position, verdict: &Verdict) -> Self {
        match (self, verdict) {
            (_, Verdict::Apply) => Self::Contiguous(read),
            (Self::Contiguous(committable), Verdict::Gap { .. }) => {
                Self::BlockedOnGap { committable, read }
            }
            (Self::Contiguous(_), _) => Self::Contiguous(read),
            (Self::BlockedOnGap { committable, .. }, _) => Self::BlockedOnGap { committable, read },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::position::tests::record;

    #[test]
    fn each_sequence_is_applied_once_and_what_may_be_committed_stays_before_missing_ones() {
        let mut cursor = InputCursor::new(Position::START);
        let records = [
            record(0, None, None),
            record(1, Some(0), Some(0)),
            record(2, Some(0), Some(0)), // a duplicate
            record(3, Some(0), Some(2)), // 1 is missing
            record(3, Some(0), Some(2)), // the same record once more
            record(4, Some(0), Some(1)),
            record(5, Some(0), Some(2)),
        ];

        let mut read = |record| {
            let applied = cursor.read(record) == Some(Verdict::Apply);
            (applied, cursor.committable().next_offset, cursor.is_blocked())
        };
        let read: Vec<(bool, i64, bool)> = records.iter().map(&mut read).collect();

        let expected = [
            (false, 1, false),
            (true, 2, false),
            (false, 3, false),
            (false, 3, true),
            (false, 3, true),
            (true, 5, false),
            (true, 6, false),
        ];
        assert_eq!(read, expected);
        assert_eq!(cursor.next_offset(), 6);
    }
}
