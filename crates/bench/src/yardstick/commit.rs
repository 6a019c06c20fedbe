//! A bare commit: one row, one transaction, on the disk.

use std::time::Instant;

use anyhow::Result;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::run::Bench;
use crate::stats::Times;

const COMMITS: usize = 300;

/// How long bare transactions took that write one row each.
#[derive(Debug, Clone, Default)]
pub struct Commits {
    /// From before the begin to after the commit.
    pub whole: Times,
    /// The commit alone, when the row is written.
    pub commit: Times,
}

/// Writes rows one by one, a transaction each.
///
/// # Errors
/// Where Postgres refuses.
pub async fn commits(bench: &Bench) -> Result<Commits> {
    let mut connection = PgConnection::connect(bench.stack.postgres.url()).await?;
    sqlx::query("create table if not exists bare (id uuid not null, constraint bare_pkey primary key (id))")
        .execute(&mut connection)
        .await?;
    let mut commits = Commits::default();
    for _ in 0..COMMITS {
        let began = Instant::now();
        let mut transaction = connection.begin().await?;
        sqlx::query("insert into bare (id) values ($1)").bind(Uuid::now_v7()).execute(&mut *transaction).await?;
        let written_at = Instant::now();
        transaction.commit().await?;
        commits.commit.note_duration(written_at.elapsed());
        commits.whole.note_duration(began.elapsed());
    }
    connection.close().await?;
    Ok(commits)
}
