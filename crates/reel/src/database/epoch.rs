//! The database epoch: it changes whenever the database may have gone back in time
//! (docs/laws.md, "Across time").

use std::fmt::{self, Display};
use std::sync::Arc;

/// One run of a server with one state of the database. It consists of the server's start time, the
/// database, the tables, and a uuid that crash recovery, promotion and a base backup empty. In SQL,
/// `reel.run()`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct DatabaseEpoch(Arc<str>);

impl DatabaseEpoch {
    pub(crate) fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The epoch as `reel.run()` returns it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for DatabaseEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
