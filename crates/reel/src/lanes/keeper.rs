//! The keeper of a replica: renews its leases, takes and opens lanes, hands them over, and drops those that were lost.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use sqlx::PgConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::lease::{Grant, Identity, LeaseError, View};
use super::leaving::leave;
use super::opening::{OpenLane, OpeningError};
use super::share::share;
use super::taking::{Taking, open_at_last};
use crate::database::Run;
use crate::model::{Partition, Service};
use crate::outbox::{RelayHandle, RelayLane};
use crate::pauses::Pauses;
use crate::replica::Replica;
use crate::runtime::Gate;
use crate::step::{Stored, ToStep, text_of};

/// How often leases are renewed at least, and how often while something is to be changed.
const RENEW_AT_MOST: Duration = Duration::from_millis(500);
const RENEW_SOON: Duration = Duration::from_millis(50);
/// The pauses while the database does not answer.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(300));
/// The pauses of a lane whose records are refused again and again. Each try writes a `reel.opened`, so they get long.
const REOPEN_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(8));
/// A lane that was open so long is opened anew as if it were the first time.
const LONG_OPEN: Duration = Duration::from_secs(10);
/// How long the database may take to answer.
const ANSWER_AT_MOST: Duration = Duration::from_secs(10);
/// How long a stopping replica waits for a lane that it is just opening.
const OPENING_AT_MOST: Duration = Duration::from_secs(2);

/// What the keeper is told.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A lane was taken and opened, or why not.
    Opened { grant: Grant, result: Result<Box<OpenLane>, OpeningError> },
    /// A write under this token was refused: the lane is another's.
    Lost { partition: Partition, token: Uuid },
    /// Somebody else wrote to the lane's partition, or a record was refused: the reason.
    Reopen { partition: Partition, token: Uuid, reason: String },
    /// A lane could not be opened yet: the reason.
    Waiting { partition: Partition, token: Uuid, reason: String },
    /// A lane was handed over.
    Left { partition: Partition, token: Uuid },
    /// The database says that lanes are closed, or answers again: look soon.
    Closed,
    /// Another replica gave lanes back: look soon.
    LanesFreed,
    /// An input was truncated, made anew or deleted under its reader, or so it seems.
    InputsBroken,
}

/// A lane as this replica holds it.
struct Held {
    /// Its token, which counts once the lane was taken.
    grant: Grant,
    state: LaneState,
    /// What it waits for, where that takes long.
    waits: Option<String>,
    /// The pauses before it is opened anew.
    pauses: Pauses,
    opened_at: Instant,
    opening: Option<JoinHandle<()>>,
}

/// What a replica does with a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneState {
    /// It is being taken and opened.
    Opening,
    /// It works.
    Open,
    /// It works, but its relay waits until it is opened anew.
    Reopening,
    /// It is being handed over.
    Leaving,
    /// It stands still until an operator has looked.
    Stopped(String),
}

/// Keeps the lanes of one replica.
pub(crate) struct Keeper<S: Service> {
    replica: Arc<Replica<S>>,
    identity: Identity,
    gate: Arc<Gate>,
    step: mpsc::UnboundedSender<ToStep>,
    relay: RelayHandle,
    notices: mpsc::UnboundedSender<Notice>,
    lanes: BTreeMap<Partition, Held>,
    connection: Option<PgConnection>,
    run: Option<Run>,
    pauses: Pauses,
}

/// The keeper cannot go on, and so the process ends.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct KeeperStopped(#[from] LeaseError);

impl<S: Service<State: Stored>> Keeper<S> {
    pub(crate) fn new(
        replica: Arc<Replica<S>>,
        lease: Duration,
        gate: Arc<Gate>,
        step: mpsc::UnboundedSender<ToStep>,
        relay: RelayHandle,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Self {
        let identity = Identity { instance: replica.instance.clone(), incarnation: Uuid::now_v7(), lease };
        Self {
            replica,
            identity,
            gate,
            step,
            relay,
            notices,
            lanes: BTreeMap::new(),
            connection: None,
            run: None,
            pauses: Pauses::new(ASK_AGAIN.0, ASK_AGAIN.1),
        }
    }

    /// Keeps the lanes until it is told to stop; then it hands all of them over.
    pub(crate) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Notice>, stop: CancellationToken) -> Result<(), KeeperStopped> {
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(notice) = inbox.recv() => {
                    pause = if matches!(notice, Notice::Opened { result: Ok(_), .. } | Notice::LanesFreed) { Duration::ZERO } else { RENEW_SOON };
                    self.hear(notice);
                    while let Ok(notice) = inbox.try_recv() {
                        self.hear(notice);
                    }
                }
                () = tokio::time::sleep(pause) => match tokio::time::timeout(ANSWER_AT_MOST, self.renew()).await.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut.into())) {
                    Ok(settled) => {
                        self.pauses.reset();
                        pause = if settled { RENEW_AT_MOST.min(self.identity.lease / 4) } else { RENEW_SOON };
                    }
                    Err(LeaseError::Database(error)) => {
                        self.complain(&error);
                        pause = self.pauses.next();
                    }
                    Err(error) => return Err(error.into()),
                },
            }
            self.show();
        }
        self.stop().await;
        Ok(())
    }

    /// Renews, compares with the others, and takes or gives lanes. Whether nothing is left to change.
    async fn renew(&mut self) -> Result<bool, LeaseError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.replica.sessions.connect().await?,
        };
        let tokens: Vec<Uuid> = self.lanes.values().map(|held| held.grant.token).collect();
        if self.run.is_none() {
            Identity::prepare(&mut connection, S::NAME, &self.replica.inputs, self.replica.partitions).await?;
        }
        let view = self.identity.renew(&mut connection, &tokens).await?;
        if self.run.as_ref().is_some_and(|run| *run != view.run) {
            tracing::warn!(run = %view.run, "the database is in another run; all lanes are opened anew");
            Identity::prepare(&mut connection, S::NAME, &self.replica.inputs, self.replica.partitions).await?;
        }
        self.run = Some(view.run.clone());
        self.connection = Some(connection);
        let lost: Vec<Partition> = self
            .lanes
            .iter()
            .filter(|(_, held)| held.grant.run != view.run || (held.state != LaneState::Opening && !view.held.contains(&held.grant.token)))
            .map(|(partition, _)| *partition)
            .collect();
        for partition in lost {
            self.drop_lane(partition);
        }
        if view.all_open {
            self.gate.open();
        } else {
            self.gate.lanes_closed();
        }
        Ok(self.change(&view) && view.all_open)
    }

    fn change(&mut self, view: &View) -> bool {
        let mine: Vec<Partition> = self.lanes.keys().copied().collect();
        let open: Vec<Partition> =
            self.lanes.iter().filter(|(_, held)| held.state == LaneState::Open).map(|(partition, _)| *partition).collect();
        let change = share(&self.identity.instance, &mine, &open, &view.leases, &view.live);
        for partition in &change.take {
            let grant = Grant::new(*partition, &view.run);
            let opening = self.spawn_opening(Taking { grant: grant.clone(), held: false, pause: Duration::ZERO });
            self.lanes.insert(*partition, Held { opening: Some(opening), ..Held::new(grant, LaneState::Opening) });
        }
        let leaving = self.lanes.values().any(|held| held.state == LaneState::Leaving);
        if let Some(partition) = change.give.filter(|_| !leaving) {
            self.hand_over(partition);
        }
        change.take.is_empty() && change.give.is_none() && !leaving && self.lanes.values().all(|held| held.state != LaneState::Opening)
    }

    fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Opened { grant, result } => self.opened(&grant, result),
            Notice::Lost { partition, token } => {
                if self.holds(partition, token) {
                    tracing::warn!(%partition, "the lane is another's now");
                    self.drop_lane(partition);
                }
            }
            Notice::Reopen { partition, token, reason } => self.reopen(partition, token, reason),
            Notice::Waiting { partition, token, reason } => {
                if let Some(held) = self.lanes.get_mut(&partition).filter(|held| held.grant.token == token) {
                    held.waits = Some(reason);
                }
            }
            Notice::Left { partition, token } => {
                if self.holds(partition, token) {
                    self.lanes.remove(&partition);
                }
            }
            Notice::Closed | Notice::LanesFreed => {}
            Notice::InputsBroken => self.check_inputs(),
        }
    }

    /// Opens all lanes anew, which looks whether their topics still hold what was read of them. Of many partitions that broke
    /// together, the first one does it for all.
    fn check_inputs(&mut self) {
        let working = self.lanes.iter().filter(|(_, held)| matches!(held.state, LaneState::Open | LaneState::Reopening));
        let working: Vec<Partition> = working.map(|(partition, _)| *partition).collect();
        if !working.is_empty() {
            tracing::error!("an input lacks what is to be read next: it was truncated, made anew or deleted; its lanes are checked");
        }
        for partition in working {
            self.drop_lane(partition);
        }
    }

    /// The lane works on, and its relay waits until the lane is opened anew: after a pause that gets longer.
    fn reopen(&mut self, partition: Partition, token: Uuid, reason: String) {
        let Some(held) = self.lanes.get_mut(&partition).filter(|held| held.grant.token == token && held.state == LaneState::Open) else {
            return;
        };
        if held.opened_at.elapsed() > LONG_OPEN {
            held.pauses.reset();
        }
        (held.state, held.waits) = (LaneState::Reopening, Some(reason));
        let taking = Taking { grant: held.grant.clone(), held: true, pause: held.pauses.next() };
        let opening = self.spawn_opening(taking);
        if let Some(held) = self.lanes.get_mut(&partition) {
            held.opening = Some(opening);
        }
    }

    fn opened(&mut self, grant: &Grant, result: Result<Box<OpenLane>, OpeningError>) {
        let partition = grant.partition;
        // An opening of a lane that was dropped meanwhile, and perhaps taken again, counts for nothing.
        let Some(held) = self.lanes.get_mut(&partition).filter(|held| held.grant.token == grant.token) else { return };
        match result {
            Ok(_) if held.state == LaneState::Leaving => {}
            Ok(lane) => {
                self.relay.join(RelayLane { grant: lane.grant.clone(), generation: lane.generation, next_seq: lane.next_seq });
                if held.state == LaneState::Opening {
                    tracing::info!(%partition, generation = lane.generation, "lane opened");
                    let _ = self.step.send(ToStep::Join(*lane));
                }
                (held.state, held.opened_at, held.waits) = (LaneState::Open, Instant::now(), None);
            }
            Err(OpeningError::Stopped(reason)) => {
                tracing::error!(%partition, reason, "LANE STOPPED: an operator has to look");
                self.drop_lane(partition);
                self.lanes.insert(partition, Held::new(grant.clone(), LaneState::Stopped(reason)));
            }
            Err(_) => self.drop_lane(partition),
        }
    }

    fn holds(&self, partition: Partition, token: Uuid) -> bool {
        self.lanes.get(&partition).is_some_and(|held| held.grant.token == token)
    }

    /// Takes a lane out of the step and the relay at once.
    fn drop_lane(&mut self, partition: Partition) {
        let Some(held) = self.lanes.remove(&partition) else { return };
        if let Some(opening) = held.opening {
            opening.abort();
        }
        let token = held.grant.token;
        let (done, _) = oneshot::channel();
        let _ = self.step.send(ToStep::Leave { partition, token, done });
        drop(self.relay.leave(partition, token, false));
    }

    /// Takes a lane, unless it is `held` already, and opens it; what passes is tried again.
    fn spawn_opening(&self, taking: Taking) -> JoinHandle<()> {
        let (replica, identity, notices) = (self.replica.clone(), self.identity.clone(), self.notices.clone());
        tokio::spawn(async move {
            let grant = taking.grant.clone();
            let opening = AssertUnwindSafe(open_at_last(&replica, &identity, &notices, taking)).catch_unwind();
            let result = opening.await.unwrap_or_else(|panic| Err(OpeningError::Stopped(format!("panicked: {}", text_of(panic.as_ref())))));
            let _ = notices.send(Notice::Opened { grant, result });
        })
    }

    /// Hands a lane over between two batches: the step lets it go, the relay sends what is committed, the lease ends.
    fn hand_over(&mut self, partition: Partition) {
        let Some(held) = self.lanes.get_mut(&partition).filter(|held| held.state == LaneState::Open) else { return };
        let grant = held.grant.clone();
        tracing::info!(%partition, "handing the lane over");
        held.state = LaneState::Leaving;
        let (step, relay, notices, replica) = (self.step.clone(), self.relay.clone(), self.notices.clone(), self.replica.clone());
        tokio::spawn(async move {
            leave(&replica, &step, &relay, &grant).await;
            let _ = notices.send(Notice::Left { partition, token: grant.token });
        });
    }

    /// Hands all lanes over and leaves the circle.
    async fn stop(&mut self) {
        let leaving = std::mem::take(&mut self.lanes).into_values().map(|held| {
            let (step, relay, replica) = (self.step.clone(), self.relay.clone(), self.replica.clone());
            async move {
                // A lane that is just being taken is given back when that has ended, so that nobody waits for its lease.
                // One that is only opened anew is ours already, and may be pausing for long.
                if let Some(mut opening) = held.opening
                    && (held.state == LaneState::Reopening || tokio::time::timeout(OPENING_AT_MOST, &mut opening).await.is_err())
                {
                    opening.abort();
                }
                leave(&replica, &step, &relay, &held.grant).await;
            }
        });
        futures_util::future::join_all(leaving).await;
        if let Ok(mut connection) = self.replica.sessions.connect().await
            && let Err(error) = self.identity.leave(&mut connection).await
        {
            tracing::debug!(error = %error, "the lease runs out by itself");
        }
    }

    fn complain(&mut self, error: &sqlx::Error) {
        let missing = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .is_some_and(|code| matches!(code.as_ref(), "42P01" | "3F000" | "42883"));
        if self.gate.closed().is_none() || self.run.is_none() {
            if missing {
                tracing::error!("the database has no tables yet: run `{} migrate`, or start with --migrate", S::NAME);
            } else {
                tracing::warn!(error = %error, "leases cannot be renewed: the database does not answer");
            }
        }
        let reason = if missing { "its database has no tables yet" } else { "the database does not answer" };
        self.gate.set(Some(reason.into()));
    }

    fn show(&self) {
        let state = |(partition, held): (&Partition, &Held)| (partition.0, held.state.clone());
        let waits = |(partition, held): (&Partition, &Held)| Some((partition.0, held.waits.clone()?));
        self.gate.set_lanes(self.lanes.iter().map(state).collect(), self.lanes.iter().filter_map(waits).collect());
    }
}

impl Held {
    fn new(grant: Grant, state: LaneState) -> Self {
        let pauses = Pauses::new(REOPEN_AGAIN.0, REOPEN_AGAIN.1);
        Self { grant, state, waits: None, pauses, opened_at: Instant::now(), opening: None }
    }
}
