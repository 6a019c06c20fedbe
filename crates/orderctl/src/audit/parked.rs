//! Parked messages are the fold of `reel.parked` and `reel.released` (law 8).

use std::collections::BTreeMap;

use reel::model::Service;
use reel::wire::{Parked, Released};

use super::{Findings, Kind, ParkedRow, Side};

/// The messages that the events leave parked, by where they lie.
#[derive(Debug, Default)]
pub(super) struct Park(BTreeMap<Place, ParkedRow>);

/// Topic, partition, generation, number.
type Place = (String, i32, i64, i64);

impl Park {
    pub(super) fn park(&mut self, key: &str, parked: Parked) {
        let Parked { topic, partition, generation, number, offset, message_type, reason } = parked;
        let row = ParkedRow { topic, partition, generation, number, offset, key: key.to_owned(), message_type, reason };
        self.0.insert(place(&row), row);
    }

    pub(super) fn release(&mut self, released: &Released) {
        self.0.remove(&(released.topic.clone(), released.partition, released.generation, released.number));
    }

    pub(super) fn compare(mut self, service: &str, stored: &[ParkedRow], findings: &mut Findings) {
        for row in stored {
            let what = match self.0.remove(&place(row)) {
                Some(expected) if expected == *row => continue,
                Some(expected) => format!("is parked as {row:?} and should be as {expected:?}"),
                None => "is parked and no event says so".to_owned(),
            };
            findings.add(Kind::FoldMismatch, format!("{service}: {} number {} {what}", input(row), row.number));
        }
        for row in self.0.into_values() {
            findings.add(Kind::FoldMismatch, format!("{service}: {} number {} should be parked", input(&row), row.number));
        }
    }
}

/// Tells what waits for the operator.
pub(super) fn tell<S: Service>(side: &Side<S>, findings: &mut Findings) {
    for row in &side.parked {
        let ParkedRow { message_type, key, reason, .. } = row;
        findings.add(Kind::Parked, format!("{}: {message_type} of {key} from {}: {reason}", S::NAME, input(row)));
    }
    if let Ok(count @ 1..) = u64::try_from(side.dead_letters) {
        findings.weigh(Kind::DeadLetter, count, format!("{}: {count} in its table", S::NAME));
    }
}

fn place(row: &ParkedRow) -> Place {
    (row.topic.clone(), row.partition, row.generation, row.number)
}

fn input(row: &ParkedRow) -> String {
    format!("{}/{} offset {}", row.topic, row.partition, row.offset)
}
