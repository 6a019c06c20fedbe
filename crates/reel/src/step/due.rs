//! Polls for deadlines that are due.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::work::WorkItem;
use crate::database::{PinnedConnection, answered};
use crate::model::Service;
use crate::tables::deadlines::{self, Due};

/// Poll interval for deadlines.
const POLL: Duration = Duration::from_millis(100);

/// The time of the last poll, and the deadlines that wait for a locked row. By key and name, until
/// when each waits.
pub(super) struct DueDeadlines {
    polled_at: Instant,
    waiting: HashMap<(String, String), Instant>,
}

impl DueDeadlines {
    pub(super) fn new() -> Self {
        Self { polled_at: Instant::now(), waiting: HashMap::new() }
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
        let due = async { deadlines::due(connection.get().await?, &lanes, most).await };
        match answered(due).await {
            Ok(due) => self.ready(due).take(limit).map(work_item).collect(),
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
