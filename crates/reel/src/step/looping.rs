//! The step loop of a replica: gathers what waits, runs it as a batch, and sorts out what went wrong.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::Stored;
use super::batch::{Work, handled_types};
use super::inputs::LaneInputs;
use super::transaction::{self, Done, Failed, Manner};
use crate::failpoints;
use crate::kafka::{Intake, Taken};
use crate::lanes::{Notice, OpenLane, Position};
use crate::model::{Partition, Service};
use crate::outbox::{RelayHandle, Wakeup};
use crate::replica::Replica;
use crate::runtime::{Asked, Gate, Refused};
use crate::{dead_letters, deadlines};

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
/// How long the database may take to answer.
const ANSWER_AT_MOST: Duration = Duration::from_secs(10);
/// How much of a lane that waits for a row is kept in memory; the rest is read again later.
const WAITING_AT_MOST: usize = 2_000;
/// So many conflicts of one batch in a row are more than other transactions being in the way.
const CONFLICTS_AT_MOST: u32 = 20;
/// How long a lane waits before it asks again for a row that another transaction has locked.
const LOCKED_PAUSE: Duration = Duration::from_millis(250);
/// How long after a row was found locked no batch waits long for one.
const IMPATIENT_FOR: Duration = Duration::from_secs(1);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The loop, and what it works with.
pub(crate) struct StepLoop<S: Service> {
    replica: Arc<Replica<S>>,
    gate: Arc<Gate>,
    relay: RelayHandle,
    wakeup: Wakeup,
    intake: Intake,
    notices: mpsc::UnboundedSender<Notice>,
    handled: HashMap<String, HashSet<&'static str>>,
    lanes: HashMap<Partition, LaneInputs<S>>,
    commands: Vec<Asked<S>>,
    max_batch: usize,
    max_event_bytes: usize,
    flushed_at: Instant,
    deadlines_at: Instant,
    /// Deadlines whose rows were locked, and until when they wait.
    waiting: HashMap<(String, String), Instant>,
    /// When a row was last found locked: for a while nobody waits long for one.
    locked_at: Option<Instant>,
    /// Whether a commit was cut off, so that the positions must be read before anything else.
    doubt: bool,
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
}

/// The loop cannot go on: a programming error.
#[derive(Debug, thiserror::Error)]
#[error("the step stops: {0}")]
pub(crate) struct StepStopped(String);

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
            flushed_at: now,
            deadlines_at: now,
            waiting: HashMap::new(),
            locked_at: None,
            doubt: false,
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
            self.step(false).await?;
        }
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
            Taken::OutOfRange => drop(self.notices.send(Notice::InputsBroken)),
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
            let mut batch: Vec<Work<S>> = self.commands.drain(..).map(Work::Command).collect();
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
        let due = async {
            let mut connection = self.replica.pool.acquire().await?;
            deadlines::due(&mut connection, &lanes, limit).await
        };
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
                tracing::debug!(error = %error, "deadlines could not be read");
                Vec::new()
            }
        }
    }

    /// Runs a batch to its end: whole, without lanes that were lost, or in parts.
    async fn settle(&mut self, batch: Vec<Work<S>>) -> Result<(), StepStopped> {
        let mut parts: Vec<(Vec<Work<S>>, Option<String>)> = vec![(batch, None)];
        let mut conflicts = 0_u32;
        while let Some((part, poisoned)) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let impatient = self.locked_at.is_some_and(|at| at.elapsed() < IMPATIENT_FOR);
            let manner = Manner { poisoned: poisoned.as_deref(), impatient, max_event_bytes: self.max_event_bytes };
            match transaction::run(&self.replica, &self.lanes, &part, manner).await {
                Ok(done) => {
                    failpoints::reached(failpoints::STEP_AFTER_COMMIT);
                    self.committed(part, done);
                }
                Err(Failed::Conflict) => {
                    conflicts += 1;
                    tokio::time::sleep(backoff(conflicts)).await;
                    if conflicts > CONFLICTS_AT_MOST {
                        tracing::warn!(conflicts, "a batch conflicts with other transactions again and again");
                        self.put_back(part, parts, "other transactions are in the way");
                        return Ok(());
                    }
                    parts.push((part, poisoned));
                }
                Err(Failed::Fenced(lost)) => {
                    for partition in &lost {
                        self.lose(*partition);
                    }
                    let rest = part.into_iter().filter(|work| work.lane().is_none_or(|lane| !lost.contains(&lane))).collect();
                    parts.push((rest, poisoned));
                }
                Err(Failed::Poison(reason)) if poisoned.is_some() => {
                    self.put_back(part, parts, "it stops");
                    return Err(StepStopped(format!("not even the dead letter can be stored: {reason}")));
                }
                Err(Failed::Poison(reason)) => match halves(part) {
                    Halves::Two(first, second) => parts.extend([(second, None), (first, None)]),
                    Halves::One(single) => parts.push((single, Some(reason))),
                },
                Err(Failed::Locked) => {
                    self.locked_at = Some(Instant::now());
                    match halves(part) {
                        Halves::Two(first, second) => parts.extend([(second, None), (first, None)]),
                        Halves::One(single) => self.wait_for_lock(single, &mut parts),
                    }
                }
                Err(Failed::Closed) => {
                    self.gate.lanes_closed();
                    let _ = self.notices.send(Notice::Closed);
                    self.put_back(part, parts, "its lanes are not open yet");
                    return Ok(());
                }
                Err(Failed::Lost(error)) => {
                    if !self.doubt {
                        tracing::warn!(error = %error, "the database does not answer; the step waits");
                    }
                    self.doubt = true;
                    self.gate.lanes_closed();
                    self.gate.set(Some("the database does not answer".into()));
                    self.put_back(part, parts, "the database does not answer");
                    tokio::time::sleep(backoff(4)).await;
                    return Ok(());
                }
                Err(Failed::Broken(reason)) => {
                    tracing::error!(reason, "a programming error stops the step; nothing of this batch was stored");
                    self.put_back(part, parts, "it stops");
                    return Err(StepStopped(reason));
                }
            }
        }
        Ok(())
    }

    /// After the commit: answers commands, wakes the relays, remembers the positions.
    fn committed(&mut self, part: Vec<Work<S>>, done: Done<S>) {
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

    /// The one message waits for a row, and with it what follows in its lane; the others go on.
    fn wait_for_lock(&mut self, single: Vec<Work<S>>, parts: &mut [(Vec<Work<S>>, Option<String>)]) {
        let waiting: HashSet<Partition> = single.iter().filter_map(Work::lane).collect();
        let mut behind = Vec::new();
        for (part, _) in parts.iter_mut().rev() {
            let (wait, go): (Vec<_>, Vec<_>) =
                std::mem::take(part).into_iter().partition(|work| work.lane().is_some_and(|lane| waiting.contains(&lane)));
            *part = go;
            behind.extend(wait);
        }
        for partition in waiting {
            if let Some(lane) = self.lanes.get_mut(&partition) {
                lane.waits_until = Some(Instant::now() + LOCKED_PAUSE);
            }
        }
        for work in &single {
            if let Work::Deadline { due, .. } = work {
                self.waiting.insert((due.key.clone(), due.name.clone()), Instant::now() + LOCKED_PAUSE);
            }
        }
        self.put_back(single.into_iter().chain(behind).collect(), Vec::new(), "a row that it needs is locked");
    }

    /// Inputs go back to the front of their lanes, commands are refused, deadlines are found again.
    fn put_back(&mut self, part: Vec<Work<S>>, parts: Vec<(Vec<Work<S>>, Option<String>)>, reason: &str) {
        let mut of_lanes: HashMap<Partition, Vec<Work<S>>> = HashMap::new();
        for work in part.into_iter().chain(parts.into_iter().rev().flat_map(|(part, _)| part)) {
            match (work.lane(), work) {
                (Some(lane), work) => of_lanes.entry(lane).or_default().push(work),
                (None, Work::Command(asked)) => drop(asked.reply.send(Err(Refused::Closed(reason.to_owned())))),
                (None, _) => {}
            }
        }
        for (partition, works) in of_lanes {
            if let Some(lane) = self.lanes.get_mut(&partition) {
                lane.put_back(works);
            }
        }
    }

    fn refuse_commands(&mut self, reason: &str) {
        for asked in self.commands.drain(..) {
            let _ = asked.reply.send(Err(Refused::Closed(reason.to_owned())));
        }
    }

    /// After a lost connection: reads which positions the database has, so that nothing is done twice.
    async fn resolve(&mut self) -> bool {
        let read = async {
            let mut connection = self.replica.pool.acquire().await?;
            let grants: Vec<_> = self.lanes.values().map(|lane| lane.grant.clone()).collect();
            let partitions: Vec<i32> = grants.iter().map(|grant| grant.partition.0).collect();
            let parked = dead_letters::parked_in(&mut connection, &partitions).await?;
            let rows = sqlx::query_as::<_, (String, i32, i64, i64, i64, Option<Uuid>)>(
                "select topic, position.partition, next_offset, next_seq, generation, opened_id
                 from reel.positions as position
                 join unnest($2::integer[], $3::uuid[], $4::text[]) as mine(partition, token, run)
                   on mine.partition = position.partition and mine.token = position.token and mine.run = position.run
                 where reader = $1 and mine.run = (select reel.run())",
            )
            .bind(S::NAME)
            .bind(partitions)
            .bind(grants.iter().map(|grant| grant.token).collect::<Vec<_>>())
            .bind(grants.iter().map(|grant| grant.run.as_str()).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
            Ok::<_, sqlx::Error>((rows, parked))
        };
        let (rows, parked) = match tokio::time::timeout(ANSWER_AT_MOST, read).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(error = %error, "the database does not answer yet");
                tokio::time::sleep(backoff(4)).await;
                return false;
            }
        };
        let mut ours = HashSet::new();
        for (topic, partition, next_offset, next_seq, generation, opened_id) in rows {
            if let Some(lane) = self.lanes.get_mut(&Partition(partition)) {
                ours.insert(Partition(partition));
                lane.resume(&topic, Position { next_offset, next_seq, generation, opened_id });
            }
        }
        for (partition, key) in parked {
            if let Some(lane) = self.lanes.get_mut(&Partition(partition)) {
                lane.parked.insert(key);
            }
        }
        let lost: Vec<Partition> = self.lanes.keys().filter(|partition| !ours.contains(partition)).copied().collect();
        for partition in lost {
            self.lose(partition);
        }
        tracing::info!(lanes = self.lanes.len(), "the database answers again");
        self.doubt = false;
        let _ = self.notices.send(Notice::Closed);
        true
    }

    fn lose(&mut self, partition: Partition) {
        if let Some(lane) = self.lanes.remove(&partition) {
            self.intake.unassign(partition);
            let _ = self.notices.send(Notice::Lost { partition, token: lane.grant.token });
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

/// What is left of a batch in which one message is to be found.
enum Halves<S: Service> {
    /// Its halves.
    Two(Vec<Work<S>>, Vec<Work<S>>),
    /// It has a single message of effect.
    One(Vec<Work<S>>),
}

/// Cuts a batch in two at its middle.
fn halves<S: Service>(batch: Vec<Work<S>>) -> Halves<S> {
    let effective = batch.iter().filter(|work| work.is_effective()).count();
    if effective < 2 {
        return Halves::One(batch);
    }
    let mut seen = 0;
    let cut = batch.iter().position(|work| {
        seen += usize::from(work.is_effective());
        seen > effective / 2
    });
    let mut first = batch;
    let second = first.split_off(cut.unwrap_or(first.len()));
    Halves::Two(first, second)
}

/// The pause after so many failures, with jitter.
fn backoff(failures: u32) -> Duration {
    let (least, most) = BACKOFF;
    let pause = least.saturating_mul(1 << failures.min(6)).min(most);
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
