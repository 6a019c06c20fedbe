//! Brings a batch to its end: commits it whole, without lanes that were lost, or in parts; and
//! decides what becomes of the parts that cannot be committed now.
//!
//! Nothing is skipped: inputs go back to the front of their lanes, clients are asked to send their
//! commands again, deadlines are found by a later poll, and after an unknown commit the positions
//! in the database show what was done.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::gather::{LastCommit, Outputs, Patience, StepDatabase, StepLoop, StepStopped};
use super::locked_rows::Sorted;
use super::transaction::{self, Committed, RunOptions, StepError};
use super::work::WorkItem;
use crate::admission::CommandError;
use crate::database::{answered, what_is_wrong};
use crate::failpoints;
use crate::lane::{LaneEvent, Lease};
use crate::log::Position;
use crate::model::{Partition, Service};
use crate::pauses::Pauses;
use crate::rows::Stored;
use crate::tables::{dead_letters, positions};

/// Conflicts of one batch, all of its parts together, above which it is put back.
const MAX_CONFLICTS: u32 = 20;
/// Pauses after a conflict, before the part is run again.
const CONFLICT_PAUSES: (Duration, Duration) =
    (Duration::from_millis(20), Duration::from_millis(500));
/// Time for which a lane or a deadline waits before it tries a locked row again.
const LOCKED_PAUSE: Duration = Duration::from_millis(250);

/// A part of a batch: what one transaction runs.
struct Part<S: Service> {
    items: Vec<WorkItem<S>>,
    /// If its one message cannot be stored: the reason. It is set when halving has found the
    /// message.
    poison: Option<String>,
}

/// What is left of a batch: a stack, whose top is the part that comes first in the order of
/// messages.
struct Parts<S: Service> {
    parts: Vec<Part<S>>,
    conflicts: u32,
    pauses: Pauses,
}

/// What the database has of the lanes that are still ours.
struct Reloaded {
    positions: Vec<(Partition, String, Position)>,
    parked: Vec<(Partition, String)>,
}

impl<S: Service<State: Stored>> StepLoop<S> {
    /// Runs a batch until each of its items is committed or put back.
    ///
    /// # Errors
    /// If a programming error stops the step.
    pub(super) async fn commit(&mut self, batch: Vec<WorkItem<S>>) -> Result<(), StepStopped> {
        let mut parts = Parts::of(batch);
        self.set_known_locked_aside(&mut parts).await;
        while let Some(part) = parts.next() {
            self.database.patience.recover(Instant::now());
            let options = RunOptions {
                poison: part.poison.as_deref(),
                impatient: self.database.patience != Patience::Patient,
                partitions: self.replica.partitions,
                max_event_bytes: self.limits.event_bytes,
            };
            let connection = &mut self.database.connection;
            match transaction::run(connection, &self.lanes, &part.items, options).await {
                Ok(committed) => {
                    failpoints::reached(failpoints::STEP_AFTER_COMMIT);
                    self.database.batch_size.committed();
                    self.committed(part.items, committed);
                }
                Err(error) => self.failed(error, part, &mut parts).await?,
            }
        }

        Ok(())
    }

    /// After the commit: records the positions, wakes the relays, answers commands.
    fn committed(&mut self, items: Vec<WorkItem<S>>, committed: Committed<S>) {
        let Committed { answers, events, moved, parked } = committed;
        self.lanes.committed(moved, parked);

        // Our relay gets its rows in memory. A command may also have written to a lane of another
        // replica, whose relay is notified and reads the table.
        let is_mine = |partition| self.lanes.get(partition).is_some();
        let (mine, others): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|event| is_mine(event.partition));
        let Outputs { relay, notifier, .. } = &self.outputs;
        if !mine.is_empty() {
            relay.committed(mine);
        }
        if !others.is_empty() {
            notifier.new_rows(others.into_iter().map(|event| event.partition));
        }

        let mut answers: HashMap<usize, _> = answers.into_iter().collect();
        for (place, item) in items.into_iter().enumerate() {
            if let (WorkItem::Command(queued), Some(answer)) = (item, answers.remove(&place)) {
                failpoints::reached(failpoints::COMMAND_COMMITTED);
                let _ = queued.reply.send(answer);
            }
        }
    }

    /// Decides what becomes of a part that was not committed, and of what is left behind it.
    async fn failed(
        &mut self,
        error: StepError,
        part: Part<S>,
        parts: &mut Parts<S>,
    ) -> Result<(), StepStopped> {
        match error {
            // Run it again as it was: the other transaction has ended by now, or soon will have.
            StepError::Conflict => {
                tokio::time::sleep(parts.pauses.next()).await;
                parts.conflicts += 1;
                if parts.conflicts > MAX_CONFLICTS {
                    tracing::warn!(
                        event.code = "step.conflicts",
                        conflicts = parts.conflicts,
                        "a batch conflicts with other transactions again and again"
                    );
                    self.put_back(parts.drain(part), "other transactions are in the way");
                } else {
                    parts.push(part);
                }
            }

            // Run it again without the lanes that were lost. Their next owner reads the rest again.
            StepError::Fenced(lost) => {
                for partition in &lost {
                    self.lose(*partition);
                }
                let ours =
                    |item: &WorkItem<S>| item.lane().is_none_or(|lane| !lost.contains(&lane));
                let items = part.items.into_iter().filter(ours).collect();
                parts.push(Part { items, poison: part.poison });
            }

            // The message was found, and not even its dead letter can be stored. To go on would
            // skip it.
            StepError::Poison(reason) if part.poison.is_some() => {
                self.put_back(parts.drain(part), "it stops");
                let reason = format!("not even the dead letter can be stored: {reason}");
                return Err(StepStopped(reason));
            }

            // The error does not name the message, so it is found by halving; the others commit.
            StepError::Poison(reason) => match halve(part.items) {
                Halves::Two(first, second) => parts.push_both(first, second),
                Halves::One(items) => parts.push(Part { items, poison: Some(reason) }),
            },
            StepError::Locked => self.row_was_locked(part, parts).await,

            // The database is in another epoch than we knew, and has lanes that were not recovered
            // yet.
            StepError::Closed => {
                self.admission.close();
                let _ = self.outputs.events.send(LaneEvent::RenewSoon);
                self.put_back(parts.drain(part), "its lanes are not open yet");
            }

            // Commit unknown. What is put back is checked against the reloaded positions before it
            // runs again.
            StepError::Lost(error) => {
                let wrong = what_is_wrong(&error);
                self.database.batch_size.failed(&error);
                // Reported once an outage.
                if self.database.last_commit == LastCommit::Known {
                    tracing::warn!(
                        event.code = "step.database_lost", error = %error,
                        "{wrong}; the step waits"
                    );
                }
                self.database.last_commit = LastCommit::Unknown;
                self.admission.close_because(wrong);
                self.put_back(parts.drain(part), wrong);
                tokio::time::sleep(self.database.pauses.next()).await;
            }

            StepError::Broken(reason) => {
                tracing::error!(
                    event.code = "step.broken",
                    reason,
                    "a programming error stops the step; nothing of this batch was stored"
                );
                self.put_back(parts.drain(part), "it stops");
                return Err(StepStopped(reason));
            }
        }
        Ok(())
    }

    /// Sets the items aside that need a row which was found locked before and still is.
    async fn set_known_locked_aside(&mut self, parts: &mut Parts<S>) {
        let Some(Part { items, poison }) = parts.next() else { return };
        let StepDatabase { connection, locked_rows, .. } = &mut self.database;
        if let Err(error) = locked_rows.look(connection, &items, true).await {
            // The batch will meet the same error, and report it.
            tracing::debug!(error = %error, "locked rows could not be looked at");
        }
        let Sorted { free, waiting } = locked_rows.sort(items);
        parts.push(Part { items: free, poison });
        if !waiting.is_empty() {
            self.wait_for_row(waiting, parts);
        }
    }

    /// A row that a part needs is locked: sets the items aside that need it, so that only their
    /// lanes wait.
    async fn row_was_locked(&mut self, part: Part<S>, parts: &mut Parts<S>) {
        let Part { items, poison } = part;
        let StepDatabase { connection, locked_rows, patience, .. } = &mut self.database;
        if let Err(error) = locked_rows.look(connection, &items, false).await {
            tracing::debug!(error = %error, "locked rows could not be looked at");
        }
        let Sorted { free, waiting } = locked_rows.sort(items);
        if !waiting.is_empty() {
            parts.push(Part { items: free, poison });
            return self.wait_for_row(waiting, parts);
        }

        // It is none that `read_set` names, but one that a new row collides with, or a head; or a
        // key cannot even be asked for. So the message is found by halving, which costs a lock timeout for each half that has it; hence
        // the loss of patience.
        patience.lose();
        match halve(free) {
            Halves::Two(first, second) => parts.push_both(first, second),
            Halves::One(items) => self.wait_for_row(items, parts),
        }
    }

    /// Has messages wait for their row, and with each whatever follows in its lane, because a lane
    /// keeps its order. The other lanes of the batch go on.
    fn wait_for_row(&mut self, items: Vec<WorkItem<S>>, parts: &mut Parts<S>) {
        let until = Instant::now() + LOCKED_PAUSE;
        for due in items.iter().filter_map(WorkItem::due) {
            self.deadlines.hold_back(due, until);
        }

        let waiting: HashSet<Partition> = items.iter().filter_map(WorkItem::lane).collect();
        for partition in &waiting {
            if let Some(lane) = self.lanes.get_mut(*partition) {
                lane.set_flow(|flow| flow.wait_for_row(until));
            }
        }
        let behind = parts.take_lanes(&waiting);
        self.put_back(items.into_iter().chain(behind).collect(), "a row that it needs is locked");
    }

    /// Puts inputs back at the front of their lanes and refuses commands, whose clients try again.
    /// Deadlines are dropped: they are still in the table, and a later poll finds them.
    fn put_back(&mut self, items: Vec<WorkItem<S>>, reason: &str) {
        let (of_lanes, others): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|item| item.lane().is_some());
        self.lanes.put_back(of_lanes);
        for item in others {
            if let WorkItem::Command(queued) = item {
                let _ = queued.reply.send(Err(CommandError::Closed(reason.to_owned())));
            }
        }
    }

    /// Reloads the positions after an unknown commit: what they show as done leaves the queues, and
    /// the rest runs again. Returns false if the database is still unreachable.
    pub(super) async fn reload_positions(&mut self) -> bool {
        let Reloaded { positions, parked } = match answered(self.read_positions()).await {
            Ok(reloaded) => reloaded,
            Err(error) => {
                self.database.connection.lose();
                tracing::debug!(error = %error, "the database does not answer yet");
                tokio::time::sleep(self.database.pauses.next()).await;
                return false;
            }
        };

        // A lane without a position under our token and database epoch is no longer ours.
        let ours: HashSet<Partition> = positions.iter().map(|(partition, ..)| *partition).collect();
        for (partition, topic, position) in positions {
            self.lanes.resume(partition, &topic, position);
        }
        self.lanes.park(parked);
        for Lease { partition, token, .. } in self.lanes.remove_others(&ours) {
            self.lanes.unassign(partition);
            let _ = self.outputs.events.send(LaneEvent::Lost { partition, token });
        }

        // Admission was closed with the outage. The event has the supervisor look at the lanes
        // soon, and open it again.
        let lanes = self.lanes.count();
        tracing::info!(event.code = "step.database_back", lanes, "the database answers again");
        self.database.last_commit = LastCommit::Known;
        self.database.pauses.reset();
        let _ = self.outputs.events.send(LaneEvent::RenewSoon);
        true
    }

    /// Reads the positions of the lanes that are still ours, and their parked keys, because the
    /// unknown commit may have parked some.
    async fn read_positions(&mut self) -> sqlx::Result<Reloaded> {
        let leases = self.lanes.leases();
        let lanes: Vec<i32> = leases.iter().map(|lease| lease.partition.0).collect();
        let connection = self.database.connection.get().await?;

        // The positions first. If the lost session commits only after them, what it did is decided
        // again here and fenced; if before, the keys that it parked are there when they are read.
        let positions = positions::read_all(connection, S::NAME, &leases).await?;
        let parked = dead_letters::parked_in(connection, &lanes).await?;
        let parked = parked.into_iter().map(|(lane, key)| (Partition(lane), key)).collect();
        Ok(Reloaded { positions, parked })
    }

    /// Takes a lane that was lost out of the loop, and reports it.
    fn lose(&mut self, partition: Partition) {
        if let Some(Lease { token, .. }) = self.lanes.remove(partition) {
            let _ = self.outputs.events.send(LaneEvent::Lost { partition, token });
        }
    }
}

impl<S: Service> Parts<S> {
    /// A batch as one part.
    fn of(items: Vec<WorkItem<S>>) -> Self {
        let pauses = Pauses::new(CONFLICT_PAUSES.0, CONFLICT_PAUSES.1);
        Self { parts: vec![Part { items, poison: None }], conflicts: 0, pauses }
    }

    /// Takes the next part that has items.
    fn next(&mut self) -> Option<Part<S>> {
        std::iter::from_fn(|| self.parts.pop()).find(|part| !part.items.is_empty())
    }

    fn push(&mut self, part: Part<S>) {
        self.parts.push(part);
    }

    fn push_both(&mut self, first: Vec<WorkItem<S>>, second: Vec<WorkItem<S>>) {
        self.push(Part { items: second, poison: None });
        self.push(Part { items: first, poison: None });
    }

    /// Takes all items that are left, in their order, those of `part` first.
    fn drain(&mut self, part: Part<S>) -> Vec<WorkItem<S>> {
        let rest = std::mem::take(&mut self.parts).into_iter().rev();
        part.items.into_iter().chain(rest.flat_map(|part| part.items)).collect()
    }

    /// Takes the items of these lanes out of all parts, in their order.
    fn take_lanes(&mut self, lanes: &HashSet<Partition>) -> Vec<WorkItem<S>> {
        let mut taken = Vec::new();
        for part in self.parts.iter_mut().rev() {
            let of_lanes = |item: &mut WorkItem<S>| item.lane().is_some_and(|l| lanes.contains(&l));
            taken.extend(part.items.extract_if(.., of_lanes));
        }
        taken
    }
}

/// What halving a batch yields, in search of one message.
enum Halves<S: Service> {
    /// Two halves, in order.
    Two(Vec<WorkItem<S>>, Vec<WorkItem<S>>),
    /// The batch itself: it has one message with an effect, or none, so the search is over.
    One(Vec<WorkItem<S>>),
}

/// Halves a batch by its messages with an effect. Skips do not count: they are not to blame, and a
/// half of nothing else would only delay the search.
fn halve<S: Service>(batch: Vec<WorkItem<S>>) -> Halves<S> {
    let effective = batch.iter().filter(|item| item.is_effective()).count();
    if effective < 2 {
        return Halves::One(batch);
    }
    let mut seen = 0;
    let cut = batch.iter().position(|item| {
        seen += usize::from(item.is_effective());
        seen > effective / 2
    });
    let mut first = batch;
    let second = first.split_off(cut.unwrap_or(first.len()));
    Halves::Two(first, second)
}
