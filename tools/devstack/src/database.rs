//! A database for one test, on a server that many tests share.

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use uuid::Uuid;

/// An empty database. It is dropped with this value (unless `REEL_KEEP` is set), even if a client
/// is connected.
pub struct TestDatabase {
    admin_url: String,
    name: String,
    url: String,
}

impl TestDatabase {
    /// Creates a database whose name begins with `name_hint`, on the server of `admin_url`.
    ///
    /// # Errors
    /// If the server is unreachable, or refuses.
    pub async fn create(admin_url: &str, name_hint: &str) -> Result<Self> {
        let hint: String = name_hint.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        let id = Uuid::new_v4().simple().to_string();
        let name = format!("{}_{}", hint.to_ascii_lowercase(), &id[..12]);
        run(admin_url, format!("create database \"{name}\"")).await?;
        Ok(Self { admin_url: admin_url.to_owned(), url: with_database(admin_url, &name), name })
    }

    /// The URL of this database, with the user of `admin_url`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name of the database.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if std::env::var_os("REEL_KEEP").is_some() {
            crate::progress(&format!("keeping database {}", self.url));
            return;
        }
        let statement = format!("drop database if exists \"{}\" with (force)", self.name);
        let (admin_url, limit) = (self.admin_url.clone(), std::time::Duration::from_secs(10));

        // On a thread of its own, because the runtime of the test may be shutting down, and
        // blocking it on itself would panic.
        let dropping = std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime
                .block_on(async { tokio::time::timeout(limit, run(&admin_url, statement)).await? })
        });
        if let Ok(Err(error)) = dropping.join() {
            crate::progress(&format!("cannot drop database {}: {error:#}", self.name));
        }
    }
}

async fn run(admin_url: &str, statement: String) -> Result<()> {
    let connection = PgConnection::connect(admin_url).await;
    let mut connection =
        connection.with_context(|| format!("postgres is unreachable at {admin_url}"))?;
    connection.execute(sqlx::query(AssertSqlSafe(statement))).await?;
    Ok(connection.close().await?)
}

/// Replaces the database of a URL, which is its path: `postgres://user@host:1/postgres?a=b`.
fn with_database(url: &str, name: &str) -> String {
    let (address, query) = url
        .split_once('?')
        .map_or((url, String::new()), |(address, query)| (address, format!("?{query}")));
    let host = address.find("://").map_or(0, |at| at + 3);
    let end = address[host..].find('/').map_or(address.len(), |at| host + at);
    format!("{}/{name}{query}", &address[..end])
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn the_database_is_replaced_in_an_address_and_all_else_stays() {
        for (url, expected) in [
            ("postgres://me:pw@h:1/postgres", "postgres://me:pw@h:1/x"),
            (
                "postgres://me@h:1/postgres?sslmode=require&a=/b",
                "postgres://me@h:1/x?sslmode=require&a=/b",
            ),
            ("postgres://me@h", "postgres://me@h/x"),
        ] {
            assert_eq!(with_database(url, "x"), expected);
        }
    }
}
