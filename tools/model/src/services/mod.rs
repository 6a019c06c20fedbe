//! The decisions of the modelled services. States and events are interned, so that a world is a
//! handful of small numbers, and a function, which is pure (law 5), is called once per state and
//! message.

mod functions;
mod interner;
pub mod ledger;
pub mod shop;

use std::fmt::Debug;

/// An event, by its index among all events seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fact(pub u16);

/// The state of a service, by its index among all states seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Folded(pub u16);

/// The answer of a service to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// It publishes this event.
    Event(Fact),
    /// It publishes nothing.
    Nothing,
    /// The message is impossible in this state.
    Impossible(String),
}

/// A command that may come at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// A client begins the lane's saga.
    Begin,
    /// A client cancels it.
    Cancel,
    /// The deadline of the lane's saga has passed.
    Expire,
}

/// The effect of an event on the deadline of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadlineChange {
    /// It is set.
    Set,
    /// It is cleared.
    Clear,
    /// It stays as it is.
    None,
}

/// A service as a part of the world.
#[derive(Debug, Clone)]
pub struct Site {
    /// The name of the service and of its topic.
    pub name: &'static str,
    /// The sites whose topics it reads.
    pub inputs: Vec<usize>,
    /// The events that its topic holds initially, lane by lane.
    pub script: Vec<Vec<Fact>>,
}

/// The services of a world and their decisions. A lane is the saga of one key, so the shop has one
/// lane per order.
pub trait Services: Debug + Send + Sync {
    /// The services as sites.
    fn sites(&self) -> Vec<Site>;
    /// The combinations of states in which they may begin, with one state per site.
    fn initial_states(&self) -> Vec<Vec<Folded>>;
    /// The commands of a site.
    fn commands(&self, site: usize) -> &'static [Command];
    /// Calls `decide`. A rejection changes nothing and counts as [`Reaction::Nothing`].
    fn decide(&self, site: usize, state: Folded, lane: usize, command: Command) -> Reaction;
    /// Calls `react`.
    fn react(&self, site: usize, state: Folded, fact: Fact) -> Reaction;
    /// Calls `evolve`.
    fn evolve(&self, site: usize, state: Folded, fact: Fact) -> Folded;
    /// Calls `deadlines`.
    fn deadline(&self, site: usize, fact: Fact) -> DeadlineChange;
    /// What is wrong with a state, if anything. A `whole` state has all lanes recovered.
    fn fault_in(&self, site: usize, state: Folded, whole: bool) -> Option<&'static str>;
    /// The contradiction between the whole states of all sites, if there is one.
    fn fault_between(&self, states: &[Folded]) -> Option<&'static str>;
    /// What would be unfinished if nothing were left to happen.
    fn unfinished(&self, states: &[Folded]) -> Option<&'static str>;
    /// The event in words.
    fn words(&self, fact: Fact) -> String;
}
