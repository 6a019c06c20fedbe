//! How many messages a batch takes: as many as the setting says, or fewer while the server does not
//! end such a batch in time. It would not end the same batch the next time either.

use sqlx::Error;
use sqlx::error::DatabaseError;

/// The size of the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchSize {
    most: usize,
    now: usize,
}

impl BatchSize {
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { most, now: most }
    }

    pub(super) fn now(self) -> usize {
        self.now
    }

    /// A batch was committed: later ones may take a little more.
    pub(super) fn committed(&mut self) {
        self.now = (self.now + (self.now / 16).max(1)).min(self.most);
    }

    /// A batch failed: if that was for time, later ones take half of it.
    pub(super) fn failed(&mut self, error: &Error) {
        if took_too_long(error) {
            self.now = (self.now / 2).max(1);
        }
    }
}

/// Whether the server, or we, ended a transaction because of the time that it took.
fn took_too_long(error: &Error) -> bool {
    let state = error.as_database_error().and_then(DatabaseError::code);
    matches!(error, Error::PoolTimedOut) || matches!(state.as_deref(), Some("57014" | "25P03"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_get_smaller_while_they_take_too_long_and_then_grow_again() {
        let mut size = BatchSize::new(500);
        size.failed(&Error::WorkerCrashed);
        size.committed();
        assert_eq!(size.now(), 500);
        size.failed(&Error::PoolTimedOut);
        size.failed(&Error::PoolTimedOut);
        assert_eq!(size.now(), 125);
        size.committed();
        assert_eq!(size.now(), 132);
        (0..100).for_each(|_| size.committed());
        assert_eq!(size.now(), 500);
        (0..20).for_each(|_| size.failed(&Error::PoolTimedOut));
        assert_eq!(size.now(), 1);
        size.committed();
        assert_eq!(size.now(), 2);
    }
}
