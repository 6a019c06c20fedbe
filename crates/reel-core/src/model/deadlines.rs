//! Deadlines, which events set and clear; they are due by the database's clock.

use super::{Service, Timestamp};

/// The changes that an event makes to the deadlines of its key.
#[derive(Debug)]
pub struct Deadlines<S: Service>(Vec<DeadlineChange<S>>);

/// A change to one deadline. A key and a name identify a deadline.
#[derive(Debug)]
pub enum DeadlineChange<S: Service> {
    /// Sets a deadline, or moves it: at `due_at` the command is decided, unless the deadline is
    /// cleared before.
    Set {
        /// The deadline's name, unique within its key.
        name: &'static str,
        /// When it is due.
        due_at: Timestamp,
        /// The command that is decided then.
        command: S::Command,
    },
    /// Clears the deadline, if there is one.
    Clear {
        /// The deadline's name.
        name: &'static str,
    },
}

impl<S: Service> Deadlines<S> {
    /// No change.
    #[must_use]
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// One change: sets a deadline.
    #[must_use]
    pub fn set(name: &'static str, due_at: Timestamp, command: S::Command) -> Self {
        Self(vec![DeadlineChange::Set { name, due_at, command }])
    }

    /// One change: clears a deadline.
    #[must_use]
    pub fn clear(name: &'static str) -> Self {
        Self(vec![DeadlineChange::Clear { name }])
    }

    /// Both changes, in this order.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The earliest deadline of a saga after an event with these changes, if `before` was the
    /// earliest before it. One that is cleared ends what was to be done in time.
    #[must_use]
    pub fn earliest(&self, before: Option<Timestamp>) -> Option<Timestamp> {
        self.0.iter().fold(before, |earliest, change| match change {
            DeadlineChange::Set { due_at, .. } => {
                Some(earliest.map_or(*due_at, |earliest| earliest.min(*due_at)))
            }
            DeadlineChange::Clear { .. } => None,
        })
    }
}

impl<S: Service> IntoIterator for Deadlines<S> {
    type Item = DeadlineChange<S>;
    type IntoIter = std::vec::IntoIter<DeadlineChange<S>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
