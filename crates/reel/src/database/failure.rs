//! Errors of the database, sorted by what the caller does.

use sqlx::Error;
use sqlx::error::DatabaseError;

/// What an error of the database asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Another transaction was in the way: run it again.
    Conflict,
    /// A lock did not come in time: only those that need the row wait.
    Locked,
    /// A value cannot be stored: look for the one message that brings it.
    Poison,
    /// The server cannot be reached, ended the session, or has no tables yet: wait and connect again.
    Lost,
    /// Neither waiting nor another batch will help.
    Broken,
}

impl Failure {
    /// Sorts an error by its SQLSTATE (PostgreSQL documentation, appendix A).
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::Database(error) => Self::of_state(error.as_ref()),
            Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed => {
                Self::Lost
            }
            _ => Self::Broken,
        }
    }

    fn of_state(error: &dyn DatabaseError) -> Self {
        let state = error.code().unwrap_or_default();
        match (state.as_ref(), state.get(..2).unwrap_or_default()) {
            ("40001" | "40P01", _) => Self::Conflict,
            // Somebody else wrote a row that was absent when this batch read it.
            ("23505", _) if error.constraint().is_some_and(|constraint| constraint.ends_with("_pkey")) => Self::Conflict,
            ("55P03", _) => Self::Locked,
            // 54: a value that is too large for an index, say
            (_, "22" | "23" | "54") => Self::Poison,
            // No such table, schema, function, database or sequence: not migrated, or made anew under us.
            ("42P01" | "3F000" | "42883" | "3D000" | "XX000", _) => Self::Lost,
            (_, "08" | "25" | "53" | "57" | "58") => Self::Lost,
            _ => Self::Broken,
        }
    }
}
