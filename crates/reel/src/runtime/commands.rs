//! How commands reach the step, and how its answer comes back.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Gate;
use crate::model::Service;

/// Hands commands to this replica's step. Any replica handles commands for any lane.
pub struct Commands<S: Service> {
    queue: mpsc::Sender<Asked<S>>,
    gate: Arc<Gate>,
}

/// A command that waits for its step.
pub(crate) struct Asked<S: Service> {
    pub(crate) command: S::Command,
    pub(crate) traceparent: Option<String>,
    pub(crate) reply: oneshot::Sender<Result<S::Answer, Refused<S::Rejection>>>,
}

/// Why a command got no answer. Nothing was stored unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Refused<R: std::error::Error> {
    /// The service's own refusal.
    #[error(transparent)]
    Rejected(R),
    /// Not all lanes are open, or the process is stopping: try again later.
    #[error("the service is closed: {0}")]
    Closed(String),
    /// A limit is reached: try again later.
    #[error("the service is busy: {0}")]
    Busy(String),
    /// The event would be larger than its topic takes.
    #[error("the event of {bytes} bytes is larger than the {limit} bytes that its topic takes")]
    TooLarge {
        /// The size of the event.
        bytes: usize,
        /// What the topic takes.
        limit: usize,
    },
    /// The command could not be handled. It may be tried again: what was done is not done twice.
    #[error("the command failed: {0}")]
    Failed(String),
}

impl<S: Service> Commands<S> {
    pub(crate) fn new(limit: usize, gate: Arc<Gate>) -> (Self, mpsc::Receiver<Asked<S>>) {
        let (queue, receiver) = mpsc::channel(limit);
        (Self { queue, gate }, receiver)
    }

    /// Has a command decided and waits for its answer, which comes after the commit.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn ask(&self, command: S::Command, traceparent: Option<String>) -> Result<S::Answer, Refused<S::Rejection>> {
        self.gate.check()?;
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Asked { command, traceparent, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Busy("its queue of commands is full".into()),
            mpsc::error::TrySendError::Closed(_) => Refused::Closed("it is stopping".into()),
        })?;
        answer.await.unwrap_or_else(|_| Err(Refused::Closed("it stopped before the command was handled".into())))
    }
}

impl<S: Service> Clone for Commands<S> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), gate: self.gate.clone() }
    }
}
