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
    /// The fold of those that the database had numbered when its tables were read.
    pub(super) state: S::State,
    /// The service's own events, lane by lane, in order: those of that fold.
    pub(super) events: Vec<Recorded<S::Event>>,
    /// Those that came after: none in a quiet system.
    pub(super) later: Vec<Recorded<S::Event>>,
}

/// An event, and when it was recorded.
pub(super) struct Recorded<E> {
    pub(super) event: E,
    pub(super) at: Timestamp,
}

impl<S: Service> Folded<S> {
    /// Folds what a consumer would apply. Deadlines, parked messages and numbers are compared here, the rows by [`compare`].
    pub(super) fn of(side: &Side<S>, findings: &mut Findings) -> Self {
        let mut folded = Self { state: S::State::complete(), events: Vec::new(), later: Vec::new() };
        let (mut deadlines, mut park) = (Deadlines::default(), Park::default());
        let partitions = i32::try_from(side.lanes.len()).ok().and_then(Partitions::new);
        for lane in &side.lanes {
            for (number, record) in (0..).zip(journal::accepted(&side.topic, lane, findings)) {
                let key = partitions.and_then(|partitions| record.sound_key(partitions));
                let done = match key {
                    None => Err("its key does not belong into this partition".to_owned()),
                    Some(key) if number < lane.next_seq => folded.apply(record, key, &mut deadlines, &mut park),
                    Some(_) => folded.look_at(record),
                };
                if let Err(reason) = done {
                    let what = format!("{}/{} offset {} cannot be folded: {reason}", side.topic, lane.partition, record.offset);
                    findings.add(Kind::FoldMismatch, what);
                }
            }
        }
        deadlines.compare(super::name::<S>(), &side.deadlines, findings);
        park.compare(super::name::<S>(), &side.parked, findings);
        folded
    }

    fn apply(&mut self, record: &Record, key: &str, deadlines: &mut Deadlines, park: &mut Park) -> Result<(), String> {
        let payload = record.payload.as_deref().unwrap_or_default();
        match type_of(record) {
            Opened::NAME => {}
            Parked::NAME => park.park(key, Parked::codec().decode(payload).map_err(in_words)?),
            Released::NAME => park.release(&Released::codec().decode(payload).map_err(in_words)?),
            _ => {
                let recorded = Recorded::<S::Event>::of(record)?;
                S::evolve(&mut self.state, &recorded.event);
                self.state.each(&mut |table: &mut dyn Undo| table.keep());
                deadlines.apply::<S>(record.partition, key, S::deadlines(&recorded.event)).map_err(in_words)?;
                self.events.push(recorded);
            }
        }
        Ok(())
    }

    fn look_at(&mut self, record: &Record) -> Result<(), String> {
        if !matches!(type_of(record), Opened::NAME | Parked::NAME | Released::NAME) {
            self.later.push(Recorded::of(record)?);
        }
        Ok(())
    }
}

impl<E: Message> Recorded<E> {
    fn of(record: &Record) -> Result<Self, String> {
        let envelope = record.envelope.as_ref().map_err(in_words)?;
        let event = E::decode(&envelope.name, record.payload.as_deref().unwrap_or_default()).map_err(in_words)?;
        Ok(Self { event, at: envelope.recorded_at.unwrap_or_default() })
    }
}

fn type_of(record: &Record) -> &str {
    record.envelope.as_ref().map_or("", |envelope| envelope.name.as_str())
}

/// An error with its causes, in one line.
fn in_words(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
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
            (Some(expected), Some(found)) => {
                let [found, expected] = differing([&format!("{found:?}"), &format!("{expected:?}")]);
                format!("is {found} and should be {expected}")
            }
            (Some(expected), None) => format!("is missing and should be {expected:?}"),
            (None, found) => format!("is {found:?} and no event says so"),
        };
        findings.add(Kind::FoldMismatch, format!("table {table}, {key:?}: {what}"));
    }
}

/// What two texts do not have in common, with the field that it begins in.
fn differing(texts: [&str; 2]) -> [String; 2] {
    let [one, other] = texts;
    let same = one.char_indices().zip(other.chars()).find(|((_, a), b)| a != b).map_or(one.len().min(other.len()), |((at, _), _)| at);
    let start = one[..same].rfind([',', '{', '(']).map_or(0, |at| at + 1);
    let same_end = one[start..].chars().rev().zip(other[start..].chars().rev()).take_while(|(a, b)| a == b).count();
    texts.map(|text| {
        let middle = &text[start..];
        let shown: String = middle.chars().take(middle.chars().count() - same_end).collect();
        let end: String = middle.chars().skip(shown.chars().count()).take_while(|letter| !",})".contains(*letter)).collect();
        format!("{shown}{end}").trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_with_its_field() {
        let texts = ["Account { deposited: 10, balance: 1000 }", "Account { deposited: 10, balance: 2000 }"];
        assert_eq!(differing(texts), ["balance: 1000", "balance: 2000"]);
        let texts = ["Order { lines: [], status: Open }", "Order { lines: [], status: Cancelled { reason: Customer } }"];
        assert_eq!(differing(texts), ["status: Open", "status: Cancelled { reason: Customer }"]);
    }
}
