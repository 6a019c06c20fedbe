//! A bare commit: one row in one transaction, flushed to disk.

use std::time::Instant;

use anyhow::Result;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::run::Bench;
use crate::stats::Times;

const COMMITS: usize = 300;

/// Times of bare transactions that write one row each.
#[derive(Debug, Clone, Default)]
pub struct Commits {
    /// Times from before `begin` until after `commit`.
    pub whole: Times,
    /// Times of `commit` alone.
    pub commit: Times,
}

/// Writes rows, each in a transaction of its own.
///
/// # Errors
/// If Postgres is unreachable or refuses.
pub async fn commits(bench: &Bench) -> Result<Commits> {
    let mut connection = PgConnection::connect(bench.stack.postgres.url()).await?;
    sqlx::query(
        "create table if not exists bare (id uuid not null, constraint bare_pkey primary key (id))",
    )
    .execute(&mut connection)
    .await?;

    let mut commits = Commits::default();
    for _ in 0..COMMITS {
        let began = Instant::now();
        let mut transaction = connection.begin().await?;
        sqlx::query("insert into bare (id) values ($1)")
            .bind(Uuid::now_v7())
            .execute(&mut *transaction)
            .await?;
        let written_at = Instant::now();
        transaction.commit().await?;
        commits.commit.record_duration(written_at.elapsed());
        commits.whole.record_duration(began.elapsed());
    }

    connection.close().await?;
    Ok(commits)
}
