//! Wires the parts of a replica: every channel between them is created here.
//!
//! | from | to | carries |
//! |---|---|---|
//! | HTTP handlers (`Commands`) | step | commands, each with a channel for its answer |
//! | input consumer (a thread) | step | records of the lanes' inputs |
//! | supervisor | step | lanes join and leave |
//! | supervisor, step | relay | lanes join and leave; rows that were just committed |
//! | producer (a thread) | relay | acks |
//! | step, relay | supervisor | [`LaneEvent`]: a lane was lost, needs recovery, … |
//! | other replicas (NOTIFY) | relay, supervisor | new rows; lanes that were freed |
//! | heartbeat | supervisor | when Kafka last answered |
//! | supervisor, step, relay, projectors | health, admission, projectors | [`status`] channels |

use std::sync::Arc;

use futures_util::FutureExt as _;

use rdkafka::error::KafkaError;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::settings::RunSettings;
use crate::admission::{Admission, QueuedCommand};
use crate::database::CommitDurability;
use crate::kafka::{InputConsumer, Polled, RangeReader};
use crate::lane::LaneEvent;
use crate::lanes::{Heartbeat, LaneSupervisor, SupervisorInbox, SupervisorStopped};
use crate::model::{Partition, Service};
use crate::notify::{self, Notifier};
use crate::projection::{Projection, Projector};
use crate::relay::{self, Relay};
use crate::replica::Replica;
use crate::rows::Stored;
use crate::status::{Status, StatusAuthors};
use crate::step::{StepInbox, StepLimits, StepLoop, StepParts, StepStopped};

/// Capacity of the channel of notifications to the relay.
const NOTIFIED: usize = 256;

/// The parts and channel ends that are created before the replica.
pub(super) struct ReplicaParts<S: Service> {
    pub(super) admission: Admission,
    pub(super) authors: StatusAuthors,
    pub(super) status: Status,
    pub(super) consumer: InputConsumer,
    pub(super) records: mpsc::Receiver<Polled>,
    pub(super) commands: mpsc::Receiver<QueuedCommand<S>>,
}

/// The running parts.
pub(super) struct Running {
    pub(super) step: JoinHandle<Result<(), StepStopped>>,
    pub(super) supervisor: JoinHandle<Result<(), SupervisorStopped>>,
    /// Makes the supervisor hand over all lanes. Then it ends, and with it the step and the relay.
    pub(super) stop_lanes: CancellationToken,
    /// Relay and notifications, which end after the lanes were handed over. Each returns its name.
    pub(super) background: JoinSet<&'static str>,
    /// Dropping it ends the projectors. Each returns its name.
    pub(super) projectors: JoinSet<&'static str>,
}

/// Starts the parts of a replica.
pub(super) fn start<S: Service<State: Stored>>(
    replica: Arc<Replica<S>>,
    settings: &RunSettings,
    parts: ReplicaParts<S>,
    projections: Vec<Box<dyn Projection>>,
) -> Result<Running, KafkaError> {
    let ReplicaParts { admission, authors, status, consumer, records, commands } = parts;
    let (events, event_inbox) = mpsc::unbounded_channel::<LaneEvent>();
    let (step_control, step_controls) = mpsc::unbounded_channel();
    let (new_rows, notified) = mpsc::channel::<Vec<Partition>>(NOTIFIED);
    let lanes_freed = Arc::new(Notify::new());
    let (relay, relay_inbox) = relay::channels(notified);
    let (notifier, notifying) = Notifier::new(replica.database.clone());
    let listening = notify::listen(replica.database.clone(), new_rows, lanes_freed.clone());

    let publisher = replica.publisher.clone();
    let relay_loop = Relay::new(publisher, &replica.database, authors.backlog, events.clone());
    let mut background = JoinSet::new();
    background.spawn(relay_loop.run(relay_inbox).map(|()| "relay"));
    background.spawn(notifying.map(|()| "notifier"));
    background.spawn(listening.map(|()| "listener for notifications"));

    // A reader of its own: the heartbeat must not wait for lanes that are replayed.
    let reader = RangeReader::new(replica.reader.config().clone());
    let (heartbeat, beating) = Heartbeat::new(reader, replica.topic.clone());
    background.spawn(beating.map(|()| "heartbeat"));

    if S::SHEDS_LOAD {
        let measured = admission.by_load(replica.pool.clone(), replica.partitions);
        background.spawn(measured.map(|()| "measure of the load"));
    }

    let mut projectors = JoinSet::new();
    for projection in projections {
        let owned = status.lanes.clone();
        let projector = Projector::new(
            projection,
            replica.reader.clone(),
            replica.partitions,
            replica.database.clone(),
            owned,
            authors.projections.clone(),
        )?;
        projectors.spawn(projector.run().map(|()| "projector"));
    }

    let step = StepLoop::new(StepParts {
        replica: replica.clone(),
        admission: admission.clone(),
        consumer,
        relay: relay.clone(),
        notifier,
        events,
        blocked_inputs: authors.blocked_inputs,
        limits: limits(settings),
    });
    let step = tokio::spawn(step.run(StepInbox { controls: step_controls, records, commands }));

    let stop_lanes = CancellationToken::new();
    let supervisor = LaneSupervisor::new(
        replica,
        settings.lease,
        admission,
        authors.lanes,
        step_control,
        relay,
        heartbeat,
    );
    let inbox = SupervisorInbox { events: event_inbox, lanes_freed };
    let supervisor = tokio::spawn(supervisor.run(inbox, stop_lanes.clone()));
    Ok(Running { step, supervisor, stop_lanes, background, projectors })
}

fn limits(settings: &RunSettings) -> StepLimits {
    let durability = if settings.async_commit {
        CommitDurability::Asynchronous
    } else {
        CommitDurability::Durable
    };
    StepLimits {
        batch: usize::try_from(settings.batch).unwrap_or(usize::MAX),
        event_bytes: settings.max_event_bytes,
        catch_up: settings.catch_up,
        durability,
    }
}
