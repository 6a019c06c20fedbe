//! The status of a replica: what its parts publish, and health reads. Each watch channel has one
//! kind of author; nothing is decided by what stands here except admission by the backlog.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use crate::lane::LaneState;
use crate::model::Partition;
use crate::tables::cursors::Backlog;

/// The readers' side.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) lanes: watch::Receiver<Lanes>,
    pub(crate) blocked_inputs: watch::Receiver<Vec<String>>,
    pub(crate) projections: watch::Receiver<Projections>,
    pub(crate) backlog: watch::Receiver<Backlog>,
    pub(crate) warnings: watch::Receiver<Vec<String>>,
}

/// The authors' side.
#[derive(Debug, Clone)]
pub(crate) struct StatusAuthors {
    /// By the supervisor.
    pub(crate) lanes: watch::Sender<Lanes>,
    /// By the step: the inputs that are blocked on a gap, as `topic/partition`.
    pub(crate) blocked_inputs: watch::Sender<Vec<String>>,
    /// By each projection: why it is not going on, if it is not.
    pub(crate) projections: watch::Sender<Projections>,
    /// By the relay.
    pub(crate) backlog: watch::Sender<Backlog>,
    /// At the start: what an operator should know, though the service runs.
    pub(crate) warnings: watch::Sender<Vec<String>>,
}

/// Why a projection is not going on, by the projection's name; `None` while it does.
pub(crate) type Projections = BTreeMap<&'static str, Option<String>>;

/// The lanes of this replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lanes {
    pub(crate) states: BTreeMap<i32, LaneState>,
    /// What lanes wait for that have not been open for long.
    pub(crate) waiting: BTreeMap<i32, String>,
    /// Whether Kafka answers other replicas and not this one, which therefore gives its lanes up.
    pub(crate) cut_off: bool,
}

/// Makes the channels.
pub(crate) fn channels() -> (StatusAuthors, Status) {
    let (lanes, lanes_read) = watch::channel(Lanes::default());
    let (blocked_inputs, blocked_inputs_read) = watch::channel(Vec::new());
    let (projections, projections_read) = watch::channel(Projections::new());
    let (backlog, backlog_read) = watch::channel(Backlog::default());
    let (warnings, warnings_read) = watch::channel(Vec::new());
    let authors = StatusAuthors { lanes, blocked_inputs, projections, backlog, warnings };
    let status = Status {
        lanes: lanes_read,
        blocked_inputs: blocked_inputs_read,
        projections: projections_read,
        backlog: backlog_read,
        warnings: warnings_read,
    };
    (authors, status)
}

impl Lanes {
    /// The lanes that are open and not being handed over.
    pub(crate) fn open(&self) -> BTreeSet<Partition> {
        let lanes = self.states.iter().filter(|(_, state)| state.is_open());
        lanes.map(|(partition, _)| Partition(*partition)).collect()
    }
}
