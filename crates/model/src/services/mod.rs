//! What the modelled services decide. States and events are interned, so that a world is a handful of small numbers and a
//! function that is pure (law 5) is called once for each state and message it ever meets.

mod functions;
mod interner;
pub mod ledger;
pub mod shop;

use std::fmt::Debug;

/// An event, by its place among all events met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fact(pub u16);

/// A service's folded state, by its place among all states met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Folded(pub u16);

/// What a service made of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// It published this.
    Event(Fact),
    /// It had nothing to say.
    Nothing,
    /// The message cannot happen in this state.
    Impossible(String),
}

/// What may be asked of a service at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// A client wants something of the lane's saga to begin.
    Begin,
    /// A client thinks better of it.
    Cancel,
    /// The deadline of the lane's saga passed.
    Expire,
}

/// What an event does to the deadline of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadlineChange {
    /// There is one now.
    Set,
    /// There is none any more.
    Clear,
    /// As before.
    None,
}

/// A service as the world sees it.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its name, which is also that of its topic.
    pub name: &'static str,
    /// The sites whose topics it reads.
    pub inputs: Vec<usize>,
    /// The facts that its topic holds at the beginning, lane by lane.
    pub script: Vec<Vec<Fact>>,
}

/// What the services of a world are and decide. A lane is the saga of one key, so there is one for each order.
pub trait Services: Debug + Send + Sync {
    /// The services.
    fn sites(&self) -> Vec<Site>;
    /// The states in which they may begin: one for each site.
    fn beginnings(&self) -> Vec<Vec<Folded>>;
    /// What can be asked of a site.
    fn commands(&self, site: usize) -> &'static [Command];
    /// `decide`. A refusal changes nothing, and so is nothing.
    fn decide(&self, site: usize, state: Folded, lane: usize, command: Command) -> Reaction;
    /// `react`.
    fn react(&self, site: usize, state: Folded, fact: Fact) -> Reaction;
    /// `evolve`.
    fn evolve(&self, site: usize, state: Folded, fact: Fact) -> Folded;
    /// `deadlines`.
    fn deadline(&self, site: usize, fact: Fact) -> DeadlineChange;
    /// What is wrong with a state, if anything. A `whole` one has all lanes folded.
    fn fault_in(&self, site: usize, state: Folded, whole: bool) -> Option<&'static str>;
    /// What is wrong between the whole states of all sites.
    fn fault_between(&self, states: &[Folded]) -> Option<&'static str>;
    /// What is unfinished when nothing is left to happen.
    fn unfinished(&self, states: &[Folded]) -> Option<&'static str>;
    /// The event in words.
    fn words(&self, fact: Fact) -> String;
}
