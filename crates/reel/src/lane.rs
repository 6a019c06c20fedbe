//! A lane: one partition number across all topics of a service, with one owner at a time.
//!
//! The types that say who owns a lane, what it takes to work on it, and what happens to it. Who
//! works on lanes is above: `step`, `relay`, `lanes`.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use crate::database::DatabaseEpoch;
use crate::log::Position;
use crate::model::Partition;

/// The right to write a lane's positions and cursor, as long as the database holds this fencing
/// token and is in this epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) partition: Partition,
    /// The fencing token: new each time the lane is acquired.
    pub(crate) token: Uuid,
    /// The database epoch in which the lane was acquired.
    pub(crate) database_epoch: DatabaseEpoch,
}

/// A lane that is open: what the step and the relay need to work on it.
#[derive(Debug)]
pub(crate) struct OpenLane {
    pub(crate) lease: Lease,
    /// The log epoch: the offset of our `reel.opened`.
    pub(crate) epoch: i64,
    /// The sequence that the relay sends first.
    pub(crate) next_sequence: i64,
    pub(crate) inputs: Vec<OpenInput>,
    /// The keys that are parked.
    pub(crate) parked: HashSet<String>,
}

/// An input of a lane that is open.
#[derive(Debug, Clone)]
pub(crate) struct OpenInput {
    pub(crate) topic: Arc<str>,
    /// From where it is consumed.
    pub(crate) position: Position,
    /// The offset behind its last record when the lane was opened.
    pub(crate) end: i64,
}

/// What a replica does with a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LaneState {
    /// Its lease is being acquired, and may be ours or not.
    Acquiring,
    /// Its lease is ours, and its log is being recovered.
    Recovering,
    /// The replica works on it.
    Open,
    /// The replica works on it, but its relay waits until it has been recovered again.
    Reopening,
    /// It is being handed over.
    Leaving,
    /// It does nothing until an operator has looked.
    Stopped(String),
}

/// What the step and the relay report to the supervisor of the lanes.
#[derive(Debug)]
pub(crate) enum LaneEvent {
    /// A write under this token was refused: another replica has acquired the lane, or the database
    /// is in another epoch.
    Lost { partition: Partition, token: Uuid },
    /// The lane's log must be recovered: somebody else wrote to it, or a record was refused.
    PublishFailed { partition: Partition, token: Uuid, reason: String },
    /// The database says that lanes are closed, or answers again.
    RenewSoon,
    /// A record proves that others of an input are lost: the lane must stop.
    RecordsLost { partition: Partition, token: Uuid, reason: String },
    /// An input lacks what is to be read next, or so it seems.
    InputsBroken,
}

impl LaneState {
    /// Whether the replica works on the lane, and is not about to hand it over.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open | Self::Reopening)
    }

    /// Whether its log is being recovered, for the first time or again.
    pub(crate) fn is_recovering(&self) -> bool {
        self.is_opening() || *self == Self::Reopening
    }

    /// Whether the lane is on its way to be opened for the first time.
    pub(crate) fn is_opening(&self) -> bool {
        matches!(self, Self::Acquiring | Self::Recovering)
    }
}

impl Lease {
    /// A new token for a lane. It counts once the lane was acquired.
    pub(crate) fn new(partition: Partition, database_epoch: &DatabaseEpoch) -> Self {
        Self { partition, token: Uuid::new_v4(), database_epoch: database_epoch.clone() }
    }
}
