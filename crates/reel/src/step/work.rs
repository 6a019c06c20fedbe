//! The items of a batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admission::QueuedCommand;
use crate::log::{Position, Record};
use crate::model::{Partition, Service, Trigger};
use crate::tables::deadlines::Due;

/// One item of a batch. An input carries the position behind it, so that a batch can be cut between
/// any two items and the positions still match what was handled.
pub(super) enum WorkItem<S: Service> {
    /// An input of a type that the service handles. If it cannot be decoded, it parks its key.
    Input { record: Record, key: String, decoded: Result<S::Input, String>, after: Position },
    /// A foreign record: one that breaks the rules of the log. It becomes a dead letter and parks
    /// no key. Its `after` stays where it was while the input is blocked on a gap.
    Malformed { record: Record, reason: String, after: Position },
    /// Consecutive records of one input that have no effect: duplicates, stale ones, `reel.opened`,
    /// and types that the service does not handle. Only the position moves.
    Skip { topic: Arc<str>, partition: Partition, after: Position },
    /// A command whose client is waiting for the answer.
    Command(QueuedCommand<S>),
    /// A deadline that was due when it was read.
    Deadline { due: Due, command: Result<S::Command, String> },
}

/// The new position of each input whose position a batch moves.
pub(super) type Moves = BTreeMap<(Partition, Arc<str>), Position>;

impl<S: Service> WorkItem<S> {
    /// The lane in whose order the item must be handled. Commands and deadlines have none: row
    /// locks order them, and any replica may decide them.
    pub(super) fn lane(&self) -> Option<Partition> {
        match self {
            Self::Input { record, .. } | Self::Malformed { record, .. } => Some(record.partition),
            Self::Skip { partition, .. } => Some(*partition),
            Self::Command(_) | Self::Deadline { .. } => None,
        }
    }

    /// The lane and the key of an input that may be parked.
    pub(super) fn key_in_lane(&self) -> Option<(Partition, &str)> {
        if let Self::Input { record, key, .. } = self {
            Some((record.partition, key))
        } else {
            None
        }
    }

    /// The input whose position the item moves, and the new position.
    pub(super) fn moves(&self) -> Option<((Partition, Arc<str>), Position)> {
        match self {
            Self::Input { record, after, .. } | Self::Malformed { record, after, .. } => {
                Some(((record.partition, record.topic.clone()), *after))
            }
            Self::Skip { topic, partition, after } => Some(((*partition, topic.clone()), *after)),
            Self::Command(_) | Self::Deadline { .. } => None,
        }
    }

    /// Whether this position of its input shows that the item was done. A record that was read
    /// while the input is blocked on a gap counts by its own offset: the position behind it stays
    /// before the gap.
    pub(super) fn is_done_at(&self, of_topic: &str, stored: &Position) -> bool {
        match self {
            Self::Input { record, .. } | Self::Malformed { record, .. } => {
                *record.topic == *of_topic && record.offset < stored.next_offset
            }
            Self::Skip { topic, after, .. } => {
                **topic == *of_topic && after.next_offset <= stored.next_offset
            }
            Self::Command(_) | Self::Deadline { .. } => false,
        }
    }

    /// About how many bytes of memory a queued item takes. An input that was decoded takes as much
    /// again.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Input { record, .. } => 2 * record.size(),
            Self::Malformed { record, .. } => record.size(),
            Self::Skip { .. } | Self::Command(_) | Self::Deadline { .. } => 0,
        }
    }

    /// Whether the item may write anything besides a position.
    pub(super) fn is_effective(&self) -> bool {
        !matches!(self, Self::Skip { .. })
    }

    /// Whether it is a record that a pure function may be asked about.
    pub(super) fn is_input(&self) -> bool {
        matches!(self, Self::Input { .. })
    }

    /// The deadline, if it is one.
    pub(super) fn due(&self) -> Option<&Due> {
        if let Self::Deadline { due, .. } = self { Some(due) } else { None }
    }

    /// What `read_set` is asked about, to learn which rows to load; `None` if no pure function will
    /// be called.
    pub(super) fn trigger(&self) -> Option<Trigger<'_, S>> {
        match self {
            Self::Input { decoded: Ok(input), .. } => Some(Trigger::Input(input)),
            Self::Command(queued) => Some(Trigger::Command(&queued.command)),
            Self::Deadline { command: Ok(command), .. } => Some(Trigger::Command(command)),
            Self::Input { .. } | Self::Malformed { .. } | Self::Skip { .. } => None,
            Self::Deadline { .. } => None,
        }
    }
}

/// The positions that a batch moves. Of several items of one input the last one counts.
pub(super) fn moves<S: Service>(batch: &[WorkItem<S>]) -> Moves {
    batch.iter().filter_map(WorkItem::moves).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::till::Till;
    use crate::wire::Malformed;

    #[test]
    fn a_foreign_record_read_while_its_input_is_blocked_is_done_by_its_own_offset() {
        let before_the_gap = Position { next_offset: 5, ..Position::START };
        let record = Record {
            topic: "payments".into(),
            partition: Partition(0),
            offset: 9,
            key: None,
            payload: None,
            envelope: Err(Malformed::Missing("ce_id")),
        };
        let reason = "it has no headers".to_owned();
        let item = WorkItem::<Till>::Malformed { record, reason, after: before_the_gap };
        assert!(!item.is_done_at("payments", &before_the_gap), "its commit did not happen");
        assert!(!item.is_done_at("orders", &Position { next_offset: 10, ..before_the_gap }));
        assert!(item.is_done_at("payments", &Position { next_offset: 10, ..before_the_gap }));
    }
}
