//! Sessions that block nobody for long: a process that is paused inside a transaction loses it.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor as _, PgConnection, PgPool};

/// Makes the sessions of one service.
#[derive(Debug, Clone)]
pub struct Sessions {
    options: PgConnectOptions,
}

/// The longest that a session may sit idle in a transaction, however long the lease.
const LONGEST_IDLE: Duration = Duration::from_secs(2);
/// How long a step waits for a row.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many statements a kept connection remembers. What a step writes is another statement for each set of tables that it writes to.
const KEPT_STATEMENTS: usize = 1_000;

impl Sessions {
    /// For the database at `url`, with time-outs that fit a lease.
    ///
    /// # Errors
    /// Where the url is none.
    pub fn new(url: &str, name: &str, lease: Duration) -> sqlx::Result<Self> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(sqlx::Error::Configuration("it does not begin with postgres://".into()));
        }
        let idle = (lease * 2 / 5).min(LONGEST_IDLE);
        let milliseconds = |duration: Duration| duration.as_millis().to_string();
        let options = PgConnectOptions::from_str(url)?
            .application_name(name)
            .options([
                ("idle_in_transaction_session_timeout", milliseconds(idle)),
                ("tcp_user_timeout", milliseconds(idle * 2)),
                ("lock_timeout", milliseconds(LOCK_TIMEOUT)),
                ("TimeZone", "UTC".to_owned()),
                // Rows are asked for by key. A plan that was kept from when a table was small would go on reading all of it.
                ("enable_seqscan", "off".to_owned()),
                // A plan for any limit is thought to read much, and would be compiled for longer than it runs.
                ("jit", "off".to_owned()),
            ])
            .log_statements(tracing::log::LevelFilter::Trace)
            .log_slow_statements(tracing::log::LevelFilter::Debug, Duration::from_secs(1));
        Ok(Self { options })
    }

    /// A pool; it connects when it is asked.
    #[must_use]
    pub fn pool(&self, connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false) // a round trip for each step; a lost connection is found by its use
            .connect_lazy_with(self.options.clone())
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn connect(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect_with(&self.options).await
    }

    /// A connection that one user keeps.
    pub(crate) fn keep(&self, commits: Commits) -> Kept {
        let sessions = Self { options: self.options.clone().statement_cache_capacity(KEPT_STATEMENTS) };
        Kept { sessions, commits, connection: None }
    }
}

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commits {
    /// It does.
    Durable,
    /// It does not: what the server has committed last is lost with it.
    Asynchronous,
}

impl Commits {
    /// What the session of a kept connection is set to. Its few statements run again and again and find each row by its key, so a plan
    /// for the values at hand would be the same plan made anew.
    fn settings(self) -> &'static str {
        match self {
            Self::Durable => "set plan_cache_mode = force_generic_plan",
            Self::Asynchronous => "set plan_cache_mode = force_generic_plan; set synchronous_commit = off",
        }
    }
}

/// A connection that one user keeps: made when it is asked for, and anew after it was lost. A pool would hand out another one each time,
/// whose caches are cold, and would ask each that comes back whether it lives, which is a round trip more.
#[derive(Debug)]
pub(crate) struct Kept {
    sessions: Sessions,
    commits: Commits,
    connection: Option<PgConnection>,
}

impl Kept {
    /// The connection.
    pub(crate) async fn get(&mut self) -> sqlx::Result<&mut PgConnection> {
        if self.connection.is_none() {
            let connected = tokio::time::timeout(ACQUIRE_TIMEOUT, self.sessions.connect()).await;
            let mut connection = connected.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
            // Not as it connects: poolers drop what they do not know.
            connection.execute(self.commits.settings()).await?;
            self.connection = Some(connection);
        }
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// The next one who asks gets a new connection.
    pub(crate) fn lose(&mut self) {
        self.connection = None;
    }
}
