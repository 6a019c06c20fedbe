//! The gate before the step: whether commands are let in, and what health shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Refused;
use crate::lanes::LaneState;
use crate::model::Partition;

/// Whether commands are let in, and why not. It begins closed.
#[derive(Debug)]
pub(crate) struct Gate {
    closed: RwLock<Option<String>>,
    lanes_open: AtomicBool,
    stopping: AtomicBool,
    backlog: RwLock<Backlog>,
    backlog_limit: usize,
    lanes: RwLock<Lanes>,
    held: RwLock<Vec<String>>,
    projections: RwLock<BTreeMap<&'static str, Option<String>>>,
}

/// Committed events that wait to be published.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backlog {
    /// How many.
    pub(crate) events: usize,
    /// How long the oldest of them has waited.
    pub(crate) oldest: Duration,
}

/// The lanes of this replica, for health.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lanes {
    pub(crate) states: BTreeMap<i32, LaneState>,
    pub(crate) waiting: BTreeMap<i32, String>,
}

impl Gate {
    pub(crate) fn new(backlog_limit: usize) -> Self {
        Self {
            closed: RwLock::new(Some("it is starting".into())),
            lanes_open: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            backlog: RwLock::default(),
            backlog_limit,
            lanes: RwLock::default(),
            held: RwLock::default(),
            projections: RwLock::default(),
        }
    }

    /// All lanes are open for the server's run: commands and inputs may be decided.
    pub(crate) fn open(&self) {
        self.lanes_open.store(true, Ordering::Release);
        self.set(None);
    }

    /// Not all lanes are open.
    pub(crate) fn lanes_closed(&self) {
        self.lanes_open.store(false, Ordering::Release);
        self.set(Some("its lanes are not open yet".into()));
    }

    pub(crate) fn lanes_open(&self) -> bool {
        self.lanes_open.load(Ordering::Acquire)
    }

    /// No command is let in any more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Closes the gate with a reason, or opens it with none.
    pub(crate) fn set(&self, closed: Option<String>) {
        *self.closed.write().unwrap_or_else(std::sync::PoisonError::into_inner) = closed;
    }

    /// Why the gate is closed, if it is.
    pub(crate) fn closed(&self) -> Option<String> {
        if self.stopping.load(Ordering::Acquire) {
            return Some("it is stopping".into());
        }
        self.closed.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The committed events of the service that wait to be published.
    pub(crate) fn set_backlog(&self, backlog: Backlog) {
        *self.backlog.write().unwrap_or_else(std::sync::PoisonError::into_inner) = backlog;
    }

    pub(crate) fn backlog(&self) -> Backlog {
        *self.backlog.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The lanes of this replica, and what those wait for that have long not been open.
    pub(crate) fn set_lanes(&self, states: BTreeMap<i32, LaneState>, waiting: BTreeMap<i32, String>) {
        *self.lanes.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Lanes { states, waiting };
    }

    /// The lanes of this replica that are open, and not being handed over.
    pub(crate) fn open_lanes(&self) -> BTreeSet<Partition> {
        let lanes = self.lanes.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let open = lanes.states.iter().filter(|(_, state)| matches!(state, LaneState::Open | LaneState::Reopening));
        open.map(|(partition, _)| Partition(*partition)).collect()
    }

    pub(crate) fn lanes(&self) -> Lanes {
        self.lanes.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The inputs that wait for missing numbers, as `topic/partition`.
    pub(crate) fn set_held(&self, held: Vec<String>) {
        *self.held.write().unwrap_or_else(std::sync::PoisonError::into_inner) = held;
    }

    pub(crate) fn held(&self) -> Vec<String> {
        self.held.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Why a projection stands, or none where it goes on.
    pub(crate) fn set_projection(&self, name: &'static str, stands: Option<String>) {
        self.projections.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(name, stands);
    }

    pub(crate) fn projections(&self) -> BTreeMap<&'static str, Option<String>> {
        self.projections.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(super) fn check<R: std::error::Error>(&self) -> Result<(), Refused<R>> {
        if let Some(reason) = self.closed() {
            return Err(Refused::Closed(reason));
        }
        let (backlog, limit) = (self.backlog().events, self.backlog_limit);
        if backlog > limit {
            return Err(Refused::Busy(format!("{backlog} committed events wait to be published, more than {limit}")));
        }
        Ok(())
    }
}
