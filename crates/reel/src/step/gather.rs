//! The step loop of a replica: gathers what is waiting and runs it as batches.
//! [`commit`](super::commit) brings a batch to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::batch_size::BatchSize;
use super::due::DueDeadlines;
use super::inputs::handled_types;
use super::lane_set::LaneSet;
use super::locked_rows::LockedRows;
use super::queue::Amount;
use super::work::WorkItem;
use crate::admission::{Admission, CommandError, QueuedCommand};
use crate::database::{CommitDurability, PinnedConnection};
use crate::failpoints;
use crate::kafka::{InputConsumer, Polled};
use crate::lane::{LaneEvent, Lease, OpenLane};
use crate::model::{Partition, Service};
use crate::notify::Notifier;
use crate::pauses::Pauses;
use crate::relay::RelayHandle;
use crate::replica::Replica;
use crate::rows::Stored;

/// What may be queued in all lanes that run; above it no more records are received. The consumer then
/// blocks on its channel.
const QUEUED: Amount = Amount { items: 10_000, bytes: 32 * 1024 * 1024 };
/// Bytes of inputs after which a batch takes no more.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Interval in which the loop wakes although nothing came: deadlines, flushes and lanes that wait
/// for a row depend on it.
const TICK: Duration = Duration::from_millis(100);
/// Interval in which positions that moved without any effect are written. They cost a transaction,
/// and nothing is lost if they are not written.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Longest rest after a step; see [`Pace`].
const MAX_REST: Duration = Duration::from_millis(5);
/// Pauses while the database is unreachable.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(300));
/// Time for which batches wait only briefly for a locked row after one was found.
const IMPATIENT_FOR: Duration = Duration::from_secs(1);

/// Messages from the supervisor to the step.
pub(crate) enum StepControl {
    /// A lane was opened and joins.
    Join(OpenLane),
    /// A lane leaves between two batches, because it is handed over or was lost. `done` is answered
    /// once nothing of the lane is in a transaction any longer.
    Leave { partition: Partition, token: Uuid, done: oneshot::Sender<()> },
}

/// The step loop, and what it works with.
pub(crate) struct StepLoop<S: Service> {
    pub(super) admission: Admission,
    pub(super) lanes: LaneSet<S>,
    pub(super) commands: Vec<QueuedCommand<S>>,
    pub(super) deadlines: DueDeadlines,
    pub(super) database: StepDatabase,
    pub(super) outputs: Outputs,
    pub(super) limits: StepLimits,
    pub(super) replica: Arc<Replica<S>>,
    pace: Pace,
}

/// The step's connection, and what is known of its last commit.
pub(super) struct StepDatabase {
    pub(super) connection: PinnedConnection,
    pub(super) last_commit: LastCommit,
    pub(super) patience: Patience,
    pub(super) locked_rows: LockedRows,
    pub(super) batch_size: BatchSize,
    /// The pauses before the database is tried again.
    pub(super) pauses: Pauses,
}

/// Whether the outcome of the last commit is known. docs/states.md has the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastCommit {
    /// It was committed, or certainly not.
    Known,
    /// The connection was lost: it may have been committed. The positions are reloaded before
    /// anything else is decided.
    Unknown,
}

/// Whether a batch waits long for a locked row, in case that it is not known which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as the session's `lock_timeout`.
    Patient,
    /// Briefly, because such a row was met a moment ago.
    Impatient { until: Instant },
}

/// Where the effects of a batch go.
pub(super) struct Outputs {
    pub(super) relay: RelayHandle,
    pub(super) notifier: Notifier,
    pub(super) events: mpsc::UnboundedSender<LaneEvent>,
    pub(super) blocked_inputs: watch::Sender<Vec<String>>,
}

/// When the next batch is run.
///
/// After a step the loop rests for as long as the step took, [`MAX_REST`] at most: what arrives
/// meanwhile shares the next batch. On busy cores, fewer and larger steps finish the same work
/// sooner; if little arrives, the rest has passed and nobody waits. It does not rest while a whole
/// batch is queued.
#[derive(Debug, Clone, Copy)]
struct Pace {
    rests_until: Instant,
    flushed_at: Instant,
}

/// What the step loop receives.
pub(crate) struct StepInbox<S: Service> {
    pub(crate) controls: mpsc::UnboundedReceiver<StepControl>,
    pub(crate) records: mpsc::Receiver<Polled>,
    pub(crate) commands: mpsc::Receiver<QueuedCommand<S>>,
}

/// Limits of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepLimits {
    /// Commands and inputs in one batch; as many due deadlines may come on top.
    pub(crate) batch: usize,
    /// Bytes of one event.
    pub(crate) event_bytes: usize,
    /// Time for which deadlines wait for what was in the inputs when their lane was opened.
    pub(crate) catch_up: Duration,
    /// Whether its commits wait for the disk.
    pub(crate) durability: CommitDurability,
}

/// What the step loop is made of.
pub(crate) struct StepParts<S: Service> {
    pub(crate) replica: Arc<Replica<S>>,
    pub(crate) admission: Admission,
    pub(crate) consumer: InputConsumer,
    pub(crate) relay: RelayHandle,
    pub(crate) notifier: Notifier,
    pub(crate) events: mpsc::UnboundedSender<LaneEvent>,
    pub(crate) blocked_inputs: watch::Sender<Vec<String>>,
    pub(crate) limits: StepLimits,
}

/// A programming error that ends the loop, and with it the process.
#[derive(Debug, thiserror::Error)]
#[error("the step stops: {0}")]
pub(crate) struct StepStopped(pub(super) String);

impl<S: Service<State: Stored>> StepLoop<S> {
    pub(crate) fn new(parts: StepParts<S>) -> Self {
        let StepParts { replica, admission, consumer, relay, notifier, events, .. } = parts;
        let limits = parts.limits;
        let handled = handled_types::<S>(|topic| replica.reader.config().topic(topic));
        let now = Instant::now();
        Self {
            admission,
            lanes: LaneSet::new(consumer, replica.partitions, handled),
            commands: Vec::new(),
            deadlines: DueDeadlines::new(),
            database: StepDatabase {
                connection: replica.database.pin(limits.durability),
                last_commit: LastCommit::Known,
                patience: Patience::Patient,
                locked_rows: LockedRows::default(),
                batch_size: BatchSize::new(limits.batch),
                pauses: Pauses::new(RETRY.0, RETRY.1),
            },
            outputs: Outputs { relay, notifier, events, blocked_inputs: parts.blocked_inputs },
            limits,
            replica,
            pace: Pace { rests_until: now, flushed_at: now },
        }
    }

    /// Runs until the supervisor is gone.
    ///
    /// # Errors
    /// If a programming error stops the loop.
    pub(crate) async fn run(mut self, mut inbox: StepInbox<S>) -> Result<(), StepStopped> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let has_room = !self.lanes.queued().exceeds(QUEUED);
            let rest = self.pace.rests_until.into();
            tokio::select! {
                control = inbox.controls.recv() => match control {
                    Some(control) => self.handle_control(control).await?,
                    None => return Ok(()),
                },
                polled = inbox.records.recv(), if has_room => match polled {
                    Some(polled) => self.accept(polled),
                    None => return Err(StepStopped("the input consumer has ended".to_owned())),
                },
                Some(queued) = inbox.commands.recv() => self.commands.push(queued),
                _ = tick.tick() => {}
                () = tokio::time::sleep_until(rest), if self.rests() => {}
            }

            // Whatever else has arrived shares the batch. Controls first: lanes join and leave
            // between two batches, never in one.
            while let Ok(control) = inbox.controls.try_recv() {
                self.handle_control(control).await?;
            }
            while !self.lanes.queued().exceeds(QUEUED)
                && let Ok(polled) = inbox.records.try_recv()
            {
                self.accept(polled);
            }

            while self.commands.len() < self.database.batch_size.now()
                && let Ok(queued) = inbox.commands.try_recv()
            {
                self.commands.push(queued);
            }

            if !self.rests() {
                let begun = Instant::now();
                self.step(false).await?;
                self.pace.rests_until = Instant::now() + begun.elapsed().min(MAX_REST);
            }
        }
    }

    /// Whether the loop still rests, so that more arrives and shares the next batch.
    fn rests(&self) -> bool {
        let Amount { items, bytes } = self.lanes.queued();
        let batch = self.database.batch_size.now();
        let fills_batch = items + self.commands.len() >= batch || bytes >= BATCH_BYTES;
        self.pace.rests_until > Instant::now() && !fills_batch
    }

    async fn handle_control(&mut self, control: StepControl) -> Result<(), StepStopped> {
        match control {
            StepControl::Join(lane) => self.lanes.join(lane),
            StepControl::Leave { partition, token, done } => {
                if self.lanes.holds(partition, token) {
                    // A last step, of all lanes, while this one is still ours: it spares the next
                    // owner what is queued. If the lane was lost instead, the fence rejects the
                    // write.
                    self.lanes.unassign(partition);
                    self.step(true).await?;
                    self.lanes.remove(partition);
                }
                let _ = done.send(());
            }
        }
        Ok(())
    }

    fn accept(&mut self, polled: Polled) {
        match polled {
            Polled::Broken => drop(self.outputs.events.send(LaneEvent::InputsBroken)),
            Polled::Records(records) => {
                for (Lease { partition, token, .. }, reason) in self.lanes.accept(records) {
                    let lost = LaneEvent::RecordsLost { partition, token, reason };
                    let _ = self.outputs.events.send(lost);
                }
            }
        }
    }

    /// Runs what is waiting, batch by batch, until nothing is left that can run. With `flush`, also
    /// writes positions that moved without effect.
    async fn step(&mut self, flush: bool) -> Result<(), StepStopped> {
        // Commit unknown: first learn from the database what was done, so that nothing is done
        // twice.
        if self.database.last_commit == LastCommit::Unknown && !self.reload_positions().await {
            self.refuse_commands("the database does not answer");
            return Ok(());
        }

        // Only a shortcut. The transaction itself checks that all lanes are open (docs/laws.md,
        // "Across time").
        if !self.admission.may_decide() {
            self.refuse_commands("its lanes are not open yet");
            return Ok(());
        }

        let flush = flush || self.pace.flushed_at.elapsed() > FLUSH_EVERY;
        if flush {
            self.pace.flushed_at = Instant::now();
            self.lanes.hint();
            self.outputs.publish_blocked(self.lanes.blocked());
        }

        let mut due = self.due().await;

        // One moment for the whole step: a lane that begins to wait for a row in it is not taken
        // again in it, or lanes that wait in turn would keep it from everything else.
        let now = Instant::now();
        loop {
            let batch = self.gather(flush, now, &mut due);
            if batch.is_empty() {
                return Ok(());
            }
            if batch.iter().any(WorkItem::is_input) {
                failpoints::reached(failpoints::STEP_BATCH_READ);
            }

            self.commit(batch).await?;

            // The batch may have failed for a reason that the next one would meet too.
            let unknown = self.database.last_commit == LastCommit::Unknown;
            if unknown || !self.admission.may_decide() {
                return Ok(());
            }
        }
    }

    /// Gathers the next batch: commands, then inputs lane by lane, then deadlines. Deadlines come
    /// last, so that an input in the same batch can clear one before it fires.
    fn gather(
        &mut self,
        flush: bool,
        now: Instant,
        due: &mut Vec<WorkItem<S>>,
    ) -> Vec<WorkItem<S>> {
        let commands = self.commands.drain(..).filter(|queued| !queued.is_given_up());
        let mut batch: Vec<WorkItem<S>> = commands.map(WorkItem::Command).collect();
        let items = self.database.batch_size.now().saturating_sub(batch.len());
        self.lanes.take(Amount { items, bytes: BATCH_BYTES }, flush, now, &mut batch);
        batch.append(due);
        batch
    }

    /// The deadlines that are due in lanes that have caught up.
    async fn due(&mut self) -> Vec<WorkItem<S>> {
        let Self { deadlines, database, lanes, limits, .. } = self;
        let StepDatabase { connection, batch_size, .. } = database;
        let lanes = || lanes.caught_up(limits.catch_up);
        let due = deadlines.poll(connection, lanes, batch_size.now()).await;
        if !due.is_empty() {
            failpoints::reached(failpoints::DEADLINE_DUE);
        }
        due
    }

    /// Answers the commands that have been received. The client tries again.
    pub(super) fn refuse_commands(&mut self, reason: &str) {
        for queued in self.commands.drain(..) {
            let _ = queued.reply.send(Err(CommandError::Closed(reason.to_owned())));
        }
    }
}

impl Patience {
    /// A row was found locked: until [`IMPATIENT_FOR`] has passed, batches wait only briefly.
    pub(super) fn lose(&mut self) {
        *self = Self::Impatient { until: Instant::now() + IMPATIENT_FOR };
    }

    /// A batch starts: once `until` has passed, patience is back.
    pub(super) fn recover(&mut self, now: Instant) {
        match *self {
            Self::Impatient { until } if now >= until => *self = Self::Patient,
            Self::Impatient { .. } | Self::Patient => {}
        }
    }
}

impl Outputs {
    /// Publishes the inputs that are blocked on a gap, for health.
    fn publish_blocked(&self, inputs: Vec<String>) {
        self.blocked_inputs.send_if_modified(|published| {
            let changed = *published != inputs;
            *published = inputs;
            changed
        });
    }
}
