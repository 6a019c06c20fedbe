//! The server run: it changes whenever the database may have gone back in time (DESIGN section 3, "Across time").

use std::fmt::{self, Display};
use std::sync::Arc;

use sqlx::PgConnection;

/// One run of a server with one state of the database: start of the server, database, tables, and a uuid that crash
/// recovery, promotion and a base backup empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run(Arc<str>);

impl Run {
    /// As the database writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The run that the server is in. Whoever finds the uuid gone fills it anew.
///
/// # Errors
/// Where the database does not answer or was not migrated.
pub async fn current_run(connection: &mut PgConnection) -> sqlx::Result<Run> {
    loop {
        let run: Option<String> = sqlx::query_scalar("select reel.run()").fetch_one(&mut *connection).await?;
        if let Some(run) = run {
            return Ok(Run(run.into()));
        }
        sqlx::query("insert into reel.server_run (id) values (gen_random_uuid()) on conflict do nothing").execute(&mut *connection).await?;
    }
}
