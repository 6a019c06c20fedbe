//! The statements on which Postgres spent its time, from `pg_stat_statements`.

use std::fmt::Write;

use anyhow::Result;
use devstack::OwnStack;
use sqlx::{Connection, PgConnection};

const LIBRARY: &str = "pg_stat_statements";
/// Number of statements that are shown.
const MOST: i32 = 12;
/// Number of characters of a statement that are shown.
const MAX_LENGTH: usize = 110;

/// Starts a stack whose Postgres collects statistics of statements.
pub(crate) async fn watched_stack() -> Result<OwnStack> {
    OwnStack::for_benchmarks(&[("shared_preload_libraries", LIBRARY)]).await
}

/// A table of the statements that took the most time since the last call, in all databases. Those
/// of the benchmark itself are among them.
pub(crate) async fn since_last_call(url: &str) -> Result<String> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query("create extension if not exists pg_stat_statements")
        .execute(&mut connection)
        .await?;

    let statements: Vec<(String, i64, f64, f64, i64)> = sqlx::query_as(
        "select regexp_replace(query, '\\s+', ' ', 'g'), sum(calls)::bigint,
             sum(total_exec_time)::float8, (sum(total_exec_time) / sum(calls))::float8,
             sum(rows)::bigint
         from pg_stat_statements group by 1 order by 3 desc limit $1",
    )
    .bind(MOST)
    .fetch_all(&mut connection)
    .await?;
    sqlx::query("select pg_stat_statements_reset()").execute(&mut connection).await?;
    connection.close().await?;

    let mut text = format!(
        "{:>10}  {:>9}  {:>9}  {:>10}  statement\n",
        "total ms", "calls", "mean ms", "rows"
    );
    for (query, calls, total, mean, rows) in statements {
        let query: String = query.chars().take(MAX_LENGTH).collect();
        let _ = writeln!(text, "{total:>10.0}  {calls:>9}  {mean:>9.3}  {rows:>10}  {query}");
    }

    Ok(text)
}
