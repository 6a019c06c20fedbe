//! The contract between a service and the toolkit.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

use super::{Deadlines, Event, Message, Timestamp, WorkingSet};

/// A service: a state, and pure functions on it.
///
/// | function | what it does | arguments |
/// |---|---|---|
/// | [`decide`](Service::decide) | decides a command (HTTP, a deadline) | state, command, time |
/// | [`react`](Service::react) | reacts to an event of another service | state, event, time |
/// | [`evolve`](Service::evolve) | folds an own event into the state | state, event |
///
/// [`react_expired`](Service::react_expired) may take the place of `react` once the saga's deadline
/// has passed.
///
/// All are pure (law 5), and a decision yields at most one event. If the same message is
/// decided again after that event was folded, it yields nothing (law 7).
pub trait Service: Sized + Debug + Send + Sync + 'static {
    /// The name of the service: its consumer group, the source of its events and the reader of its
    /// positions.
    const NAME: &'static str;
    /// Whether commands get 503 while more sagas are open than can end in time, by the rate at which
    /// sagas end. A saga is open while it has a deadline. Set it if sagas end as fast as services
    /// work; not if they wait for people, or if a deadline is a timer that is meant to fire.
    const SHEDS_LOAD: bool = false;
    /// The rows that decisions read and events change.
    type State: WorkingSet;
    /// The commands of the service. Those of deadlines are stored as JSON.
    type Command: Serialize + DeserializeOwned + Debug + Clone + Send + Sync + 'static;
    /// The answer to a command that was accepted.
    type Answer: Send + 'static;
    /// Why a command is rejected.
    type Rejection: std::error::Error + Send + 'static;
    /// The foreign events that the service reacts to.
    type Input: Message;
    /// The events that the service publishes.
    type Event: Event;

    /// Declares the keys that a message touches, table by table. The toolkit calls it again after
    /// it has loaded a table, so the keys of a later table may come from rows of an earlier one
    /// ([`Rows::peek`](super::Rows::peek)).
    fn read_set(trigger: Trigger<'_, Self>, state: &mut Self::State);

    /// Decides a command.
    ///
    /// # Errors
    /// If the command is rejected; then nothing changes.
    fn decide(
        state: &Self::State,
        command: &Self::Command,
        now: Timestamp,
    ) -> Result<Option<Self::Event>, Self::Rejection>;

    /// Reacts to an event of another service.
    ///
    /// # Errors
    /// If the event cannot happen in this state, with [`Impossible`]. It becomes a dead letter,
    /// because it proves that something was lost.
    fn react(
        state: &Self::State,
        input: &Self::Input,
        now: Timestamp,
    ) -> Result<Option<Self::Event>, Impossible>;

    /// Reacts to an event of a saga whose deadline has passed
    /// ([`Causality::expires_at`](crate::wire::Causality::expires_at), by this service's database):
    /// the service that set the deadline undoes the saga, or has done so. A service that does not
    /// begin what would be undone keeps its time, when there is too little, for sagas that can still
    /// end well; it says so by the event with which it refuses. By default as [`react`](Self::react).
    ///
    /// # Errors
    /// As [`react`](Self::react).
    fn react_expired(
        state: &Self::State,
        input: &Self::Input,
        now: Timestamp,
    ) -> Result<Option<Self::Event>, Impossible> {
        Self::react(state, input, now)
    }

    /// Folds an own event into the state. In rows that several sagas share, it may only add signed
    /// amounts (law 6).
    fn evolve(state: &mut Self::State, event: &Self::Event);

    /// The answer to a command, from the state after it, so that a retry gets the same answer.
    fn answer(state: &Self::State, command: &Self::Command) -> Self::Answer;

    /// The deadlines that an event sets and clears for its key.
    fn deadlines(_event: &Self::Event) -> Deadlines<Self> {
        Deadlines::none()
    }
}

/// The message that is about to be handled, and whose keys [`Service::read_set`] declares.
#[derive(Debug)]
pub enum Trigger<'a, S: Service> {
    /// A command, to be decided and answered.
    Command(&'a S::Command),
    /// An event of another service, to be reacted to.
    Input(&'a S::Input),
    /// An own event, to be folded (in recovery and in a rebuild).
    Event(&'a S::Event),
}

impl<S: Service> Clone for Trigger<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Service> Copy for Trigger<'_, S> {}

/// An event that cannot happen in the current state: proof of loss or of a fault elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Impossible(pub String);

impl Impossible {
    /// An event that is impossible for this reason, which the dead letter shows.
    pub fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}
