//! The step loop of a replica: gathers what waits and runs it as a batch. How a batch is brought to its end stands in
//! [`settling`](super::settling).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::Stored;
use super::batch::{Work, handled_types};
use super::inputs::LaneInputs;
use super::transaction::Done;
use crate::database::{Commits, Kept};
use crate::kafka::{Intake, Taken};
use crate::lanes::{Notice, OpenLane};
use crate::model::{Partition, Service};
use crate::outbox::{RelayHandle, Wakeup};
use crate::pauses::Pauses;
use crate::replica::Replica;
use crate::runtime::{Asked, Gate, Refused};
use crate::{deadlines, failpoints};

/// What the keeper tells the step.
pub(crate) enum ToStep {
    /// A lane was opened and joins.
    Join(OpenLane),
    /// A lane leaves between two batches: handed over, or lost.
    Leave { partition: Partition, token: Uuid, done: oneshot::Sender<()> },
}

/// How many things may wait in memory before the intake is held back.
const QUEUED_AT_MOST: usize = 10_000;
/// How often deadlines are looked for, and positions that moved without effect are written.
const TICK: Duration = Duration::from_millis(100);
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// After a step the loop rests for as long as the step took, and at most for so long, unless a whole batch waits: what comes meanwhile
/// shares the next one. On cores that are busy, fewer and larger steps end sooner; where little comes, nobody waits.
const REST_AT_MOST: Duration = Duration::from_millis(5);
/// How long the database may take to answer.
pub(super) const ANSWER_AT_MOST: Duration = Duration::from_secs(10);
/// The pauses before a database that did not answer is asked again.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(300));
/// How much of a lane that waits for a row is kept in memory; the rest is read again later.
const WAITING_AT_MOST: usize = 2_000;

/// The loop, and what it works with.
pub(crate) struct StepLoop<S: Service> {
    pub(super) replica: Arc<Replica<S>>,
    pub(super) gate: Arc<Gate>,
    pub(super) connection: Kept,
    pub(super) relay: RelayHandle,
    pub(super) wakeup: Wakeup,
    pub(super) intake: Intake,
    pub(super) notices: mpsc::UnboundedSender<Notice>,
    pub(super) handled: HashMap<String, HashSet<&'static str>>,
    pub(super) lanes: HashMap<Partition, LaneInputs<S>>,
    pub(super) commands: Vec<Asked<S>>,
    pub(super) max_batch: usize,
    pub(super) max_event_bytes: usize,
    /// Until when what comes is gathered, after a step.
    pub(super) rests_until: Instant,
    pub(super) flushed_at: Instant,
    pub(super) deadlines_at: Instant,
    /// Deadlines whose rows were locked, and until when they wait.
    pub(super) waiting: HashMap<(String, String), Instant>,
    /// When a row was last found locked: for a while nobody waits long for one.
    pub(super) locked_at: Option<Instant>,
    /// Whether a commit was cut off, so that the positions must be read before anything else.
    pub(super) doubt: bool,
    /// The pauses before the database is asked again.
    pub(super) pauses: Pauses,
}

/// What the step loop is told and given.
pub(crate) struct StepInbox<S: Service> {
    pub(crate) orders: mpsc::UnboundedReceiver<ToStep>,
    pub(crate) records: mpsc::Receiver<Taken>,
    pub(crate) commands: mpsc::Receiver<Asked<S>>,
}

/// What a step may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepLimits {
    /// Messages in one batch.
    pub(crate) batch: usize,
    /// Bytes of one event.
    pub(crate) event_bytes: usize,
    /// Whether its commits wait for the disk.
    pub(crate) commits: Commits,
}

/// The loop cannot go on: a programming error.
#[derive(Debug, thiserror::Error)]
#[error("the step stops: {0}")]
pub(crate) struct StepStopped(pub(super) String);

impl<S: Service<State: Stored>> StepLoop<S> {
    pub(crate) fn new(
        replica: Arc<Replica<S>>,
        gate: Arc<Gate>,
        relay: RelayHandle,
        wakeup: Wakeup,
        intake: Intake,
        notices: mpsc::UnboundedSender<Notice>,
        limits: StepLimits,
    ) -> Self {
        let handled = handled_types::<S>(|topic| replica.reader.kafka().topic(topic));
        let (lanes, commands, now) = (HashMap::new(), Vec::new(), Instant::now());
        Self {
            connection: replica.sessions.keep(limits.commits),
            replica,
            gate,
            relay,
            wakeup,
            intake,
            notices,
            handled,
            lanes,
            commands,
            max_batch: limits.batch.max(1),
            max_event_bytes: limits.event_bytes,
            rests_until: now,
            flushed_at: now,
            deadlines_at: now,
            waiting: HashMap::new(),
            locked_at: None,
            doubt: false,
            pauses: Pauses::new(ASK_AGAIN.0, ASK_AGAIN.1),
        }
    }

    /// Runs until its orders end.
    pub(crate) async fn run(mut self, mut inbox: StepInbox<S>) -> Result<(), StepStopped> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let room = self.queued() < QUEUED_AT_MOST;
            tokio::select! {
                order = inbox.orders.recv() => match order {
                    Some(order) => self.obey(order).await?,
                    None => return Ok(()),
                },
                Some(taken) = inbox.records.recv(), if room => self.accept(taken),
                Some(asked) = inbox.commands.recv() => self.commands.push(asked),
                _ = tick.tick() => {}
                () = tokio::time::sleep_until(self.rests_until.into()), if self.rests() => {}
            }
            while let Ok(order) = inbox.orders.try_recv() {
                self.obey(order).await?;
            }
            while self.queued() < QUEUED_AT_MOST
                && let Ok(taken) = inbox.records.try_recv()
            {
                self.accept(taken);
            }
            while self.commands.len() < self.max_batch
                && let Ok(asked) = inbox.commands.try_recv()
            {
                self.commands.push(asked);
            }
            if self.rests() {
                continue;
            }
            let begun = Instant::now();
            self.step(false).await?;
            self.rests_until = Instant::now() + begun.elapsed().min(REST_AT_MOST);
        }
    }

    /// Whether what waits is left waiting for a moment, so that more comes and shares its step.
    fn rests(&self) -> bool {
        self.rests_until > Instant::now() && self.queued() + self.commands.len() < self.max_batch
    }

    fn queued(&self) -> usize {
        self.lanes.values().map(LaneInputs::len).sum()
    }

    async fn obey(&mut self, order: ToStep) -> Result<(), StepStopped> {
        match order {
            ToStep::Join(lane) => {
                let (partition, token) = (lane.grant.partition, lane.grant.token);
                let lane = LaneInputs::new(lane);
                self.intake.assign(partition, token, lane.offsets().collect());
                self.lanes.insert(partition, lane);
            }
            ToStep::Leave { partition, token, done } => {
                if self.lanes.get(&partition).is_some_and(|lane| lane.grant.token == token) {
                    self.intake.unassign(partition);
                    self.step(true).await?;
                    self.lanes.remove(&partition);
                }
                let _ = done.send(());
            }
        }
        Ok(())
    }

    fn accept(&mut self, taken: Taken) {
        match taken {
            Taken::Broken => drop(self.notices.send(Notice::InputsBroken)),
            Taken::Records(delivered) => {
                for delivered in delivered {
                    let lane = self.lanes.get_mut(&delivered.record.partition).filter(|lane| lane.grant.token == delivered.token);
                    if let Some(lane) = lane.filter(|lane| !lane.overflowed) {
                        lane.accept(delivered.record, self.replica.partitions, &self.handled);
                        if lane.waits_until.is_some() && lane.len() > WAITING_AT_MOST {
                            lane.overflowed = true;
                            self.intake.unassign(lane.grant.partition);
                        }
                    }
                }
            }
        }
    }

    /// Runs what waits, batch by batch; with `flush`, also the positions that moved without effect.
    async fn step(&mut self, flush: bool) -> Result<(), StepStopped> {
        if self.doubt && !self.resolve().await {
            self.refuse_commands("the database does not answer");
            return Ok(());
        }
        if !self.gate.lanes_open() {
            self.refuse_commands("its lanes are not open yet");
            return Ok(());
        }
        let flush = flush || self.flushed_at.elapsed() > FLUSH_EVERY;
        if flush {
            self.flushed_at = Instant::now();
            self.hint();
        }
        let mut due = self.due().await;
        if !due.is_empty() {
            failpoints::reached(failpoints::DEADLINE_DUE);
        }
        loop {
            let asked = self.commands.drain(..).filter(|asked| !asked.is_given_up());
            let mut batch: Vec<Work<S>> = asked.map(Work::Command).collect();
            let now = Instant::now();
            for (partition, lane) in &mut self.lanes {
                lane.begin(now);
                let ready = lane.waits_until.is_none_or(|until| until <= now);
                if ready && (flush || lane.has_effects()) {
                    lane.take(self.max_batch.saturating_sub(batch.len()), &mut batch);
                }
                if lane.overflowed && lane.len() == 0 {
                    lane.overflowed = false;
                    self.intake.assign(*partition, lane.grant.token, lane.reading_from().collect());
                }
            }
            batch.append(&mut due);
            if batch.is_empty() {
                return Ok(());
            }
            if batch.iter().any(|work| matches!(work, Work::Input { .. })) {
                failpoints::reached(failpoints::STEP_BATCH_READ);
            }
            self.settle(batch).await?;
            if self.doubt || !self.gate.lanes_open() {
                return Ok(());
            }
        }
    }

    /// The deadlines that are due in lanes that have caught up, looked for once in a while.
    async fn due(&mut self) -> Vec<Work<S>> {
        if self.deadlines_at.elapsed() < TICK {
            return Vec::new();
        }
        self.deadlines_at = Instant::now();
        let lanes: Vec<i32> = self.lanes.iter().filter(|(_, lane)| lane.caught_up()).map(|(partition, _)| partition.0).collect();
        if lanes.is_empty() {
            return Vec::new();
        }
        let limit = i64::try_from(self.max_batch).unwrap_or(i64::MAX);
        let due = async { deadlines::due(self.connection.get().await?, &lanes, limit).await };
        let now = Instant::now();
        self.waiting.retain(|_, until| *until > now);
        match tokio::time::timeout(ANSWER_AT_MOST, due).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(due) => due
                .into_iter()
                .filter(|due| !self.waiting.contains_key(&(due.key.clone(), due.name.clone())))
                .map(|due| {
                    let command =
                        serde_json::from_value(due.command.clone()).map_err(|error| format!("its command cannot be read: {error}"));
                    Work::Deadline { due, command }
                })
                .collect(),
            Err(error) => {
                self.connection.lose();
                tracing::debug!(error = %error, "deadlines could not be read");
                Vec::new()
            }
        }
    }

    /// After the commit: answers commands, wakes the relays, remembers the positions.
    pub(super) fn committed(&mut self, part: Vec<Work<S>>, done: Done<S>) {
        for ((partition, topic), position) in done.moved {
            if let Some(lane) = self.lanes.get_mut(&partition) {
                lane.committed(&topic, position);
                lane.waits_until = None;
            }
        }
        for (partition, key) in done.parked {
            if let Some(lane) = self.lanes.get_mut(&partition) {
                lane.parked.insert(key);
            }
        }
        let (mine, others): (Vec<_>, Vec<_>) = done.events.into_iter().partition(|event| self.lanes.contains_key(&event.partition));
        if !mine.is_empty() {
            self.relay.committed(mine);
        }
        if !others.is_empty() {
            self.wakeup.notify(others.into_iter().map(|event| event.partition));
        }
        let mut answers: HashMap<usize, _> = done.answers.into_iter().collect();
        for (place, work) in part.into_iter().enumerate() {
            if let (Work::Command(asked), Some(answer)) = (work, answers.remove(&place)) {
                failpoints::reached(failpoints::COMMAND_COMMITTED);
                let _ = asked.reply.send(answer);
            }
        }
    }

    fn refuse_commands(&mut self, reason: &str) {
        for asked in self.commands.drain(..) {
            let _ = asked.reply.send(Err(Refused::Closed(reason.to_owned())));
        }
    }

    fn hint(&self) {
        let offsets = self.lanes.iter().flat_map(|(partition, lane)| {
            let partition = *partition;
            lane.offsets().map(move |(topic, offset)| (topic, partition, offset))
        });
        self.intake.hint(offsets.collect());
        self.gate.set_held(
            self.lanes.iter().flat_map(|(partition, lane)| lane.held().map(move |topic| format!("{topic}/{partition}"))).collect(),
        );
    }
}
