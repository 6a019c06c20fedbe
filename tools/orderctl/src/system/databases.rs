//! The databases of the services, on one server.

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// SQLSTATE of `create database` if the name is in use.
const DUPLICATE_DATABASE: &str = "42P04";

/// Creates the database unless it exists.
pub(super) async fn create(admin_url: &str, name: &str) -> Result<()> {
    match run(admin_url, format!("create database \"{name}\"")).await? {
        Err(sqlx::Error::Database(error))
            if error.code().as_deref() == Some(DUPLICATE_DATABASE) =>
        {
            Ok(())
        }
        done => done.with_context(|| format!("cannot create database {name}")),
    }
}

/// Drops the database, even if clients are connected.
pub(super) async fn drop(admin_url: &str, name: &str) -> Result<()> {
    let done = run(admin_url, format!("drop database if exists \"{name}\" with (force)")).await?;
    done.with_context(|| format!("cannot drop database {name}"))
}

/// Returns the address with another database: replaces the path of
/// `postgres://user@host:1/postgres?a=b`.
pub(super) fn url(admin_url: &str, name: &str) -> String {
    let (address, query) = admin_url
        .split_once('?')
        .map_or((admin_url, String::new()), |(address, query)| (address, format!("?{query}")));
    let host = address.find("://").map_or(0, |at| at + 3);
    let end = address[host..].find('/').map_or(address.len(), |at| host + at);
    format!("{}/{name}{query}", &address[..end])
}

async fn run(admin_url: &str, statement: String) -> Result<sqlx::Result<()>> {
    let connection = PgConnection::connect(admin_url).await;
    let mut connection =
        connection.with_context(|| format!("postgres does not answer at {admin_url}"))?;
    let done = connection.execute(sqlx::query(AssertSqlSafe(statement))).await;
    let _ = connection.close().await;
    Ok(done.map(|_| ()))
}
