//! Scenarios for the pure functions of a service: given, when, then.
//!
//! ```ignore
//! given([stock_received("A", 5)])
//!     .when(payment_completed(o, [("A", 2)]))
//!     .then(inventory_updated(o, [("A", 2)]))
//!     .again()
//!     .then_nothing();
//! ```

use std::fmt::Debug;

use crate::model::{Impossible, Service, Timestamp, WorkingSet};

/// A state: the fold of the given events.
pub struct Given<S: Service> {
    state: S::State,
    now: Timestamp,
}

/// The outcome of a decision, and the message that was decided.
pub struct Outcome<S: Service> {
    given: Given<S>,
    asked: Question<S>,
    decided: Decision<S>,
}

enum Question<S: Service> {
    Input(S::Input),
    Expired(S::Input),
    Command(S::Command),
}

#[derive(Debug)]
enum Decision<S: Service> {
    Event(S::Event),
    Nothing,
    Impossible(Impossible),
    Rejected(S::Rejection),
}

/// Begins a scenario with the events that happened before, which are folded.
pub fn given<S: Service>(events: impl IntoIterator<Item = S::Event>) -> Given<S> {
    let mut state = S::State::complete();
    for event in events {
        S::evolve(&mut state, &event);
    }
    Given { state, now: Timestamp::default() }
}

impl<S: Service> Given<S> {
    /// Sets the time of the decision.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// An event of another service arrives.
    #[must_use]
    pub fn when(self, input: impl Into<S::Input>) -> Outcome<S> {
        self.ask(Question::Input(input.into()))
    }

    /// An event of another service arrives after its saga's deadline.
    #[must_use]
    pub fn when_expired(self, input: impl Into<S::Input>) -> Outcome<S> {
        self.ask(Question::Expired(input.into()))
    }

    /// The service gets a command.
    #[must_use]
    pub fn asked(self, command: S::Command) -> Outcome<S> {
        self.ask(Question::Command(command))
    }

    /// The state after the events.
    pub fn state(&self) -> &S::State {
        &self.state
    }

    fn ask(self, asked: Question<S>) -> Outcome<S> {
        let reacted = |reaction| match reaction {
            Ok(Some(event)) => Decision::Event(event),
            Ok(None) => Decision::Nothing,
            Err(impossible) => Decision::Impossible(impossible),
        };
        let decided = match &asked {
            Question::Input(input) => reacted(S::react(&self.state, input, self.now)),
            Question::Expired(input) => reacted(S::react_expired(&self.state, input, self.now)),
            Question::Command(command) => match S::decide(&self.state, command, self.now) {
                Ok(Some(event)) => Decision::Event(event),
                Ok(None) => Decision::Nothing,
                Err(rejection) => Decision::Rejected(rejection),
            },
        };
        Outcome { given: self, asked, decided }
    }
}

impl<S: Service> Outcome<S>
where
    S::Event: PartialEq,
{
    /// Asserts that the decision was this event.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    #[must_use]
    pub fn then(self, expected: impl Into<S::Event>) -> Self {
        let expected = expected.into();
        assert!(
            matches!(&self.decided, Decision::Event(event) if *event == expected),
            "expected {expected:?}, got {:?}",
            self.decided
        );
        self
    }

    /// Asserts that the decision was to do nothing.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn then_nothing(self) {
        assert!(
            matches!(self.decided, Decision::Nothing),
            "expected nothing, got {:?}",
            self.decided
        );
    }

    /// Asserts that the event cannot happen in this state, and returns the reason.
    ///
    /// # Panics
    /// If it was accepted.
    #[track_caller]
    pub fn then_impossible(self) -> Impossible {
        match self.decided {
            Decision::Impossible(impossible) => impossible,
            other => panic!("expected an impossible event, got {other:?}"),
        }
    }

    /// Asserts that the command was rejected for this reason.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn then_rejected(self, expected: &S::Rejection)
    where
        S::Rejection: PartialEq,
    {
        assert!(
            matches!(&self.decided, Decision::Rejected(rejection) if rejection == expected),
            "expected {expected:?}, got {:?}",
            self.decided
        );
    }

    /// Folds the decided event, and decides the same message again.
    #[must_use]
    pub fn again(mut self) -> Self {
        if let Decision::Event(event) = &self.decided {
            S::evolve(&mut self.given.state, event);
        }
        self.given.ask(self.asked)
    }

    /// Folds the decided event, and continues the scenario.
    #[must_use]
    pub fn and(mut self) -> Given<S> {
        if let Decision::Event(event) = &self.decided {
            S::evolve(&mut self.given.state, event);
        }
        self.given
    }

    /// The answer to the command, from the state after it.
    ///
    /// # Panics
    /// If the message was not a command.
    pub fn answer(mut self) -> S::Answer {
        if let Decision::Event(event) = &self.decided {
            S::evolve(&mut self.given.state, event);
        }
        match &self.asked {
            Question::Command(command) => S::answer(&self.given.state, command),
            Question::Input(_) | Question::Expired(_) => panic!("only a command is answered"),
        }
    }
}
