//! Postgres as the toolkit uses it: sessions that block nobody for long, a pool of them, the
//! database epoch, the classification of errors, and many writes in one statement.
//!
//! A server, or a network on the way to it, may fall silent and close nothing. So whatever waits
//! for an answer does so within a limit, by [`answered`] or one of its own, and then closes its
//! connection.

mod epoch;
mod error_kind;
mod pool;
mod refusal;
mod server;
mod session;
mod write_batch;

use std::time::Duration;

pub(crate) use epoch::DatabaseEpoch;
pub(crate) use error_kind::DatabaseErrorKind;
pub use pool::ConnectionPool;
pub(crate) use refusal::{Refusal, is_not_migrated, refusal, what_is_wrong};
pub(crate) use server::{ServerError, look_at_server};
pub use session::Database;
pub(crate) use session::{CommitDurability, PinnedConnection};
pub(crate) use write_batch::Placeholders;
pub use write_batch::{ArrayParams, WriteBatch};

/// Longest time for the answer to a statement, or to the few statements of one transaction.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Longest time for a transaction that handles many messages or events. A server that takes longer
/// counts as gone, and the commit as unknown.
pub(crate) const TRANSACTION_WITHIN: Duration = Duration::from_secs(15);

/// Waits for the database no longer than [`ANSWER_WITHIN`].
///
/// # Errors
/// Its own, or [`sqlx::Error::PoolTimedOut`]. The caller then closes the connection.
pub(crate) async fn answered<T>(asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    answered_within(ANSWER_WITHIN, asked).await
}

/// Waits for the database no longer than this.
///
/// # Errors
/// Its own, or [`sqlx::Error::PoolTimedOut`]. The caller then closes the connection.
pub(crate) async fn answered_within<T>(
    limit: Duration,
    asked: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    tokio::time::timeout(limit, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
