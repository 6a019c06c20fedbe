//! Postgres as the toolkit uses it: sessions that block nobody for long, the database epoch, the
//! classification of errors, and many writes in one statement.

mod epoch;
mod error_kind;
mod session;
mod write_batch;

pub(crate) use epoch::DatabaseEpoch;
pub(crate) use error_kind::DatabaseErrorKind;
pub use session::Database;
pub(crate) use session::{CommitDurability, PinnedConnection};
pub(crate) use write_batch::Placeholders;
pub use write_batch::{ArrayParams, WriteBatch};
