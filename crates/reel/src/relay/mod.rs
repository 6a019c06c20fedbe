//! The relay: publishes the outbox of the lanes that this replica owns, in the order of the
//! sequences.
//!
//! A row comes from memory, right after its commit, if it follows on what the lane has; otherwise
//! it is read from the table. What is pending is sent as soon as the lane's last records were
//! answered, and the cursor follows the acks. After a crash recovery reads from the cursor on what
//! the topic has, so at worst some records are sent again, and every consumer drops them.
//!
//! One task works on all lanes, so nothing of a lane happens while a turn awaits the database,
//! except that acks come in.

mod lane;
mod publisher;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

pub(crate) use lane::RelayLane;
#[cfg(test)]
pub(crate) use publisher::Acks;
pub(crate) use publisher::Publisher;

use crate::database::{CommitDurability, Database, PinnedConnection, answered};
use crate::failpoints;
use crate::lane::LaneEvent;
use crate::model::Partition;
use crate::pauses::Pauses;
use crate::tables::cursors::{self, Advance, Backlog};
use crate::tables::outbox::{self, OutboxEvent};
use lane::{Lane, share};
use publisher::{PublishFault, SendError};

/// Most rows of one lane in one read.
const READ_ROWS: usize = 1_000;
/// Capacity of the channel from the step, in bundles of rows and in bytes. What does not fit is read
/// from the table.
const BUNDLES: usize = 256;
const QUEUED_BYTES: usize = 16 * 1024 * 1024;
/// Poll interval of the table while nothing happens: doubles from the first to the second, and
/// starts again whenever the table had rows.
const POLL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Pauses while the database is unreachable.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(300));
/// Interval in which cursors are written: one statement for many acks. A cursor that is behind
/// costs recovery a little reading.
const CURSOR_EVERY: Duration = Duration::from_millis(50);
/// Interval in which the backlog is counted, for admission and health.
const BACKLOG_EVERY: Duration = Duration::from_millis(500);
/// Longest time that a lane that is handed over may take to send what is committed. What is left is
/// sent by its next owner.
const DRAIN_WITHIN: Duration = Duration::from_secs(3);

/// Handle of the relay, for the step and the supervisor.
#[derive(Clone)]
pub(crate) struct RelayHandle {
    rows: mpsc::Sender<Vec<OutboxEvent>>,
    controls: mpsc::UnboundedSender<Control>,
    /// Bytes of the rows in the channel.
    queued: Arc<AtomicUsize>,
}

/// What the relay receives.
pub(crate) struct RelayInbox {
    rows: mpsc::Receiver<Vec<OutboxEvent>>,
    controls: mpsc::UnboundedReceiver<Control>,
    queued: Arc<AtomicUsize>,
    /// Lanes for which another replica committed rows.
    pub(crate) notified: mpsc::Receiver<Vec<Partition>>,
}

/// Messages to the relay.
enum Control {
    /// A lane was opened, or recovered again: its relay starts afresh.
    Join(RelayLane),
    /// A lane leaves; with `drain`, once what is committed was sent and acked.
    Leave { partition: Partition, token: Uuid, drain: bool, done: oneshot::Sender<()> },
    /// Rows of some lane did not fit into the channel.
    LookInTable,
}

/// The relay of one replica.
pub(crate) struct Relay {
    publisher: Arc<Publisher>,
    /// Its commits need not be durable: it writes only cursors, and recovery catches up one that
    /// fell back.
    connection: PinnedConnection,
    backlog: watch::Sender<Backlog>,
    events: mpsc::UnboundedSender<LaneEvent>,
    lanes: BTreeMap<Partition, Lane>,
    pauses: Pauses,
    poll: Duration,
    polled_at: Instant,
    cursors_at: Instant,
    backlog_at: Instant,
}

/// Makes the relay's channels; `notified` comes from [`notify::listen`](crate::notify::listen).
pub(crate) fn channels(notified: mpsc::Receiver<Vec<Partition>>) -> (RelayHandle, RelayInbox) {
    let (rows, row_inbox) = mpsc::channel(BUNDLES);
    let (controls, control_inbox) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let inbox =
        RelayInbox { rows: row_inbox, controls: control_inbox, queued: queued.clone(), notified };
    (RelayHandle { rows, controls, queued }, inbox)
}

impl RelayHandle {
    /// Hands over rows that were just committed for lanes of this replica. Never waits: the step
    /// must not be held up by the relay.
    pub(crate) fn committed(&self, rows: Vec<OutboxEvent>) {
        let bytes = size(&rows);
        let fits = self.queued.fetch_add(bytes, Ordering::Relaxed) + bytes <= QUEUED_BYTES;
        if !fits || self.rows.try_send(rows).is_err() {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
            let _ = self.controls.send(Control::LookInTable);
        }
    }

    /// Adds a lane that was opened, or recovered again.
    pub(crate) fn join(&self, lane: RelayLane) {
        let _ = self.controls.send(Control::Join(lane));
    }

    /// Removes a lane: at once or, with `drain`, when what is committed was sent and acked. The
    /// receiver resolves when the lane has left.
    pub(crate) fn leave(
        &self,
        partition: Partition,
        token: Uuid,
        drain: bool,
    ) -> oneshot::Receiver<()> {
        let (done, left) = oneshot::channel();
        let _ = self.controls.send(Control::Leave { partition, token, drain, done });
        left
    }
}

impl Relay {
    pub(crate) fn new(
        publisher: Arc<Publisher>,
        database: &Database,
        backlog: watch::Sender<Backlog>,
        events: mpsc::UnboundedSender<LaneEvent>,
    ) -> Self {
        let now = Instant::now();
        Self {
            publisher,
            connection: database.pin(CommitDurability::Asynchronous),
            backlog,
            events,
            lanes: BTreeMap::new(),
            pauses: Pauses::new(RETRY.0, RETRY.1),
            poll: POLL.0,
            polled_at: now,
            cursors_at: now,
            backlog_at: now,
        }
    }

    /// Runs until the last handle is gone.
    pub(crate) async fn run(mut self, mut inbox: RelayInbox) {
        let publisher = self.publisher.clone();
        loop {
            tokio::select! {
                control = inbox.controls.recv() => match control {
                    Some(control) => self.handle_control(control),
                    None => return,
                },
                Some(rows) = inbox.rows.recv() => self.take(rows, &inbox.queued),
                Some(partitions) = inbox.notified.recv() => self.look_in_table(&partitions),
                () = publisher.acked() => {}
                () = tokio::time::sleep(self.pause()) => {}
            }

            // One turn serves all messages that have arrived.
            while let Ok(control) = inbox.controls.try_recv() {
                self.handle_control(control);
            }
            while let Ok(rows) = inbox.rows.try_recv() {
                self.take(rows, &inbox.queued);
            }

            self.poll_table();
            let turn = answered(self.turn()).await;

            // Also if the database did not answer: a handover waits for it no longer than its
            // limit.
            self.remove_left();
            match turn {
                Ok(()) => self.pauses.reset(),
                Err(error) => {
                    self.report_database_error(&error);
                    self.connection.lose();
                    tokio::time::sleep(self.pauses.next()).await;
                }
            }
        }
    }

    /// Time for which a turn may be put off if nothing arrives.
    fn pause(&self) -> Duration {
        if self.lanes.values().any(Lane::is_busy) {
            CURSOR_EVERY
        } else {
            self.poll.saturating_sub(self.polled_at.elapsed())
        }
    }

    /// A lane that is recovered again is replaced: what the old one had in memory is in the table,
    /// and late answers to its records go to its own [`Acks`].
    fn handle_control(&mut self, control: Control) {
        match control {
            Control::Join(lane) => {
                let partition = lane.lease.partition;
                let lane = Lane::new(lane, self.lanes.get(&partition));
                self.lanes.insert(partition, lane);
            }
            Control::Leave { partition, token, drain, done } => {
                self.leave(partition, token, drain, done);
            }
            Control::LookInTable => self.lanes.values_mut().for_each(Lane::look_in_table),
        }
    }

    /// Removes a lane, or has it drain first. Under another token it has left already.
    fn leave(&mut self, partition: Partition, token: Uuid, drain: bool, done: oneshot::Sender<()>) {
        let Some(lane) = self.lanes.get_mut(&partition).filter(|lane| lane.lease.token == token)
        else {
            let _ = done.send(());
            return;
        };
        let left = if drain { lane.drain(done, Instant::now() + DRAIN_WITHIN) } else { Some(done) };
        if let Some(done) = left {
            self.lanes.remove(&partition);
            let _ = done.send(());
        }
    }

    /// Another replica has committed rows for these lanes.
    fn look_in_table(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            if let Some(lane) = self.lanes.get_mut(partition) {
                lane.look_in_table();
            }
        }
    }

    /// Takes rows that the step has just committed.
    fn take(&mut self, rows: Vec<OutboxEvent>, queued: &AtomicUsize) {
        queued.fetch_sub(size(&rows), Ordering::Relaxed);
        let share = share(self.lanes.len());
        for row in rows {
            if let Some(lane) = self.lanes.get_mut(&row.partition) {
                lane.take(row, share);
            }
        }
    }

    /// Has all lanes read the table when the poll interval has passed, in case a notification was
    /// lost.
    fn poll_table(&mut self) {
        if self.polled_at.elapsed() >= self.poll {
            self.polled_at = Instant::now();
            self.poll = (self.poll * 2).min(POLL.1);
            self.lanes.values_mut().for_each(Lane::look_in_table);
        }
    }

    /// Does for all lanes what can be done now.
    ///
    /// # Errors
    /// If the database is unreachable. The next turn does what is left.
    async fn turn(&mut self) -> sqlx::Result<()> {
        // Send before reading, so that the producer works meanwhile.
        self.send();
        self.read().await?;
        self.send();

        // Faults before cursors: the cursor of a lane whose log was disturbed must not move.
        self.check_acks();
        self.write_cursors().await?;
        self.count_backlog().await
    }

    /// Reads the rows that are not in memory, for all lanes in one query.
    async fn read(&mut self) -> sqlx::Result<()> {
        let share = share(self.lanes.len());
        let wanted: Vec<(Partition, i64)> = self
            .lanes
            .iter()
            .filter_map(|(partition, lane)| Some((*partition, lane.wants_rows(share)?)))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }

        let bytes = share / 2;
        let rows = outbox::read(self.connection.get().await?, &wanted, READ_ROWS, bytes).await?;
        if !rows.is_empty() {
            failpoints::reached(failpoints::RELAY_ROWS_READ);
            self.poll = POLL.0;
        }

        // A lane without rows is among them too: it learns that the table has no more.
        let mut by_lane: BTreeMap<Partition, Vec<OutboxEvent>> =
            wanted.iter().map(|(partition, _)| (*partition, Vec::new())).collect();
        for row in rows {
            by_lane.entry(row.partition).or_default().push(row);
        }
        for (partition, rows) in by_lane {
            if let Some(lane) = self.lanes.get_mut(&partition) {
                let read: usize = rows.iter().map(|row| row.payload.len()).sum();
                let complete = rows.len() < READ_ROWS && read <= bytes;
                lane.read(rows, complete);
            }
        }

        Ok(())
    }

    /// Hands rows to the producer: for each lane as much as one request takes.
    fn send(&mut self) {
        for lane in self.lanes.values_mut() {
            for _ in 0..lane.burst() {
                let Some(row) = lane.next() else { break };
                match self.publisher.send(row, lane.epoch, &lane.acks) {
                    Ok(()) => {
                        lane.sent_next();
                        failpoints::reached(failpoints::RELAY_PRODUCED);
                    }

                    // Full for all lanes. Acks make room, and wake the relay.
                    Err(SendError::Full) => return,
                    Err(SendError::Refused(error)) => {
                        stall(lane, &PublishFault::Refused(error), &self.events);
                        break;
                    }
                }
            }
        }
    }

    /// Stalls each lane with a failed record or a disturbed order of offsets, and has it recovered.
    fn check_acks(&mut self) {
        for lane in self.lanes.values_mut().filter(|lane| lane.sends()) {
            let Some(fault) = lane.acks.get().fault else { continue };
            if let PublishFault::Refused(error) = &fault {
                self.publisher.replace_after(error.clone());
            }
            stall(lane, &fault, &self.events);
        }
    }

    /// Advances the cursors over what was acked, in one statement for all lanes.
    async fn write_cursors(&mut self) -> sqlx::Result<()> {
        if self.cursors_at.elapsed() < CURSOR_EVERY {
            return Ok(());
        }

        // Only what was acked in order, and only of lanes that send: a stalled one is recovered
        // before its cursor moves again.
        let advance = |lane: &Lane| {
            let acked = lane.acks.get();
            (acked.next_sequence > lane.written).then(|| Advance {
                lease: lane.lease.clone(),
                next_sequence: acked.next_sequence,
                next_offset: acked.last_offset + 1,
            })
        };
        let advances: Vec<Advance> =
            self.lanes.values().filter(|lane| lane.sends()).filter_map(advance).collect();
        if advances.is_empty() {
            return Ok(());
        }

        self.cursors_at = Instant::now();
        failpoints::reached(failpoints::RELAY_ACKED);
        let lost = cursors::advance(self.connection.get().await?, &advances).await?;
        for Advance { lease, next_sequence, .. } in advances {
            let (partition, token) = (lease.partition, lease.token);
            // The fence rejected the write: another replica owns the lane, or the database is in
            // another epoch.
            if lost.contains(&partition) {
                self.lanes.remove(&partition);
                let _ = self.events.send(LaneEvent::Lost { partition, token });
            } else if let Some(lane) = self.lanes.get_mut(&partition) {
                lane.written = next_sequence;
            }
        }

        Ok(())
    }

    /// Removes the lanes that have left, and reports it to the handovers that wait.
    fn remove_left(&mut self) {
        let now = Instant::now();
        for (_, lane) in self.lanes.extract_if(.., |_, lane| lane.has_left(now)) {
            lane.left();
        }
    }

    /// Counts the backlog, and replaces a producer that has failed while nothing was sent.
    async fn count_backlog(&mut self) -> sqlx::Result<()> {
        if self.backlog_at.elapsed() < BACKLOG_EVERY {
            return Ok(());
        }
        self.backlog_at = Instant::now();
        self.publisher.replace_if_failed();
        let backlog = cursors::backlog(self.connection.get().await?).await?;
        self.backlog.send_replace(backlog);
        Ok(())
    }

    /// Reports an error once an outage: the next turns find no connection.
    fn report_database_error(&self, error: &sqlx::Error) {
        if self.connection.is_connected() {
            tracing::warn!(
                event.code = "relay.database_lost", error = %error,
                "the relay lost its connection to the database and opens another"
            );
        }
    }
}

/// Stalls a lane and asks the supervisor for its recovery, once.
/// About how many bytes of memory rows take.
fn size(rows: &[OutboxEvent]) -> usize {
    rows.iter().map(OutboxEvent::size).sum()
}

fn stall(lane: &mut Lane, fault: &PublishFault, events: &mpsc::UnboundedSender<LaneEvent>) {
    let (partition, token) = (lane.lease.partition, lane.lease.token);
    if lane.stall() {
        if fault.is_too_large() {
            lane.send_less();
        }
        tracing::warn!(
            event.code = "lane.publish_failed", %partition, fault = %fault,
            "publishing failed; the lane is recovered"
        );
        let reason = fault.to_string();
        let _ = events.send(LaneEvent::PublishFailed { partition, token, reason });
    }
}
