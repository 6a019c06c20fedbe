//! How commands reach the step, and how its answers come back.

use std::time::Duration;

use reel_http::Problem;
use tokio::sync::{mpsc, oneshot};

use super::Admission;
use crate::model::Service;

/// Hands commands to this replica's step. Any replica handles commands for any lane.
pub struct Commands<S: Service> {
    queue: mpsc::Sender<QueuedCommand<S>>,
    admission: Admission,
    answer_within: Duration,
}

/// A command that waits for its step.
pub(crate) struct QueuedCommand<S: Service> {
    pub(crate) command: S::Command,
    pub(crate) traceparent: Option<String>,
    pub(crate) reply: oneshot::Sender<Result<S::Answer, CommandError<S::Rejection>>>,
}

/// Why a command was not answered. Nothing was stored unless it says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError<R: std::error::Error> {
    /// The service's own refusal.
    #[error(transparent)]
    Rejected(R),
    /// Not all lanes are open, or the process is stopping: try again later.
    #[error("the service is closed: {0}")]
    Closed(String),
    /// A limit is reached: try again later.
    #[error("the service is busy: {0}")]
    Busy(String),
    /// More sagas are open than can end in time: try again after `retry_after`.
    #[error("{open} sagas are open, which need {} s to end", needed.as_secs())]
    Overloaded {
        /// The sagas that are open.
        open: u64,
        /// Time that they need to end.
        needed: Duration,
        /// Time after which there is room for more.
        retry_after: Duration,
    },
    /// No answer came in time. It may be done by then: sent again under the same identity, it is
    /// not done twice.
    #[error(
        "no answer came within {}; it may have been done: send it again as it was",
        humantime::format_duration(*.0)
    )]
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
    pub(crate) fn new(
        limit: usize,
        answer_within: Duration,
        admission: Admission,
    ) -> (Self, mpsc::Receiver<QueuedCommand<S>>) {
        let (queue, receiver) = mpsc::channel(limit);
        (Self { queue, admission, answer_within }, receiver)
    }

    /// Queues a command for the next step and waits for its answer, which comes after the commit.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn ask(
        &self,
        command: S::Command,
        traceparent: Option<String>,
    ) -> Result<S::Answer, CommandError<S::Rejection>> {
        self.admission.check()?;
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(QueuedCommand { command, traceparent, reply }).map_err(|error| {
            match error {
                mpsc::error::TrySendError::Full(_) => {
                    CommandError::Busy("its queue of commands is full".into())
                }
                mpsc::error::TrySendError::Closed(_) => {
                    CommandError::Closed("it is stopping".into())
                }
            }
        })?;
        match tokio::time::timeout(self.answer_within, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| {
                Err(CommandError::Closed("it stopped before the command was handled".into()))
            }),
            Err(_) => Err(CommandError::TimedOut(self.answer_within)),
        }
    }
}

/// The HTTP answer to a command that was not answered.
impl<R: std::error::Error + Into<Problem>> From<CommandError<R>> for Problem {
    fn from(error: CommandError<R>) -> Self {
        match error {
            CommandError::Rejected(rejection) => rejection.into(),
            CommandError::Closed(_) | CommandError::Busy(_) | CommandError::TimedOut(_) => {
                Self::unavailable(error.to_string())
            }
            CommandError::Overloaded { retry_after, .. } => {
                Self::unavailable(error.to_string()).retry_after(retry_after)
            }
            CommandError::TooLarge { .. } => Self::too_large(error.to_string()),
            CommandError::Failed(_) => Self::internal(),
        }
    }
}

impl<S: Service> QueuedCommand<S> {
    /// Whether nobody waits for the answer any longer. Such a command need not be begun.
    pub(crate) fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }
}

impl<S: Service> Clone for Commands<S> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            admission: self.admission.clone(),
            answer_within: self.answer_within,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::tables::cursors::Backlog;
    use crate::tests::{Credit, Till, credit};

    fn ask(commands: &Commands<Till>, command: Credit) -> Option<String> {
        let answer = futures_util::FutureExt::now_or_never(commands.ask(command, None));
        answer.and_then(Result::err).map(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_closed_service_a_backlog_over_its_limit_and_a_full_queue_refuse_commands() {
        let (backlog, backlog_read) = watch::channel(Backlog::default());
        let stop = CancellationToken::new();
        let admission = Admission::new(backlog_read, 10, stop.clone());
        let within = Duration::from_secs(1);
        let (commands, _inbox) = Commands::<Till>::new(1, within, admission.clone());
        let refused = |nth: &str| ask(&commands, credit(nth, "x", 1)).unwrap_or_default();
        assert_eq!(refused("a"), "the service is closed: it is starting");

        admission.open();
        backlog.send_replace(Backlog { events: 11, ..Backlog::default() });
        let busy = "the service is busy: 11 committed events wait to be published, more than 10";
        assert_eq!(refused("a"), busy);

        backlog.send_replace(Backlog { events: 10, ..Backlog::default() });
        assert_eq!(refused("a"), "", "it waits for its step");
        assert_eq!(refused("b"), "the service is busy: its queue of commands is full");

        stop.cancel();
        assert_eq!(refused("c"), "the service is closed: it is stopping");
    }

    #[test]
    fn a_suspended_service_goes_on_deciding_what_is_at_work_and_a_closed_one_does_not() {
        let (_, backlog) = watch::channel(Backlog::default());
        let admission = Admission::new(backlog, 10, CancellationToken::new());
        admission.suspend("the database is unreachable");
        assert!(!admission.may_decide(), "it was not open");

        admission.open();
        admission.suspend("the database is unreachable");
        assert!(admission.may_decide());
        assert_eq!(admission.closed().as_deref(), Some("the database is unreachable"));

        admission.close();
        assert!(!admission.may_decide());
    }

    #[tokio::test]
    async fn a_command_without_an_answer_is_given_up_in_time() {
        let (_, backlog) = watch::channel(Backlog::default());
        let admission = Admission::new(backlog, 10, CancellationToken::new());
        admission.open();
        let within = Duration::from_millis(1);
        let (commands, mut inbox) = Commands::<Till>::new(1, within, admission);
        let error = commands.ask(credit("a", "x", 1), None).await.expect_err("nobody handles it");
        let expected = "no answer came within 1ms; it may have been done: send it again as it was";
        assert_eq!(error.to_string(), expected);
        assert!(inbox.recv().await.expect("it is in the queue").is_given_up());
    }
}
