//! `reel.heads`: the next sequence of each partition of the own topic, and the database epoch for
//! which its lane was opened. `outbox` raises heads as it appends; recovery does it here.

use sqlx::PgConnection;

use crate::lane::Lease;
use crate::model::{Partition, Partitions};

/// Creates the rows that are missing.
pub(super) async fn create(
    connection: &mut PgConnection,
    partitions: Partitions,
) -> sqlx::Result<()> {
    let create = "insert into reel.heads (partition, next_seq)
        select generate_series(0, $1 - 1), 0 on conflict do nothing";
    sqlx::query(create).bind(partitions.count()).execute(connection).await?;
    Ok(())
}

/// The number of partitions that the database was created for; 0 before the first start.
pub(crate) async fn count(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from reel.heads").fetch_one(connection).await
}

/// Locks a head and returns its next sequence.
pub(crate) async fn lock(connection: &mut PgConnection, partition: Partition) -> sqlx::Result<i64> {
    sqlx::query_scalar("select next_seq from reel.heads where partition = $1 for update")
        .bind(partition.0)
        .fetch_one(connection)
        .await
}

/// Raises a head, which is never lowered, and with `opens` marks its lane as open for the lease's
/// database epoch. Returns false, and changes nothing, if the database is in another epoch.
pub(crate) async fn raise(
    connection: &mut PgConnection,
    lease: &Lease,
    next_sequence: i64,
    opens: bool,
) -> sqlx::Result<bool> {
    let raised = sqlx::query(
        "update reel.heads set next_seq = greatest(next_seq, $2),
             opened_run = case when $3 then $4 else opened_run end
         where partition = $1 and (select reel.run()) = $4",
    )
    .bind(lease.partition.0)
    .bind(next_sequence)
    .bind(opens)
    .bind(lease.database_epoch.as_str())
    .execute(connection)
    .await?;
    Ok(raised.rows_affected() > 0)
}

/// Whether all lanes were opened for the epoch that the database is in.
pub(crate) async fn all_open(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let all_open = "select coalesce(
        bool_and(opened_run is not distinct from (select reel.run())), false) from reel.heads";
    sqlx::query_scalar(all_open).fetch_one(connection).await
}
