//! The contract between a service and the toolkit.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

use super::{Deadlines, Event, Message, Timestamp, WorkingSet};

/// A service: a state, and pure functions on it.
///
/// | function | answers | called with |
/// |---|---|---|
/// | [`decide`](Service::decide) | a command (HTTP, a deadline) | the state, the command, the time |
/// | [`react`](Service::react) | an event of another service | the state, the event, the time |
/// | [`evolve`](Service::evolve) | nothing: it folds an own event into the state | the state, the event |
///
/// All three are pure (law 5), and a decision yields at most one event. Asked again after its own effect, a decision
/// yields nothing (law 7).
pub trait Service: Sized + Debug + Send + Sync + 'static {
    /// The name of the service: its group id, the source of its events, the reader of its positions.
    const NAME: &'static str;
    /// The rows that decisions read and events change.
    type State: WorkingSet;
    /// What the service can be asked to do. Deadlines keep theirs as JSON.
    type Command: Serialize + DeserializeOwned + Debug + Clone + Send + Sync + 'static;
    /// What a command is answered with.
    type Answer: Send + 'static;
    /// Why a command is refused.
    type Rejection: std::error::Error + Send + 'static;
    /// The foreign events that the service reacts to.
    type Input: Message;
    /// The events that the service publishes.
    type Event: Event;

    /// Declares the keys that a message touches, table by table. It is called again when a table has been loaded, so the
    /// keys of a later table may come from rows of an earlier one ([`Rows::peek`](super::Rows::peek)).
    fn needs(ask: Ask<'_, Self>, state: &mut Self::State);

    /// Decides a command.
    ///
    /// # Errors
    /// The reason why the command is refused; then nothing changes.
    fn decide(state: &Self::State, command: &Self::Command, now: Timestamp) -> Result<Option<Self::Event>, Self::Rejection>;

    /// Reacts to an event of another service.
    ///
    /// # Errors
    /// [`Impossible`] where the event cannot happen in this state: it becomes a dead letter, for it means loss.
    fn react(state: &Self::State, input: &Self::Input, now: Timestamp) -> Result<Option<Self::Event>, Impossible>;

    /// Folds an own event into the state. On rows that several sagas share it only adds signed amounts (law 6).
    fn evolve(state: &mut Self::State, event: &Self::Event);

    /// The answer to a command, from the state after it, so that a retry is answered alike.
    fn answer(state: &Self::State, command: &Self::Command) -> Self::Answer;

    /// The deadlines that an event sets and clears for its key.
    fn deadlines(_event: &Self::Event) -> Deadlines<Self> {
        Deadlines::none()
    }
}

/// What is about to be handled: the subject of [`Service::needs`].
#[derive(Debug)]
pub enum Ask<'a, S: Service> {
    /// A command, which will be decided and answered.
    Command(&'a S::Command),
    /// An event of another service, which will be reacted to.
    Input(&'a S::Input),
    /// An own event, which will be folded (at opening and in a rebuild).
    Event(&'a S::Event),
}

impl<S: Service> Clone for Ask<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Service> Copy for Ask<'_, S> {}

/// An event that cannot happen in the state it met: proof of loss or of a fault elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Impossible(pub String);

impl Impossible {
    /// Says what met what, for the dead letter.
    pub fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}
