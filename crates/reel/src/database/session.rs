//! Sessions that block nobody for long: if a process is paused inside a transaction, the server
//! ends it.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor as _, PgConnection};

use super::{ConnectionPool, answered_within};

/// The database of one service, and how sessions with it are set up.
#[derive(Debug, Clone)]
pub struct Database {
    options: PgConnectOptions,
}

/// Longest time that a session may sit idle in a transaction, however long the lease is.
const LONGEST_IDLE: Duration = Duration::from_secs(2);
/// Longest wait of a step for a locked row.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest time of a query of a client: as long as its request may take.
const LONGEST_QUERY: Duration = Duration::from_secs(10);
/// Longest time for a connection to be opened.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Capacity of a pinned connection's statement cache. A step builds a different statement for each
/// set of tables that it changes.
const PINNED_STATEMENTS: usize = 1_000;

impl Database {
    /// The database at `url`, with timeouts that fit the lease.
    ///
    /// # Errors
    /// If `url` is not a valid Postgres URL.
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
                // Whatever the role's is: a service's own tables are named without a schema.
                ("search_path", "public".to_owned()),
                // Rows are read by key. A plan that was cached while a table was small would keep
                // scanning all of it after it has grown.
                ("enable_seqscan", "off".to_owned()),
                // A plan for an unknown limit is estimated to read many rows, so it would be
                // compiled, which takes longer than running it.
                ("jit", "off".to_owned()),
            ])
            .log_statements(tracing::log::LevelFilter::Trace)
            .log_slow_statements(tracing::log::LevelFilter::Debug, Duration::from_secs(1));
        Ok(Self { options })
    }

    /// Whether a session with it may be in clear text although it goes over a network: the mode in
    /// its URL, or none, falls back to that if the server has no TLS.
    pub(crate) fn may_be_clear_text(&self) -> bool {
        let falls_back =
            matches!(self.options.get_ssl_mode(), PgSslMode::Allow | PgSslMode::Prefer);
        let host = self.options.get_host();
        let is_local = self.options.get_socket().is_some()
            || host.starts_with('/')
            || host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        falls_back && !is_local
    }

    /// A pool of at most this many connections, which are opened when they are needed.
    #[must_use]
    pub fn pool(&self, connections: u32) -> ConnectionPool {
        ConnectionPool::new(self.clone(), connections)
    }

    /// A pool as [`pool`](Self::pool) gives, for the queries of clients: the server ends those that
    /// take longer than anybody waits for them.
    #[must_use]
    pub(crate) fn pool_of_queries(&self, connections: u32) -> ConnectionPool {
        let timeout = [("statement_timeout", LONGEST_QUERY.as_millis().to_string())];
        let options = self.options.clone().options(timeout);
        ConnectionPool::new(Self { options }, connections)
    }

    /// Opens a connection outside any pool.
    ///
    /// # Errors
    /// If the database is unreachable, or does not answer within five seconds.
    pub async fn connect(&self) -> sqlx::Result<PgConnection> {
        answered_within(CONNECT_WITHIN, PgConnection::connect_with(&self.options)).await
    }

    /// Listens on a channel for notifications.
    ///
    /// # Errors
    /// If the database is unreachable, or does not answer within five seconds.
    pub(crate) async fn listen(&self, channel: &str) -> sqlx::Result<PgListener> {
        // sqlx has listeners borrow from a pool of its own, so each gets a pool of one. A listener
        // that dies gives its connection back in the background, for as long as that takes.
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(self.options.clone());
        answered_within(CONNECT_WITHIN, async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.ignore_pool_close_event(true);
            listener.eager_reconnect(false);
            listener.listen(channel).await?;
            Ok(listener)
        })
        .await
    }

    /// A connection that one user keeps; it is opened when it is first used.
    pub(crate) fn pin(&self, commits: CommitDurability) -> PinnedConnection {
        let sessions =
            Self { options: self.options.clone().statement_cache_capacity(PINNED_STATEMENTS) };
        PinnedConnection { sessions, commits, connection: None }
    }
}

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommitDurability {
    /// The commit waits for the disk.
    Durable,
    /// It does not wait: a server that crashes loses its last commits.
    Asynchronous,
}

impl CommitDurability {
    /// Settings of a pinned session. Its few statements run again and again and find each row by
    /// its key, so a custom plan for particular values would equal the generic one.
    fn settings(self) -> &'static str {
        match self {
            Self::Durable => "set plan_cache_mode = force_generic_plan",
            Self::Asynchronous => {
                "set plan_cache_mode = force_generic_plan; set synchronous_commit = off"
            }
        }
    }
}

/// A connection that one user keeps: opened on demand, and again after it was lost. A pool would
/// hand out a different connection each time, with cold caches, and would ping each one that is
/// returned, which costs another round trip.
#[derive(Debug)]
pub(crate) struct PinnedConnection {
    sessions: Database,
    commits: CommitDurability,
    connection: Option<PgConnection>,
}

impl PinnedConnection {
    /// The connection, opened if there is none.
    ///
    /// # Errors
    /// If the database is unreachable.
    pub(crate) async fn get(&mut self) -> sqlx::Result<&mut PgConnection> {
        if self.connection.is_none() {
            let mut connection = self.sessions.connect().await?;
            // Not as a startup option: connection poolers drop options that they do not know.
            let set = connection.execute(self.commits.settings());
            answered_within(CONNECT_WITHIN, set).await?;
            self.connection = Some(connection);
        }
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Drops the connection; the next use opens another.
    pub(crate) fn lose(&mut self) {
        self.connection = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_over_a_network_is_in_clear_text_only_if_the_url_says_so() {
        let may_be = |url: &str| {
            Database::new(url, "till", Duration::from_secs(5)).expect("valid").may_be_clear_text()
        };
        assert!(may_be("postgres://till@db/till"));
        assert!(may_be("postgres://till@db/till?sslmode=prefer"));
        assert!(!may_be("postgres://till@db/till?sslmode=require"));
        assert!(!may_be("postgres://till@db/till?sslmode=disable"), "nobody is surprised");
        assert!(!may_be("postgres://till@localhost/till"));
        assert!(!may_be("postgres://till@127.0.0.1/till"));
    }
}
