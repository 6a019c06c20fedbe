//! Topics, and the consumer's rule (law 3) as production has it.

use std::sync::Arc;

use reel::kafka::Record as Wire;
use reel::lanes::{Position, Verdict};
use reel::model::Partition;
use reel::wire::{Envelope, Opened};

use super::{Reading, Record, Row, Rules, World};
use crate::plant::Plant;

impl Rules {
    /// A record reaches the end of a topic-partition.
    pub(super) fn append(&self, world: &mut World, site: usize, lane: usize, record: Record) {
        let outside = &mut world.site(site).lanes[lane];
        outside.topic.push(record);
        if let Some(row) = self.read(&mut outside.read, &outside.topic) {
            outside.applied.push(row);
        }
    }

    /// What a reader applies next, if there is anything; it stands behind it then, or else at the end.
    pub(super) fn read(&self, reading: &mut Reading, topic: &[Record]) -> Option<Row> {
        while let Some(record) = topic.get(usize::from(reading.offset)) {
            let record = if self.planted(Plant::GenerationNotChecked) && record.row.is_some() {
                Record { generation: reading.generation, ..*record }
            } else {
                *record
            };
            if judge(reading, record) == Verdict::Apply {
                return record.row;
            }
        }
        None
    }
}

/// [`Position::judge`] and [`Position::after`].
fn judge(reading: &mut Reading, record: Record) -> Verdict {
    let position = Position {
        next_offset: reading.offset.into(),
        next_seq: reading.next.into(),
        generation: reading.generation.into(),
        opened_id: None,
    };
    let offset = i64::from(reading.offset);
    let number = record.row.map(|row| row.number.into());
    let generation = record.row.map(|_| record.generation.into());
    let name = if record.row.is_some() { String::new() } else { Opened::NAME.to_owned() };
    let envelope = Envelope { name, number, generation, ..Envelope::default() };
    let wire = Wire { topic: topic(), partition: Partition(0), offset, key: None, payload: None, envelope: Ok(envelope) };
    let verdict = position.judge(&wire);
    let after = position.after(offset, wire.envelope.as_ref().ok(), &verdict);
    *reading = Reading {
        offset: u8::try_from(after.next_offset).expect("a short topic"),
        next: u8::try_from(after.next_seq).expect("a short topic"),
        generation: i8::try_from(after.generation).expect("a short topic"),
    };
    verdict
}

/// The consumer's rule does not look at the topic's name.
fn topic() -> Arc<str> {
    static TOPIC: std::sync::OnceLock<Arc<str>> = std::sync::OnceLock::new();
    TOPIC.get_or_init(|| "topic".into()).clone()
}
