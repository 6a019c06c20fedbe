//! The parked messages, which are the fold of `reel.parked` and `reel.released` (law 8).

use std::collections::BTreeMap;

use reel::model::Service;
use reel::wire::{Parked, Released};

use super::{Findings, Kind, ParkedRow, Side};

/// The messages that the events leave parked, by position in their input.
#[derive(Debug, Default)]
pub(super) struct Park(BTreeMap<InputPosition, ParkedRow>);

/// Topic, partition, epoch, sequence.
type InputPosition = (String, i32, i64, i64);

impl Park {
    pub(super) fn park(&mut self, key: &str, parked: Parked) {
        let Parked { topic, partition, generation, number, offset, message_type, reason } = parked;
        let row = ParkedRow {
            topic,
            partition,
            epoch: generation,
            sequence: number,
            offset,
            key: key.to_owned(),
            message_type,
            reason,
        };
        self.0.insert(position(&row), row);
    }

    pub(super) fn release(&mut self, released: &Released) {
        self.0.remove(&(
            released.topic.clone(),
            released.partition,
            released.generation,
            released.number,
        ));
    }

    pub(super) fn compare(mut self, service: &str, stored: &[ParkedRow], findings: &mut Findings) {
        for row in stored {
            let what = match self.0.remove(&position(row)) {
                Some(expected) if expected == *row => continue,
                Some(expected) => format!("is parked as {row:?} and should be as {expected:?}"),
                None => "is parked, although no event says so".to_owned(),
            };
            findings.add(
                Kind::FoldMismatch,
                format!("{service}: {} sequence {} {what}", input(row), row.sequence),
            );
        }
        for row in self.0.into_values() {
            findings.add(
                Kind::FoldMismatch,
                format!("{service}: {} sequence {} should be parked", input(&row), row.sequence),
            );
        }
    }
}

/// Reports the messages that wait for the operator.
pub(super) fn report<S: Service>(side: &Side<S>, findings: &mut Findings) {
    for row in &side.parked {
        let ParkedRow { message_type, key, reason, .. } = row;
        findings.add(
            Kind::Parked,
            format!("{}: {message_type} of {key} from {}: {reason}", S::NAME, input(row)),
        );
    }
    if let Ok(count @ 1..) = u64::try_from(side.dead_letters) {
        findings.weigh(Kind::DeadLetter, count, format!("{}: {count} in its table", S::NAME));
    }
}

fn position(row: &ParkedRow) -> InputPosition {
    (row.topic.clone(), row.partition, row.epoch, row.sequence)
}

fn input(row: &ParkedRow) -> String {
    format!("{}/{} offset {}", row.topic, row.partition, row.offset)
}
