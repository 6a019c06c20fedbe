//! The supervisor of a replica's lanes: renews leases, acquires and recovers lanes, hands them
//! over, and drops those that were lost. docs/states.md has the states of a lane as a diagram.
//!
//! One task owns the states. What takes long (recovery, handover) runs in tasks of its own, whose
//! results come back as [`TaskEvent`]s. A result that carries another token than the lane has now
//! is about an earlier acquisition, and is ignored.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::PgConnection;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::acquire::{Acquisition, recover_until_open};
use super::handover::{hand_over, release};
use super::heartbeat::Heartbeat;
use super::held::{HeldLane, HeldLanes};
use super::rebalance::{Holdings, is_cut_off, rebalance};
use super::recovery::RecoveryError;
use crate::admission::Admission;
use crate::database::{
    ANSWER_WITHIN, DatabaseEpoch, Refusal, answered, is_not_migrated, refusal, what_is_wrong,
};
use crate::lane::{LaneEvent, LaneState, Lease, OpenLane};
use crate::model::{Partition, Service};
use crate::notify;
use crate::pauses::Pauses;
use crate::relay::{RelayHandle, RelayLane};
use crate::replica::Replica;
use crate::rows::{Stored, panic_message};
use crate::status::Lanes;
use crate::step::StepControl;
use crate::tables::leases::{Member, Renewed, View};
use crate::tables::{self, LaneRows};

/// Longest interval in which leases are renewed.
const RENEW_WITHIN: Duration = Duration::from_millis(500);
/// Interval while something is changing: that of one replica. Several of them share it, so that the
/// database of a service that stays closed is not asked more often, the more replicas there are.
const RENEW_SOON: Duration = Duration::from_millis(50);
/// Pauses while the database is unreachable.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(300));
/// Limit of a renewal, however short the lease is. Otherwise it is the lease itself: after that the
/// lanes are free, and another connection may be faster.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(2);
/// Longest time that a stopping replica waits for a recovery to end.
const RECOVERY_WITHIN: Duration = Duration::from_secs(2);

/// What the supervisor's own tasks report to it.
#[derive(Debug)]
pub(super) enum TaskEvent {
    /// The lease of a lane is ours.
    Acquired { partition: Partition, token: Uuid },
    /// A lane was acquired and recovered; or it was lost or stopped.
    Recovered { lease: Lease, result: Result<Box<OpenLane>, RecoveryError> },
    /// A lane could not be opened yet, and is tried again; for status.
    Waiting { partition: Partition, token: Uuid, reason: String },
    /// A lane was handed over, or at least has left the step and the relay.
    HandedOver { partition: Partition, token: Uuid },
}

/// Supervises the lanes of one replica.
pub(crate) struct LaneSupervisor<S: Service> {
    replica: Arc<Replica<S>>,
    member: Member,
    admission: Admission,
    status: watch::Sender<Lanes>,
    step: mpsc::UnboundedSender<StepControl>,
    relay: RelayHandle,
    tasks: mpsc::UnboundedSender<TaskEvent>,
    task_inbox: mpsc::UnboundedReceiver<TaskEvent>,
    lanes: HeldLanes,
    heartbeat: Heartbeat,
    /// Whether Kafka answers others and not us.
    cut_off: bool,
    connection: Option<PgConnection>,
    /// The epoch that the database was in at the last renewal; none before the first.
    database_epoch: Option<DatabaseEpoch>,
    pauses: Pauses,
}

/// What the supervisor receives.
pub(crate) struct SupervisorInbox {
    /// From the step and the relay.
    pub(crate) events: mpsc::UnboundedReceiver<LaneEvent>,
    /// From other replicas: lanes were given back.
    pub(crate) lanes_freed: Arc<Notify>,
}

/// Why the supervisor cannot go on, which ends the process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SupervisorStopped {
    #[error(
        "another process runs as instance {0}, and started later: give each replica an instance id \
         of its own"
    )]
    Superseded(String),
    #[error(
        "the database was made for {was} partitions, and the topics have {now}: a deployment's \
         count of partitions cannot change"
    )]
    PartitionsChanged { was: i64, now: i32 },
}

/// Whether the lanes of the service have settled.
#[derive(Debug, Clone, Copy)]
enum Progress {
    /// All are open, and none changes hands.
    Settled,
    /// Some are not open or change hands, of a service with this many live replicas.
    Changing { replicas: usize },
}

impl Progress {
    /// The pause before the next renewal, if a settled replica makes one of this length.
    fn pause(self, settled: Duration) -> Duration {
        match self {
            Self::Settled => settled,
            Self::Changing { replicas } => {
                let replicas = u32::try_from(replicas).unwrap_or(u32::MAX).max(1);
                RENEW_SOON.saturating_mul(replicas).min(settled)
            }
        }
    }
}

/// Why leases were not renewed.
enum RenewError {
    Stopped(SupervisorStopped),
    Database(sqlx::Error),
}

impl<S: Service<State: Stored>> LaneSupervisor<S> {
    pub(crate) fn new(
        replica: Arc<Replica<S>>,
        lease: Duration,
        admission: Admission,
        status: watch::Sender<Lanes>,
        step: mpsc::UnboundedSender<StepControl>,
        relay: RelayHandle,
        heartbeat: Heartbeat,
    ) -> Self {
        let instance = replica.instance.clone();
        let (tasks, task_inbox) = mpsc::unbounded_channel();
        Self {
            replica,
            member: Member { instance, incarnation: Uuid::now_v7(), lease },
            admission,
            status,
            step,
            relay,
            tasks,
            task_inbox,
            lanes: HeldLanes::default(),
            heartbeat,
            cut_off: false,
            connection: None,
            database_epoch: None,
            pauses: Pauses::new(RETRY.0, RETRY.1),
        }
    }

    /// Supervises the lanes until `stop` is cancelled, and then hands all of them over.
    ///
    /// # Errors
    /// If the process must not go on: see [`SupervisorStopped`].
    pub(crate) async fn run(
        mut self,
        mut inbox: SupervisorInbox,
        stop: CancellationToken,
    ) -> Result<(), SupervisorStopped> {
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(event) = inbox.events.recv() => {
                    self.handle_event(event);
                    pause = RENEW_SOON;
                }

                Some(event) = self.task_inbox.recv() => {
                    pause = pause.min(pause_after(&event));
                    self.handle_task_event(event);
                }
                () = inbox.lanes_freed.notified() => pause = Duration::ZERO,
                () = tokio::time::sleep(pause) => pause = self.renew_in_time().await?,
            }
            while let Ok(event) = inbox.events.try_recv() {
                self.handle_event(event);
            }
            while let Ok(event) = self.task_inbox.try_recv() {
                pause = pause.min(pause_after(&event));
                self.handle_task_event(event);
            }
            self.publish_status();
        }

        self.stop().await;
        Ok(())
    }

    /// Renews within the timeout. Returns the pause before the next renewal.
    async fn renew_in_time(&mut self) -> Result<Duration, SupervisorStopped> {
        let limit = self.member.lease.clamp(SHORTEST_RENEWAL, ANSWER_WITHIN);
        let renewed = tokio::time::timeout(limit, self.renew()).await;
        match renewed.unwrap_or(Err(RenewError::Database(sqlx::Error::PoolTimedOut))) {
            Ok(progress) => {
                self.pauses.reset();
                Ok(progress.pause(RENEW_WITHIN.min(self.member.lease / 4)))
            }
            Err(RenewError::Database(error)) => {
                self.report_database_error(&error);
                Ok(self.pauses.next())
            }
            Err(RenewError::Stopped(stopped)) => Err(stopped),
        }
    }

    /// Renews the leases, drops lanes that were lost, opens or closes admission, and acquires or
    /// hands over lanes. Returns whether all of that has settled.
    async fn renew(&mut self) -> Result<Progress, RenewError> {
        // Taken, so that an error or a timeout drops the connection and the next renewal opens
        // another.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.replica.database.connect().await?,
        };

        // On the first renewal, and below if the database may have been dropped and created again.
        if self.database_epoch.is_none() {
            self.create_lane_rows(&mut connection).await?;
        }

        let (tokens, silent_for) = (self.lanes.tokens(), self.heartbeat.silent_for());
        let view = match self.member.renew(&mut connection, &tokens, silent_for).await? {
            Renewed::View(view) => view,
            Renewed::Superseded => {
                let instance = self.member.instance.clone();
                return Err(RenewError::Stopped(SupervisorStopped::Superseded(instance)));
            }
        };

        if self.database_epoch.as_ref().is_some_and(|known| *known != view.database_epoch) {
            tracing::warn!(
                event.code = "database.epoch_changed", database.epoch = %view.database_epoch,
                "the database is in another epoch; all lanes are recovered"
            );
            self.create_lane_rows(&mut connection).await?;
        }

        // Known only now: if the rows could not be created, the next renewal tries again.
        self.database_epoch = Some(view.database_epoch.clone());
        self.connection = Some(connection);

        // Drop before acquiring: a lane that was lost may be free, and is acquired under a new
        // token.
        self.drop_lost(&view);
        self.set_cut_off(is_cut_off(&self.member.instance, &view.live));
        if view.all_open {
            self.admission.open();
        } else {
            self.admission.close();
        }

        Ok(if self.rebalance(&view) && view.all_open {
            Progress::Settled
        } else {
            Progress::Changing { replicas: view.live.len() }
        })
    }

    /// Creates the rows of all lanes, if they are missing.
    ///
    /// # Errors
    /// If the database was created for another number of partitions.
    async fn create_lane_rows(&self, connection: &mut PgConnection) -> Result<(), RenewError> {
        let Replica { inputs, partitions, .. } = &*self.replica;
        match tables::create_lane_rows(connection, S::NAME, inputs, *partitions).await? {
            LaneRows::Complete => Ok(()),
            LaneRows::OtherCount(was) => {
                let now = partitions.count();
                Err(RenewError::Stopped(SupervisorStopped::PartitionsChanged { was, now }))
            }
        }
    }

    /// Drops the lanes whose lease is no longer ours. One in another database epoch never is.
    fn drop_lost(&mut self, view: &View) {
        for partition in self.lanes.lost(&view.database_epoch, &view.held) {
            self.drop_lane(partition);
        }
    }

    /// Begins to acquire the lanes that are free, or to hand one over. Returns whether nothing is
    /// changing.
    fn rebalance(&mut self, view: &View) -> bool {
        let open = self.lanes.which(|state| *state == LaneState::Open);
        let recovering = self.lanes.which(LaneState::is_recovering);
        let all = self.lanes.which(|_| true);
        let me = &self.member.instance;
        let holdings = Holdings { me, all: &all, open: &open, recovering: &recovering };
        let change = rebalance(&holdings, &view.owners, &view.live);

        for partition in &change.acquire {
            let lease = Lease::new(*partition, &view.database_epoch);
            let acquisition =
                Acquisition { lease: lease.clone(), acquired: false, pause: Duration::ZERO };
            let mut held = HeldLane::new(lease, LaneState::Acquiring);
            held.recovery = Some(self.spawn_recovery(acquisition));
            self.lanes.insert(held);
        }

        for partition in &change.give_up {
            self.give_up(*partition);
        }

        // Not while others leave: those who take over see them free before the next one leaves.
        let leaving = !self.lanes.which(|state| *state == LaneState::Leaving).is_empty();
        for partition in change.hand_over.iter().filter(|_| !leaving) {
            self.hand_over(*partition);
        }

        change.is_none() && !leaving && self.lanes.which(LaneState::is_opening).is_empty()
    }

    /// Handles what the step or the relay reports.
    fn handle_event(&mut self, event: LaneEvent) {
        match event {
            LaneEvent::Lost { partition, token } => {
                if self.lanes.under(partition, token).is_some() {
                    tracing::warn!(
                        event.code = "lane.lost", %partition, "lane lost to another replica"
                    );
                    self.drop_lane(partition);
                }
            }
            LaneEvent::PublishFailed { partition, token, reason } => {
                self.reopen(partition, token, reason);
            }

            LaneEvent::RecordsLost { partition, token, reason } => {
                if let Some(held) = self.lanes.under(partition, token) {
                    let lease = held.lease.clone();
                    self.stop_lane(lease, reason);
                }
            }

            // Every event brings the next renewal forward, which looks whether all lanes are open.
            LaneEvent::RenewSoon => {}
            LaneEvent::InputsBroken => self.recover_all(),
        }
    }

    /// Handles what a recovery or a handover reports.
    fn handle_task_event(&mut self, event: TaskEvent) {
        match event {
            TaskEvent::Acquired { partition, token } => {
                if let Some(held) = self.lanes.under(partition, token) {
                    held.state = LaneState::Recovering;
                }
            }
            TaskEvent::Recovered { lease, result } => self.recovered(&lease, result),
            TaskEvent::Waiting { partition, token, reason } => {
                if let Some(held) = self.lanes.under(partition, token) {
                    held.waiting = Some(reason);
                }
            }
            TaskEvent::HandedOver { partition, token } => {
                if self.lanes.under(partition, token).is_some() {
                    self.lanes.remove(partition);
                }
            }
        }
    }

    /// Drops all lanes, so that they are acquired and recovered again, which checks that their
    /// topics still hold what was read of them. If many partitions break together, the first report
    /// drops all lanes, and the others find none.
    fn recover_all(&mut self) {
        let working = self.lanes.which(LaneState::is_open);
        if !working.is_empty() {
            tracing::error!(
                event.code = "input.broken",
                "an input lacks what is to be read next: it was truncated, recreated or deleted; \
                 its lanes are checked"
            );
        }
        for partition in working {
            self.drop_lane(partition);
        }
    }

    /// Recovers a lane whose relay stalled, after a pause. The step goes on: what it commits waits
    /// in the outbox.
    fn reopen(&mut self, partition: Partition, token: Uuid, reason: String) {
        // While it is being recovered already, or leaving, there is nothing more to do.
        let held = self.lanes.under(partition, token);
        let Some(held) = held.filter(|held| held.state == LaneState::Open) else { return };

        let pause = held.reopen(reason);
        let lease = held.lease.clone();
        let recovery = self.spawn_recovery(Acquisition { lease, acquired: true, pause });
        if let Some(held) = self.lanes.under(partition, token) {
            held.recovery = Some(recovery);
        }
    }

    /// Takes the result of a recovery: has the relay and the step work on the lane, or drops it.
    fn recovered(&mut self, lease: &Lease, result: Result<Box<OpenLane>, RecoveryError>) {
        // The lane may have been dropped meanwhile, and perhaps acquired again: then this result is
        // void.
        let partition = lease.partition;
        let Some(held) = self.lanes.under(partition, lease.token) else { return };

        match result {
            Ok(lane) => {
                let OpenLane { epoch, next_sequence, .. } = *lane;
                self.relay.join(RelayLane { lease: lane.lease.clone(), epoch, next_sequence });

                // After the relay, so that it is there for what the step commits. In `Reopening`
                // the step has never stopped, and its positions are ahead of those that recovery
                // has read.
                if held.state == LaneState::Recovering {
                    tracing::info!(event.code = "lane.opened", %partition, epoch, "lane opened");
                    let _ = self.step.send(StepControl::Join(*lane));
                }
                held.opened();
            }
            Err(RecoveryError::Stopped(reason)) => self.stop_lane(lease.clone(), reason),

            // Lost: no other error ends the task.
            Err(_) => self.drop_lane(partition),
        }
    }

    /// Stops a lane. It is held on to, and its lease renewed, so that no other replica meets the
    /// same loss.
    fn stop_lane(&mut self, lease: Lease, reason: String) {
        let partition = lease.partition;
        tracing::error!(
            event.code = "lane.stopped", %partition, reason,
            "lane stopped: an operator has to look"
        );
        self.drop_lane(partition);
        self.lanes.insert(HeldLane::new(lease, LaneState::Stopped(reason)));
    }

    /// Drops a lane without handing it over: ends its recovery, and takes it out of the step and
    /// the relay without waiting for either. Its writes are fenced.
    fn drop_lane(&mut self, partition: Partition) {
        let Some(held) = self.lanes.remove(partition) else { return };
        if let Some(recovery) = held.recovery {
            recovery.abort();
        }
        let token = held.lease.token;
        let (done, _) = oneshot::channel();
        let _ = self.step.send(StepControl::Leave { partition, token, done });
        drop(self.relay.leave(partition, token, false));
    }

    /// Starts the task that acquires a lane, unless it is ours already, and recovers it. If it
    /// panics, as a service's function may, the lane stops.
    fn spawn_recovery(&self, acquisition: Acquisition) -> JoinHandle<()> {
        let (replica, member) = (self.replica.clone(), self.member.clone());
        let tasks = self.tasks.clone();
        tokio::spawn(async move {
            let lease = acquisition.lease.clone();
            let recovery = recover_until_open(&replica, &member, &tasks, acquisition);
            let result = AssertUnwindSafe(recovery).catch_unwind().await;
            let result = result.unwrap_or_else(|panic| {
                let reason = format!("panicked: {}", panic_message(panic.as_ref()));
                Err(RecoveryError::Stopped(reason))
            });
            let _ = tasks.send(TaskEvent::Recovered { lease, result });
        })
    }

    /// Starts to hand a lane over.
    fn hand_over(&mut self, partition: Partition) {
        let Some(held) = self.lanes.get_mut(partition) else { return };
        if held.state != LaneState::Open {
            return;
        }
        held.state = LaneState::Leaving;
        let lease = held.lease.clone();
        tracing::info!(event.code = "lane.leaving", %partition, "handing the lane over");

        let (step, relay) = (self.step.clone(), self.relay.clone());
        let (replica, tasks) = (self.replica.clone(), self.tasks.clone());
        tokio::spawn(async move {
            hand_over(&replica, &step, &relay, &lease).await;
            let Lease { partition, token, .. } = lease;
            let _ = tasks.send(TaskEvent::HandedOver { partition, token });
        });
    }

    /// Drops a lane that cannot be recovered here, and releases its lease for those who can. A
    /// `reel.opened` of ours that arrives later disturbs the next owner, who then recovers again.
    fn give_up(&mut self, partition: Partition) {
        let Some(held) = self.lanes.get_mut(partition) else { return };
        let (lease, replica) = (held.lease.clone(), self.replica.clone());
        tracing::info!(event.code = "lane.given_up", %partition, "giving the lane up");
        self.drop_lane(partition);
        tokio::spawn(async move { release(&replica, &lease).await });
    }

    /// Takes note of whether Kafka answers others and not us, and reports changes.
    fn set_cut_off(&mut self, cut_off: bool) {
        if cut_off && !self.cut_off {
            tracing::error!(
                event.code = "replica.cut_off",
                "kafka answers other replicas and not this one, which gives its lanes to them"
            );
        } else if self.cut_off && !cut_off {
            tracing::info!(event.code = "replica.back", "this replica can work on lanes again");
        }
        self.cut_off = cut_off;
    }

    /// Hands all lanes over, side by side, and leaves the live replicas.
    async fn stop(&mut self) {
        let leaving = std::mem::take(&mut self.lanes).into_lanes().map(|held| {
            let (step, relay, replica) = (&self.step, &self.relay, &self.replica);
            async move {
                // Only once a lease was acquired can it be released, and a recovery that is cut off
                // may leave a `reel.opened` that arrives behind that of the next owner: so the task
                // is waited for. In `Reopening` it may be in a long pause.
                if let Some(mut recovery) = held.recovery {
                    let ended = held.state.is_opening()
                        && tokio::time::timeout(RECOVERY_WITHIN, &mut recovery).await.is_ok();
                    if !ended {
                        recovery.abort();
                    }
                }
                hand_over(replica, step, relay, &held.lease).await;
            }
        });
        futures_util::future::join_all(leaving).await;

        let left = answered(async {
            let mut connection = self.replica.database.connect().await?;
            self.member.leave(&mut connection).await?;
            notify::lanes_freed(&mut connection).await
        });
        if let Err(error) = left.await {
            tracing::debug!(error = %error, "the lease runs out by itself");
        }
    }

    /// Reports that the database cannot be asked (each time until it was asked once, then once an
    /// outage), and suspends admission: what is in progress goes on under its own fences.
    fn report_database_error(&self, error: &sqlx::Error) {
        if self.admission.closed().is_none() || self.database_epoch.is_none() {
            match refusal(error) {
                Some(Refusal { what, mend }) if is_not_migrated(error) => tracing::error!(
                    event.code = "database.not_migrated", error = %error, "{what}: {mend}"
                ),
                Some(Refusal { what, mend }) => tracing::error!(
                    event.code = "database.refuses", error = %error, "{what}: {mend}"
                ),
                None => tracing::warn!(
                    event.code = "database.unreachable", error = %error,
                    "leases cannot be renewed: the database does not answer"
                ),
            }
        }
        self.admission.suspend(what_is_wrong(error));
    }

    /// Publishes the states of the lanes, for health and the projectors.
    fn publish_status(&self) {
        let lanes = Lanes { cut_off: self.cut_off, ..self.lanes.status() };
        self.status.send_if_modified(|published| {
            let changed = *published != lanes;
            *published = lanes;
            changed
        });
    }
}

/// The pause before the next renewal, at most. A lane that was opened may have been the last: look
/// at once whether all are open.
fn pause_after(event: &TaskEvent) -> Duration {
    match event {
        TaskEvent::Recovered { result: Ok(_), .. } => Duration::ZERO,
        _ => RENEW_SOON,
    }
}

impl From<sqlx::Error> for RenewError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_share_the_renewals_while_lanes_change() {
        let settled = Duration::from_millis(500);
        assert_eq!(Progress::Settled.pause(settled), settled);
        let pause = |replicas| Progress::Changing { replicas }.pause(settled);
        assert_eq!(pause(1), RENEW_SOON);
        assert_eq!(pause(4), 4 * RENEW_SOON);
        assert_eq!(pause(200), settled, "a lease must be renewed in time");
    }
}
