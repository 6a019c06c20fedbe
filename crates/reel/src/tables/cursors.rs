//! `reel.cursors`: how far each partition of the own topic is known to hold our events.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::lane::Lease;
use crate::log::Position;
use crate::model::{Partition, Partitions};

/// Committed events that are not yet known to be published.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backlog {
    /// Their number.
    pub(crate) events: usize,
    /// The age of the oldest.
    pub(crate) oldest: Duration,
}

/// The new cursor of a lane: the next sequence and the next offset.
pub(crate) struct Advance {
    pub(crate) lease: Lease,
    pub(crate) next_sequence: i64,
    pub(crate) next_offset: i64,
}

/// The oldest event of each partition is the row at its cursor.
const BACKLOG: &str = "
select coalesce(sum(head.next_seq - cursor.seq), 0)::bigint,
    coalesce(extract(epoch from clock_timestamp() - min((
        select recorded_at from reel.outbox
        where partition = cursor.partition and seq = cursor.seq))), 0)::float8
from reel.heads as head join reel.cursors as cursor using (partition)";

/// Advances cursors over what was acked, each under its token and epoch and never back, and returns
/// those that were still ours. The commit need not be durable: recovery catches up a cursor that fell back.
pub(crate) const ADVANCE: &str = "
update reel.cursors as cursor
set seq = greatest(cursor.seq, acked.seq),
    \"offset\" = greatest(cursor.\"offset\", acked.next_offset)
from unnest($1::integer[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[])
    as acked(partition, token, run, seq, next_offset)
where cursor.partition = acked.partition
  and cursor.token = acked.token and cursor.run = acked.run and acked.run = (select reel.run())
returning cursor.partition";

/// Creates the rows that are missing.
pub(super) async fn create(
    connection: &mut PgConnection,
    partitions: Partitions,
) -> sqlx::Result<()> {
    let create = "insert into reel.cursors (partition, seq, \"offset\", generation)
        select generate_series(0, $1 - 1), 0, 0, -1 on conflict do nothing";
    sqlx::query(create).bind(partitions.count()).execute(connection).await?;
    Ok(())
}

/// Sets the token of a lane that is being acquired.
pub(super) async fn fence(connection: &mut PgConnection, lease: &Lease) -> sqlx::Result<()> {
    sqlx::query("update reel.cursors set token = $2, run = $3 where partition = $1")
        .bind(lease.partition.0)
        .bind(lease.token)
        .bind(lease.database_epoch.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// The cursor of a lane as a position in the own topic; `None` if the lane is no longer ours.
pub(crate) async fn read(
    connection: &mut PgConnection,
    lease: &Lease,
) -> sqlx::Result<Option<Position>> {
    let row: Option<(i64, i64, i64, Option<Uuid>)> = sqlx::query_as(
        "select \"offset\", seq, generation, opened_id from reel.cursors
         where partition = $1 and token = $2 and run = $3 and run = (select reel.run())",
    )
    .bind(lease.partition.0)
    .bind(lease.token)
    .bind(lease.database_epoch.as_str())
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(next_offset, next_sequence, epoch, opened_id)| Position {
        next_offset,
        next_sequence,
        epoch,
        opened_id,
    }))
}

/// Sets the cursor of a lane in recovery. Returns false if the lane is no longer ours.
pub(crate) async fn set(
    connection: &mut PgConnection,
    lease: &Lease,
    position: &Position,
) -> sqlx::Result<bool> {
    let moved = sqlx::query(
        "update reel.cursors set seq = $4, \"offset\" = $5, generation = $6, opened_id = $7
         where partition = $1 and token = $2 and run = $3 and run = (select reel.run())",
    )
    .bind(lease.partition.0)
    .bind(lease.token)
    .bind(lease.database_epoch.as_str())
    .bind(position.next_sequence)
    .bind(position.next_offset)
    .bind(position.epoch)
    .bind(position.opened_id)
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() > 0)
}

/// Advances cursors over what was acked and returns the lanes that are no longer ours.
pub(crate) async fn advance(
    connection: &mut PgConnection,
    advances: &[Advance],
) -> sqlx::Result<Vec<Partition>> {
    let leases = || advances.iter().map(|advance| &advance.lease);
    let ours: Vec<i32> = sqlx::query_scalar(ADVANCE)
        .bind(leases().map(|lease| lease.partition.0).collect::<Vec<_>>())
        .bind(leases().map(|lease| lease.token).collect::<Vec<_>>())
        .bind(leases().map(|lease| lease.database_epoch.as_str()).collect::<Vec<_>>())
        .bind(advances.iter().map(|advance| advance.next_sequence).collect::<Vec<_>>())
        .bind(advances.iter().map(|advance| advance.next_offset).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let lost = leases().map(|lease| lease.partition).filter(|lane| !ours.contains(&lane.0));
    Ok(lost.collect())
}

/// Counts the committed events of all lanes that are not known to be published.
pub(crate) async fn backlog(connection: &mut PgConnection) -> sqlx::Result<Backlog> {
    let (events, age): (i64, f64) = sqlx::query_as(BACKLOG).fetch_one(connection).await?;
    Ok(Backlog {
        events: usize::try_from(events).unwrap_or(0),
        oldest: Duration::from_secs_f64(age.max(0.0)),
    })
}

/// Whether any lane of the own topic was ever opened.
pub(crate) async fn any_opened(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("select exists (select from reel.cursors where generation >= 0)")
        .fetch_one(connection)
        .await
}

#[cfg(test)]
mod tests {
    use super::{ADVANCE, BACKLOG};
    use crate::tests::plan::uses_index;

    #[tokio::test]
    async fn cursors_are_advanced_by_key() {
        uses_index(ADVANCE, "cursors_pkey").await;
    }

    #[tokio::test]
    async fn the_backlog_is_counted_without_reading_the_outbox() {
        uses_index(BACKLOG, "outbox_pkey").await;
    }
}
