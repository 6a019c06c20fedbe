//! Admission: whether this replica may decide anything, and lets commands in.

mod commands;
mod load;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use commands::QueuedCommand;
pub use commands::{CommandError, Commands};
pub(crate) use load::{Load, Overload};

use crate::database::ConnectionPool;
use crate::model::Partitions;
use crate::tables::cursors::Backlog;

/// Decides who is let in. Cheap to clone; all clones share one state.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    lanes: watch::Sender<LanesOpen>,
    backlog: watch::Receiver<Backlog>,
    backlog_limit: usize,
    load: watch::Sender<Load>,
    /// The commands that were let in since the load was measured.
    let_in: Arc<AtomicU64>,
    stop: CancellationToken,
}

/// Whether all lanes of the service are open, as far as this replica knows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LanesOpen {
    /// They are not, for this reason: nothing is decided.
    No(String),
    /// They are, but the database cannot be asked whether that is still so, for this reason: what
    /// is at work goes on under its fences, and no command is let in.
    Unconfirmed(String),
    /// They are.
    Yes,
}

impl Admission {
    /// Closed, until lanes are open.
    pub(crate) fn new(
        backlog: watch::Receiver<Backlog>,
        backlog_limit: usize,
        stop: CancellationToken,
    ) -> Self {
        let (lanes, _) = watch::channel(LanesOpen::No("it is starting".into()));
        let (load, _) = watch::channel(Load::default());
        Self { lanes, backlog, backlog_limit, load, let_in: Arc::default(), stop }
    }

    /// Lets commands in by the load, which the returned task measures until the process stops.
    pub(crate) fn by_load(
        &self,
        database: ConnectionPool,
        partitions: Partitions,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (load, let_in) = (self.load.clone(), self.let_in.clone());
        load::measure(database, partitions, load, let_in, self.stop.clone())
    }

    /// The load, if commands are let in by it.
    pub(crate) fn load(&self) -> Load {
        *self.load.borrow()
    }

    /// All lanes are open for the database's epoch.
    pub(crate) fn open(&self) {
        self.set(LanesOpen::Yes);
    }

    /// Not all lanes are open: the default reason.
    pub(crate) fn close(&self) {
        self.close_because("its lanes are not open yet");
    }

    /// Not all lanes are open, or nobody knows, for this reason.
    pub(crate) fn close_because(&self, reason: impl Into<String>) {
        self.set(LanesOpen::No(reason.into()));
    }

    /// Lets no command in; if lanes were open, what is at work goes on.
    pub(crate) fn suspend(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.lanes.send_modify(|lanes| {
            *lanes = match lanes {
                LanesOpen::No(_) => LanesOpen::No(reason),
                LanesOpen::Unconfirmed(_) | LanesOpen::Yes => LanesOpen::Unconfirmed(reason),
            };
        });
    }

    /// Whether messages may be decided.
    pub(crate) fn may_decide(&self) -> bool {
        !matches!(*self.lanes.borrow(), LanesOpen::No(_))
    }

    /// Why no command is let in, if so.
    pub(crate) fn closed(&self) -> Option<String> {
        if self.stop.is_cancelled() {
            return Some("it is stopping".into());
        }
        match &*self.lanes.borrow() {
            LanesOpen::No(reason) | LanesOpen::Unconfirmed(reason) => Some(reason.clone()),
            LanesOpen::Yes => None,
        }
    }

    /// Lets a command in, or says why not.
    fn check<R: std::error::Error>(&self) -> Result<(), CommandError<R>> {
        if let Some(reason) = self.closed() {
            return Err(CommandError::Closed(reason));
        }
        let (backlog, limit) = (self.backlog.borrow().events, self.backlog_limit);
        if backlog > limit {
            return Err(CommandError::Busy(format!(
                "{backlog} committed events wait to be published, more than {limit}"
            )));
        }

        let Load { open, overload } = self.load();
        match overload {
            Some(overload) => Err(CommandError::Overloaded {
                open,
                needed: overload.needed,
                retry_after: overload.needed.saturating_sub(overload.allowed),
            }),
            None => {
                self.let_in.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn set(&self, lanes: LanesOpen) {
        self.lanes.send_if_modified(|current| {
            let changed = *current != lanes;
            *current = lanes;
            changed
        });
    }
}
