//! How a reader goes through a topic-partition in which numbers may be missing (law 3): it says so loudly, keeps the position that is
//! stored before them, and reads on until its owner sends them.

use super::{Position, Verdict};
use crate::kafka::Record;

/// What was read of a topic-partition, and up to where that may be stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// Behind the last record read.
    read: Position,
    /// Behind the last record before which nothing is missing.
    sound: Position,
    held: bool,
}

impl Reading {
    /// Begins where a reader had come to.
    pub(crate) fn new(position: Position) -> Self {
        Self { read: position, sound: position, held: false }
    }

    /// Judges a record and goes past it; nothing for one that was read before.
    pub(crate) fn read(&mut self, record: &Record) -> Option<Verdict> {
        if record.offset < self.read.next_offset {
            return None;
        }
        let expected = self.read.next_seq;
        let verdict = self.read.read(record);
        let (topic, partition, offset) = (&record.topic, record.partition, record.offset);
        match verdict {
            Verdict::Gap { found } => {
                if !self.held {
                    tracing::error!(%topic, %partition, offset, expected, found, "numbers are missing: the input is held until its owner sends them");
                }
                self.held = true;
            }
            Verdict::Apply => {
                if self.held {
                    tracing::info!(%topic, %partition, expected, "the missing numbers have come");
                }
                self.held = false;
            }
            Verdict::Opened | Verdict::Duplicate | Verdict::Stale | Verdict::Malformed(_) => {}
        }
        if !self.held {
            self.sound = self.read;
        }
        Some(verdict)
    }

    /// What may be stored: it stays before missing numbers until they come.
    pub(crate) fn sound(&self) -> Position {
        self.sound
    }

    /// The offset of the record that is read next.
    pub(crate) fn next_offset(&self) -> i64 {
        self.read.next_offset
    }

    /// Whether numbers are missing.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::position::tests::record;

    #[test]
    fn each_number_is_applied_once_and_what_is_stored_stays_before_missing_ones() {
        let mut reading = Reading::new(Position::START);
        let records = [
            record(0, None, None),
            record(1, Some(0), Some(0)),
            record(2, Some(0), Some(0)), // again
            record(3, Some(0), Some(2)), // 1 is missing
            record(3, Some(0), Some(2)), // read again
            record(4, Some(0), Some(1)),
            record(5, Some(0), Some(2)),
        ];
        let mut read = |record| (reading.read(record) == Some(Verdict::Apply), reading.sound().next_offset, reading.is_held());
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
        assert_eq!(reading.next_offset(), 6);
    }
}
