//! How commands reach the step, and how its answer comes back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Gate;
use crate::model::Service;

/// Hands commands to this replica's step. Any replica handles commands for any lane.
pub struct Commands<S: Service> {
    queue: mpsc::Sender<Asked<S>>,
    gate: Arc<Gate>,
    answer_within: Duration,
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
    /// No answer came in time. It may be done by then: sent again under the same identity, it is not done twice.
    #[error("no answer came within {}; it may have been done: send it again as it was", humantime::format_duration(*.0))]
    TimedOut(Duration),
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
    pub(crate) fn new(limit: usize, answer_within: Duration, gate: Arc<Gate>) -> (Self, mpsc::Receiver<Asked<S>>) {
        let (queue, receiver) = mpsc::channel(limit);
        (Self { queue, gate, answer_within }, receiver)
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
        match tokio::time::timeout(self.answer_within, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(Refused::Closed("it stopped before the command was handled".into()))),
            Err(_) => Err(Refused::TimedOut(self.answer_within)),
        }
    }
}

impl<S: Service> Asked<S> {
    /// Whether nobody waits for the answer any more. Such a command need not be begun.
    pub(crate) fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }
}

impl<S: Service> Clone for Commands<S> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), gate: self.gate.clone(), answer_within: self.answer_within }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Backlog;
    use crate::tests::{Credit, Till, credit};

    fn ask(commands: &Commands<Till>, command: Credit) -> Option<String> {
        let answer = futures_util::FutureExt::now_or_never(commands.ask(command, None));
        answer.and_then(Result::err).map(|refused| refused.to_string())
    }

    #[tokio::test]
    async fn a_gate_that_is_closed_a_backlog_over_its_limit_and_a_full_queue_refuse_commands() {
        let gate = Arc::new(Gate::new(10));
        let (commands, _inbox) = Commands::<Till>::new(1, Duration::from_secs(1), gate.clone());
        assert_eq!(ask(&commands, credit("a", "x", 1)).as_deref(), Some("the service is closed: it is starting"));
        gate.open();
        gate.set_backlog(Backlog { events: 11, ..Backlog::default() });
        let refused = ask(&commands, credit("a", "x", 1));
        assert_eq!(refused.as_deref(), Some("the service is busy: 11 committed events wait to be published, more than 10"));
        gate.set_backlog(Backlog { events: 10, ..Backlog::default() });
        assert_eq!(ask(&commands, credit("a", "x", 1)), None, "it waits for its step");
        assert_eq!(ask(&commands, credit("b", "x", 1)).as_deref(), Some("the service is busy: its queue of commands is full"));
        gate.stop();
        assert_eq!(ask(&commands, credit("c", "x", 1)).as_deref(), Some("the service is closed: it is stopping"));
    }

    #[tokio::test]
    async fn a_command_without_an_answer_is_given_up_in_time() {
        let gate = Arc::new(Gate::new(10));
        let (commands, mut inbox) = Commands::<Till>::new(1, Duration::from_millis(1), gate.clone());
        gate.open();
        let refused = commands.ask(credit("a", "x", 1), None).await.expect_err("nobody handles it");
        assert_eq!(refused.to_string(), "no answer came within 1ms; it may have been done: send it again as it was");
        assert!(inbox.recv().await.expect("it is in the queue").is_given_up());
    }
}
