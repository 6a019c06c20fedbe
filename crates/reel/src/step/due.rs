//! Polls for deadlines that are due.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::work::WorkItem;
use crate::database::{PinnedConnection, answered};
use crate::model::{Service, Timestamp};
use crate::tables::deadlines::{self, Due, DueAt};

/// Poll interval for deadlines.
const POLL: Duration = Duration::from_millis(100);
/// Interval in which all of the table is looked at.
const ALL_EVERY: Duration = Duration::from_secs(30);
/// How far a look goes back behind what was found to be empty: a transaction that sets a deadline
/// may commit after it was due.
const LOOK_BACK: Duration = Duration::from_secs(5);

/// Finds the deadlines that are due.
pub(super) struct DueDeadlines {
    polled_at: Instant,
    /// Those that wait for a locked row, by key and name, and until when each waits.
    waiting: HashMap<(String, String), Instant>,
    looked: Looked,
}

/// How far back the next look goes.
#[derive(Debug, Default)]
struct Looked {
    /// The lanes of the last one.
    lanes: Vec<i32>,
    /// When all of the table was looked at.
    all_at: Option<Instant>,
    /// A time before which nothing was left in these lanes.
    nothing_before: Option<Timestamp>,
}

impl Looked {
    /// From when on deadlines in these lanes are looked for; `None` is from the beginning.
    fn from(&mut self, mut lanes: Vec<i32>, now: Instant) -> Option<Timestamp> {
        lanes.sort_unstable();
        let is_recent = self.all_at.is_some_and(|at| now.duration_since(at) < ALL_EVERY);
        if !is_recent || self.lanes != lanes {
            *self = Self { lanes, all_at: Some(now), nothing_before: None };
        }
        self.nothing_before.map(|time| time - LOOK_BACK)
    }
}

impl DueDeadlines {
    pub(super) fn new() -> Self {
        let (polled_at, waiting) = (Instant::now(), HashMap::new());
        Self { polled_at, waiting, looked: Looked::default() }
    }

    /// Holds a deadline back until then, because another transaction has locked a row that it
    /// needs.
    pub(super) fn hold_back(&mut self, due: &Due, until: Instant) {
        self.waiting.insert((due.key.clone(), due.name.clone()), until);
    }

    /// The deadlines that are due in these lanes, at most `limit`; none until the poll interval has
    /// passed. If the database is unreachable, they are found at a later poll.
    pub(super) async fn poll<S: Service>(
        &mut self,
        connection: &mut PinnedConnection,
        lanes: impl FnOnce() -> Vec<i32>,
        limit: usize,
    ) -> Vec<WorkItem<S>> {
        if self.polled_at.elapsed() < POLL {
            return Vec::new();
        }
        self.polled_at = Instant::now();
        let lanes = lanes();
        if lanes.is_empty() {
            return Vec::new();
        }

        // Those that wait must not hide what comes behind them.
        let most = i64::try_from(limit + self.waiting.len()).unwrap_or(i64::MAX);
        let from = self.looked.from(lanes.clone(), self.polled_at);
        let due = async { deadlines::due(connection.get().await?, &lanes, most, from).await };
        match answered(due).await {
            Ok(DueAt { due, nothing_before }) => {
                self.looked.nothing_before = Some(nothing_before);
                self.ready(due).take(limit).map(work_item).collect()
            }
            Err(error) => {
                connection.lose();
                tracing::debug!(error = %error, "deadlines could not be read");
                Vec::new()
            }
        }
    }

    /// Leaves out the deadlines that wait for a locked row.
    fn ready(&mut self, due: Vec<Due>) -> impl Iterator<Item = Due> {
        let now = Instant::now();
        self.waiting.retain(|_, until| *until > now);
        let waits = |due: &Due| self.waiting.contains_key(&(due.key.clone(), due.name.clone()));
        due.into_iter().filter(move |due| !waits(due))
    }
}

/// If a later version of the service cannot read the command, the deadline becomes a dead letter.
fn work_item<S: Service>(due: Due) -> WorkItem<S> {
    let command = serde_json::from_value(due.command.clone());
    let command = command.map_err(|error| format!("its command cannot be read: {error}"));
    WorkItem::Deadline { due, command }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_begins_where_nothing_is_left_and_all_is_looked_at_now_and_then() {
        let (mut looked, begun) = (Looked::default(), Instant::now());
        assert_eq!(looked.from(vec![1, 0], begun), None);
        let found = Timestamp::from_micros(60_000_000);
        looked.nothing_before = Some(found);
        assert_eq!(looked.from(vec![0, 1], begun), Some(found - LOOK_BACK));

        assert_eq!(looked.from(vec![0, 1, 2], begun), None, "a lane has joined");
        looked.nothing_before = Some(found);
        assert_eq!(looked.from(vec![0, 1, 2], begun + ALL_EVERY), None);
    }
}
