//! The fold of a service's events, and where its tables differ (law 6).

use std::collections::BTreeSet;
use std::fmt::Debug;

use reel::kafka::Record;
use reel::model::{Message, Partitions, Rows, Service, Timestamp, Undo, WorkingSet};
use reel::wire::{Opened, Parked, Released};

use super::deadlines::Deadlines;
use super::parked::Park;
use super::{Findings, Kind, Side, journal};

/// What the events of one service amount to.
pub(super) struct Folded<S: Service> {
    /// The fold of all of them.
    pub(super) state: S::State,
    /// The service's own events, lane by lane, in order.
    pub(super) events: Vec<Recorded<S::Event>>,
}

/// An event, and when it was recorded.
pub(super) struct Recorded<E> {
    pub(super) event: E,
    pub(super) at: Timestamp,
}

impl<S: Service> Folded<S> {
    /// Folds what a consumer would apply. Deadlines, parked messages and numbers are compared here, the rows by [`compare`].
    pub(super) fn of(side: &Side<S>, findings: &mut Findings) -> Self {
        let mut folded = Self { state: S::State::complete(), events: Vec::new() };
        let (mut deadlines, mut park) = (Deadlines::default(), Park::default());
        let partitions = i32::try_from(side.lanes.len()).ok().and_then(Partitions::new);
        for lane in &side.lanes {
            for record in journal::accepted(&side.topic, lane, findings) {
                if let Err(reason) = folded.apply(record, partitions, &mut deadlines, &mut park) {
                    let what = format!("{}/{} offset {} cannot be folded: {reason}", side.topic, lane.partition, record.offset);
                    findings.add(Kind::FoldMismatch, what);
                }
            }
        }
        deadlines.compare(super::name::<S>(), &side.deadlines, findings);
        park.compare(super::name::<S>(), &side.parked, findings);
        folded
    }

    fn apply(&mut self, record: &Record, partitions: Option<Partitions>, deadlines: &mut Deadlines, park: &mut Park) -> Result<(), String> {
        let key = partitions.and_then(|partitions| record.sound_key(partitions));
        let key = key.ok_or("its key does not belong into this partition")?;
        let envelope = record.envelope.as_ref().map_err(ToString::to_string)?;
        let payload = record.payload.as_deref().unwrap_or_default();
        match envelope.name.as_str() {
            Opened::NAME => {}
            Parked::NAME => park.park(key, Parked::codec().decode(payload).map_err(|error| error.to_string())?),
            Released::NAME => park.release(&Released::codec().decode(payload).map_err(|error| error.to_string())?),
            name => {
                let event = S::Event::decode(name, payload).map_err(|error| error.to_string())?;
                S::evolve(&mut self.state, &event);
                self.state.each(&mut |table: &mut dyn Undo| table.keep());
                deadlines.apply::<S>(record.partition, key, S::deadlines(&event)).map_err(|error| error.to_string())?;
                self.events.push(Recorded { event, at: envelope.recorded_at.unwrap_or_default() });
            }
        }
        Ok(())
    }
}

/// Compares a table with the fold, row by row.
pub(super) fn compare<K, V>(table: &str, folded: &Rows<K, V>, stored: &Rows<K, V>, findings: &mut Findings)
where
    K: Ord + Clone + Debug,
    V: Clone + PartialEq + Debug,
{
    let keys: BTreeSet<&K> = folded.iter().chain(stored.iter()).map(|(key, _)| key).collect();
    for key in keys {
        let what = match (folded.peek(key), stored.peek(key)) {
            (Some(expected), Some(found)) if expected == found => continue,
            (Some(expected), Some(found)) => format!("is {found:?} and should be {expected:?}"),
            (Some(expected), None) => format!("is missing and should be {expected:?}"),
            (None, found) => format!("is {found:?} and no event says so"),
        };
        findings.add(Kind::FoldMismatch, format!("table {table}, {key:?}: {what}"));
    }
}
