//! The production functions of one service, on interned states.

use std::fmt::Debug;
use std::sync::Arc;

use reel_core::model::{DeadlineChange as Change, Savepoint, Service, Timestamp, WorkingSet};

use super::interner::{Interner, Memo};
use super::{DeadlineChange, Folded};

/// The states that a service has reached, and its functions.
#[derive(Debug)]
pub(super) struct Functions<S: Service<State: Debug>> {
    states: Interner<S::State>,
    faults: Memo<(Folded, bool), Option<&'static str>>,
}

impl<S: Service<State: Debug + Clone>> Functions<S> {
    pub(super) fn new() -> Self {
        Self { states: Interner::new(), faults: Memo::new() }
    }

    /// The state after these events.
    pub(super) fn fold(&self, events: impl IntoIterator<Item = S::Event>) -> Folded {
        let mut state = S::State::complete();
        events.into_iter().for_each(|event| S::evolve(&mut state, &event));
        self.intern(state)
    }

    pub(super) fn state(&self, folded: Folded) -> Arc<S::State> {
        self.states.value(folded.0)
    }

    pub(super) fn decide(&self, folded: Folded, command: &S::Command) -> Option<S::Event> {
        S::decide(&self.state(folded), command, Timestamp::default()).ok().flatten()
    }

    pub(super) fn react(
        &self,
        folded: Folded,
        input: &S::Input,
    ) -> Result<Option<S::Event>, String> {
        S::react(&self.state(folded), input, Timestamp::default())
            .map_err(|impossible| impossible.to_string())
    }

    pub(super) fn evolve(&self, folded: Folded, event: &S::Event) -> Folded {
        let mut state = S::State::clone(&self.state(folded));
        S::evolve(&mut state, event);
        self.intern(state)
    }

    pub(super) fn deadline(event: &S::Event) -> DeadlineChange {
        S::deadlines(event).into_iter().last().map_or(DeadlineChange::None, |change| match change {
            Change::Set { .. } => DeadlineChange::Set,
            Change::Clear { .. } => DeadlineChange::Clear,
        })
    }

    pub(super) fn fault(
        &self,
        folded: Folded,
        whole: bool,
        check: fn(&S::State, bool) -> Option<&'static str>,
    ) -> Option<&'static str> {
        self.faults.get_or_compute((folded, whole), || check(&self.state(folded), whole))
    }

    /// Interns a state. Its changes are kept first, so that equal rows print alike whatever led to
    /// them.
    fn intern(&self, mut state: S::State) -> Folded {
        state.each(&mut |table: &mut dyn Savepoint| table.release());
        Folded(self.states.intern(state))
    }
}
