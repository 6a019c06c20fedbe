//! Topics, and the production code of the consumer's rule (law 3).

use std::sync::Arc;

use reel_core::log::{self, Verdict};
use reel_core::model::Partition;
use reel_core::wire::{Envelope, Opened};

use super::{Position, Record, Row, Rules, World};
use crate::plant::Plant;

impl Rules {
    /// Appends a record to a topic-partition, and has the reader of every topic read it.
    pub(super) fn append(&self, world: &mut World, site: usize, lane: usize, record: Record) {
        let outside = &mut world.site(site).lanes[lane];
        outside.topic.push(record);
        if let Some(row) = self.read(&mut outside.read, &outside.topic) {
            outside.applied.push(row);
        }
    }

    /// Reads up to the next event to apply, and returns it; `None` at the end of the topic.
    pub(super) fn read(&self, position: &mut Position, topic: &[Record]) -> Option<Row> {
        while let Some(record) = topic.get(usize::from(position.offset)) {
            let record = if self.planted(Plant::GenerationNotChecked) && record.row.is_some() {
                Record { epoch: position.epoch, ..*record }
            } else {
                *record
            };
            if classify(position, record) == Verdict::Apply {
                return record.row;
            }
        }
        None
    }
}

/// Classifies the next record and moves past it, by the production [`log::Position`].
fn classify(position: &mut Position, record: Record) -> Verdict {
    let before = log::Position {
        next_offset: position.offset.into(),
        next_sequence: position.next.into(),
        epoch: position.epoch.into(),
        opened_id: None,
    };

    let offset = i64::from(position.offset);
    let sequence = record.row.map(|row| row.sequence.into());
    let epoch = record.row.map(|_| record.epoch.into());
    let name = if record.row.is_some() { String::new() } else { Opened::NAME.to_owned() };
    let envelope = Envelope { event_type: name, sequence, epoch, ..Envelope::default() };

    let wire = log::Record {
        topic: topic(),
        partition: Partition(0),
        offset,
        key: None,
        payload: None,
        envelope: Ok(envelope),
    };
    let verdict = before.classify(&wire);
    let after = before.after(offset, wire.envelope.as_ref().ok(), &verdict);
    *position = Position {
        offset: u8::try_from(after.next_offset).expect("a short topic"),
        next: u8::try_from(after.next_sequence).expect("a short topic"),
        epoch: i8::try_from(after.epoch).expect("a short topic"),
    };
    verdict
}

/// Any name, as the consumer's rule ignores it.
fn topic() -> Arc<str> {
    static TOPIC: std::sync::OnceLock<Arc<str>> = std::sync::OnceLock::new();
    TOPIC.get_or_init(|| "topic".into()).clone()
}
