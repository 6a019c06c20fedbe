//! The fold of a service's events, and how its tables differ from it (law 6).

use std::collections::BTreeSet;
use std::fmt::Debug;

use reel::kafka::Record;
use reel::model::{Message, Partitions, Rows, Savepoint, Service, Timestamp, WorkingSet};
use reel::wire::{Opened, Parked, Released};

use super::deadlines::Deadlines;
use super::parked::Park;
use super::{Findings, Kind, Side, journal};

/// The events of one service, and their fold.
pub(super) struct Folded<S: Service> {
    /// The fold of the events whose sequences the database had assigned when its tables were read.
    pub(super) state: S::State,
    /// The service's own events in that fold, in order, lane by lane.
    pub(super) events: Vec<Recorded<S::Event>>,
    /// The events after them; a quiet system has none.
    pub(super) later: Vec<Recorded<S::Event>>,
}

/// An event and the time at which it was recorded.
pub(super) struct Recorded<E> {
    pub(super) event: E,
    pub(super) at: Timestamp,
}

impl<S: Service> Folded<S> {
    /// Folds what a consumer would apply, and compares sequences, deadlines and parked messages
    /// with the tables. The service's own rows are compared by [`compare`].
    pub(super) fn of(side: &Side<S>, findings: &mut Findings) -> Self {
        let mut folded =
            Self { state: S::State::complete(), events: Vec::new(), later: Vec::new() };
        let (mut deadlines, mut park) = (Deadlines::default(), Park::default());
        let partitions = i32::try_from(side.lanes.len()).ok().and_then(Partitions::new);

        for lane in &side.lanes {
            // Accepted records have no gaps, so the position in the list is the sequence.
            for (sequence, record) in (0..).zip(journal::accepted(&side.topic, lane, findings)) {
                let key = partitions.and_then(|partitions| record.valid_key(partitions));
                let folded_in = match key {
                    None => Err("its key does not belong into this partition".to_owned()),
                    Some(key) if sequence < lane.next_sequence => {
                        folded.apply(record, key, &mut deadlines, &mut park)
                    }
                    Some(_) => folded.keep_for_later(record),
                };
                if let Err(reason) = folded_in {
                    let what = format!(
                        "{}/{} offset {} cannot be folded: {reason}",
                        side.topic, lane.partition, record.offset
                    );
                    findings.add(Kind::FoldMismatch, what);
                }
            }
        }

        deadlines.compare(S::NAME, &side.deadlines, findings);
        park.compare(S::NAME, &side.parked, findings);
        folded
    }

    fn apply(
        &mut self,
        record: &Record,
        key: &str,
        deadlines: &mut Deadlines,
        park: &mut Park,
    ) -> Result<(), String> {
        let payload = record.payload.as_deref().unwrap_or_default();
        match type_of(record) {
            Opened::NAME => {}
            Parked::NAME => park.park(key, Parked::codec().decode(payload).map_err(one_line)?),
            Released::NAME => park.release(&Released::codec().decode(payload).map_err(one_line)?),
            _ => {
                let recorded = Recorded::<S::Event>::of(record)?;
                S::evolve(&mut self.state, &recorded.event);
                self.state.each(&mut |table: &mut dyn Savepoint| table.release());
                deadlines
                    .apply::<S>(record.partition, key, S::deadlines(&recorded.event))
                    .map_err(one_line)?;
                self.events.push(recorded);
            }
        }

        Ok(())
    }

    fn keep_for_later(&mut self, record: &Record) -> Result<(), String> {
        if !matches!(type_of(record), Opened::NAME | Parked::NAME | Released::NAME) {
            self.later.push(Recorded::of(record)?);
        }
        Ok(())
    }
}

impl<E: Message> Recorded<E> {
    fn of(record: &Record) -> Result<Self, String> {
        let envelope = record.envelope.as_ref().map_err(one_line)?;
        let event = E::decode(&envelope.event_type, record.payload.as_deref().unwrap_or_default())
            .map_err(one_line)?;
        Ok(Self { event, at: envelope.recorded_at.unwrap_or_default() })
    }
}

fn type_of(record: &Record) -> &str {
    record.event_type()
}

/// Writes an error and its causes in one line.
fn one_line(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Compares a table with the fold, row by row.
pub(super) fn compare<K, V>(
    table: &str,
    folded: &Rows<K, V>,
    stored: &Rows<K, V>,
    findings: &mut Findings,
) where
    K: Ord + Clone + Debug,
    V: Clone + PartialEq + Debug,
{
    let keys: BTreeSet<&K> = folded.iter().chain(stored.iter()).map(|(key, _)| key).collect();
    for key in keys {
        let what = match (folded.peek(key), stored.peek(key)) {
            (Some(expected), Some(found)) if expected == found => continue,
            (Some(expected), Some(found)) => {
                let [found, expected] =
                    differing([&format!("{found:?}"), &format!("{expected:?}")]);
                format!("is {found} and should be {expected}")
            }
            (Some(expected), None) => format!("is missing and should be {expected:?}"),
            (None, found) => format!("is {found:?}, although no event says so"),
        };
        findings.add(Kind::FoldMismatch, format!("table {table}, {key:?}: {what}"));
    }
}

/// Returns the parts in which two texts differ, each from the start of its field on.
fn differing(texts: [&str; 2]) -> [String; 2] {
    let [one, other] = texts;
    let same = one
        .char_indices()
        .zip(other.chars())
        .find(|((_, a), b)| a != b)
        .map_or(one.len().min(other.len()), |((at, _), _)| at);

    // Back to where the field starts, so that its name is shown.
    let start = one[..same].rfind([',', '{', '(']).map_or(0, |at| at + 1);
    let same_end = one[start..]
        .chars()
        .rev()
        .zip(other[start..].chars().rev())
        .take_while(|(a, b)| a == b)
        .count();

    texts.map(|text| {
        let middle = &text[start..];
        let shown: String = middle.chars().take(middle.chars().count() - same_end).collect();
        let end: String = middle
            .chars()
            .skip(shown.chars().count())
            .take_while(|letter| !",})".contains(*letter))
            .collect();
        format!("{shown}{end}").trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_shown_with_its_field() {
        let texts = [
            "Account { deposited: 10, balance: 1000 }",
            "Account { deposited: 10, balance: 2000 }",
        ];
        assert_eq!(differing(texts), ["balance: 1000", "balance: 2000"]);
        let texts = [
            "Order { lines: [], status: Open }",
            "Order { lines: [], status: Cancelled { reason: Customer } }",
        ];
        assert_eq!(differing(texts), ["status: Open", "status: Cancelled { reason: Customer }"]);
    }
}
