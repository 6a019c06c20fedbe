//! Connections that many tasks share, each use of which has a time limit.
//!
//! Not sqlx's own pool: that one pings each connection that is given back, without a limit, and
//! counts it as taken until the answer has come. If a firewall forgets its connections, such a pool
//! is empty until the kernel gives up on them, a quarter of an hour later
//! (<https://github.com/launchbadge/sqlx/issues/4349>).

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{self, Manager, Metrics, Object, PoolError, RecycleError, RecycleResult};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Connection as _, Either, Execute, Executor, PgConnection, Postgres, SqlStr};

use super::{Database, answered, answered_within};

/// Longest wait for a connection to become free.
const FREE_WITHIN: Duration = Duration::from_secs(5);
/// Time after which an unused connection is tested before it is used again.
const UNTESTED_FOR: Duration = Duration::from_secs(1);
/// Longest time for the answer to that test.
const TEST_WITHIN: Duration = Duration::from_secs(1);

/// A pool of connections to one database. A connection is opened when one is needed and none is
/// free, and closed if its use did not end well. Cheap to clone.
///
/// A reference to a pool is an [`Executor`] for queries. Each query borrows a connection and has
/// all its rows read within ten seconds; otherwise it fails with [`sqlx::Error::PoolTimedOut`].
#[derive(Clone)]
pub struct ConnectionPool {
    connections: managed::Pool<Connections>,
}

/// A connection that is borrowed from a pool. It is closed when it is dropped, unless it was given
/// back: so one that may be dead, or in the middle of a statement, is never used again.
pub(crate) struct PooledConnection {
    /// `None` only once it is given back or dropped.
    borrowed: Option<Object<Connections>>,
}

/// Opens the connections of a pool, and tests those that were idle.
struct Connections {
    database: Database,
    /// When one was last found dead. What killed it has probably killed all that were open then: a
    /// restart of the server, or a firewall that forgot its connections.
    found_dead_at: Mutex<Option<Instant>>,
}

impl Manager for Connections {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<PgConnection> {
        self.database.connect().await
    }

    async fn recycle(
        &self,
        connection: &mut PgConnection,
        metrics: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        let found_dead_at = *self.found_dead_at.lock().unwrap_or_else(PoisonError::into_inner);
        if found_dead_at.is_some_and(|at| metrics.created <= at) {
            return Err(RecycleError::message("others that were open with it are dead"));
        }
        if metrics.last_used() < UNTESTED_FOR {
            return Ok(());
        }

        let tested = answered_within(TEST_WITHIN, connection.ping()).await;
        if tested.is_err() {
            let mut at = self.found_dead_at.lock().unwrap_or_else(PoisonError::into_inner);
            *at = Some(Instant::now());
        }
        Ok(tested?)
    }
}

impl ConnectionPool {
    /// A pool of at most this many connections.
    pub(super) fn new(database: Database, connections: u32) -> Self {
        let manager = Connections { database, found_dead_at: Mutex::default() };
        let connections = managed::Pool::builder(manager)
            .max_size(usize::try_from(connections).unwrap_or(usize::MAX))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(FREE_WITHIN))
            .build()
            .expect("only time-outs without a runtime are refused");
        Self { connections }
    }

    /// Borrows a connection.
    ///
    /// # Errors
    /// If none becomes free in time, or the database is unreachable.
    pub(crate) async fn get(&self) -> sqlx::Result<PooledConnection> {
        match self.connections.get().await {
            Ok(borrowed) => Ok(PooledConnection { borrowed: Some(borrowed) }),
            Err(PoolError::Backend(error)) => Err(error),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }
}

impl PooledConnection {
    /// Lets others use it: its last statement has succeeded.
    pub(crate) fn give_back(mut self) {
        self.borrowed = None;
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        // Dropped outside the pool, it closes its socket, and the server ends its transaction.
        drop(self.borrowed.take().map(Object::take));
    }
}

impl Deref for PooledConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.borrowed.as_ref().expect("borrowed")
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.borrowed.as_mut().expect("borrowed")
    }
}

impl fmt::Debug for ConnectionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectionPool").field(&self.connections.status()).finish()
    }
}

impl<'p> Executor<'p> for &'p ConnectionPool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let asked = async move {
            let mut connection = self.get().await?;
            let answers = connection.fetch_many(query).try_collect::<Vec<_>>();
            let answers = answered(answers).await?;
            connection.give_back();
            Ok::<_, sqlx::Error>(stream::iter(answers).map(Ok))
        };
        stream::once(asked).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            let mut connection = self.get().await?;
            let row = answered(connection.fetch_optional(query)).await?;
            connection.give_back();
            Ok(row)
        })
    }

    fn prepare_with<'e>(
        self,
        query: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'p: 'e,
    {
        Box::pin(async move {
            let mut connection = self.get().await?;
            let statement = answered(connection.prepare_with(query, parameters)).await?;
            connection.give_back();
            Ok(statement)
        })
    }
}

#[cfg(test)]
mod tests {
    use devstack::Stack;
    use devstack::proxy::Proxy;
    use futures_util::future::join_all;

    use super::*;

    const CONNECTIONS: u32 = 3;

    /// A pool of connections through a proxy, all of them open and idle.
    async fn opened() -> (Proxy, ConnectionPool) {
        let stack = Stack::shared().await.expect("stack");
        let (proxy, url) = Proxy::to_url(stack.postgres()).await.expect("proxy");
        let database = Database::new(&url, "pool", Duration::from_secs(5)).expect("url");

        let pool = database.pool(CONNECTIONS);
        let slow = || sqlx::query("select pg_sleep(0.1)").execute(&pool);
        for done in join_all((0..CONNECTIONS).map(|_| slow())).await {
            done.expect("answers");
        }
        assert_eq!(pool.connections.status().size, 3, "one for each query");
        (proxy, pool)
    }

    async fn ask(pool: &ConnectionPool) -> sqlx::Result<i32> {
        sqlx::query_scalar("select 1").fetch_one(pool).await
    }

    #[tokio::test]
    async fn connections_that_are_forgotten_in_use_are_replaced_once_their_limit_has_passed() {
        let (proxy, pool) = opened().await;
        proxy.forget();
        let asked = join_all((0..CONNECTIONS).map(|_| ask(&pool))).await;
        for failed in asked {
            assert!(matches!(failed, Err(sqlx::Error::PoolTimedOut)), "{failed:?}");
        }
        assert_eq!(ask(&pool).await.expect("answers"), 1);
    }

    #[tokio::test]
    async fn connections_that_are_forgotten_while_idle_cost_one_test() {
        let (proxy, pool) = opened().await;
        let idle_since = Instant::now();
        proxy.forget();
        devstack::wait::until(TEST_WITHIN * 10, "idle connections to need a test", || async {
            Ok((idle_since.elapsed() > UNTESTED_FOR).then_some(()))
        })
        .await
        .expect("time passes");

        assert_eq!(ask(&pool).await.expect("answers"), 1);
        assert_eq!(ask(&pool).await.expect("answers"), 1);
        let dead = pool.connections.manager().found_dead_at.lock().expect("lock");
        assert!(dead.is_some(), "the first one was tested");
    }

    #[tokio::test]
    async fn a_query_that_is_given_up_leaves_no_connection_in_the_middle_of_it() {
        let (_proxy, pool) = opened().await;
        let slow = sqlx::query("select pg_sleep(60)").execute(&pool);
        assert!(tokio::time::timeout(Duration::from_millis(50), slow).await.is_err());
        assert_eq!(pool.connections.status().size, 2, "its connection is closed");
        assert_eq!(ask(&pool).await.expect("answers"), 1);
    }
}
