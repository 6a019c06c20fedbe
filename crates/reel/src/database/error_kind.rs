//! Errors of the database, classified by what the caller does about them.

use sqlx::Error;
use sqlx::error::DatabaseError;

/// What the caller does about an error of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatabaseErrorKind {
    /// Another transaction interfered: run this one again.
    Conflict,
    /// A lock was not granted in time: let only the messages that need the row wait.
    Locked,
    /// A value cannot be stored, or a row that is stored cannot be read: find the message that has
    /// or needs it.
    Poison,
    /// The server cannot be reached, ended the session, has no tables yet or refuses something that
    /// an operator can grant: wait and connect again.
    Lost,
    /// Neither waiting nor another batch can help: stop.
    Broken,
}

impl DatabaseErrorKind {
    /// Classifies an error by its SQLSTATE (PostgreSQL documentation, appendix A).
    pub(crate) fn classify(error: &Error) -> Self {
        match error {
            Error::Database(error) => Self::classify_state(error.as_ref()),
            Error::Io(_)
            | Error::Tls(_)
            | Error::Protocol(_)
            | Error::PoolTimedOut
            | Error::PoolClosed
            | Error::WorkerCrashed => Self::Lost,
            // Another binary may have written the row. It must not end every replica in turn.
            Error::Decode(_) | Error::ColumnDecode { .. } => Self::Poison,
            _ => Self::Broken,
        }
    }

    fn classify_state(error: &dyn DatabaseError) -> Self {
        let state = error.code().unwrap_or_default();
        match (state.as_ref(), state.get(..2).unwrap_or_default()) {
            ("40001" | "40P01", _) => Self::Conflict,
            // Another transaction inserted a row that was absent when this batch read it.
            ("23505", _)
                if error.constraint().is_some_and(|constraint| constraint.ends_with("_pkey")) =>
            {
                Self::Conflict
            }
            ("55P03", _) => Self::Locked,
            // 54, for example: a value is too large for an index.
            (_, "22" | "23" | "54") => Self::Poison,
            // No such table, schema, function, database or sequence: it is not migrated yet, or was
            // recreated while we ran.
            ("42P01" | "3F000" | "42883" | "3D000" | "XX000", _) => Self::Lost,
            // Somebody has to change something outside, as with a right that is missing
            // (`refusal`), and then all goes on.
            ("42501" | "26000" | "42P05", _) => Self::Lost,
            (_, "08" | "0A" | "25" | "28" | "53" | "57" | "58") => Self::Lost,
            _ => Self::Broken,
        }
    }
}
