//! The cursor: how far each partition of the own topic is known to hold our events.

use sqlx::PgConnection;

use crate::lanes::Grant;
use crate::model::Partition;

/// How many events are committed and not known to be published, and for how long the oldest of them: the row at a cursor.
pub(crate) const BACKLOG: &str = "
select coalesce(sum(head.next_seq - cursor.seq), 0)::bigint,
    coalesce(extract(epoch from clock_timestamp()
        - min((select recorded_at from reel.outbox where partition = cursor.partition and seq = cursor.seq))), 0)::float8
from reel.heads as head join reel.cursors as cursor using (partition)";

/// Advances cursors over what was acked, each under its token and run. What was written says which were still ours.
///
/// The commit need not be durable: a cursor that falls back is caught up by the next opening.
pub(crate) const ADVANCE: &str = "
update reel.cursors as cursor set seq = acked.seq, \"offset\" = acked.next_offset
from unnest($1::integer[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[]) as acked(partition, token, run, seq, next_offset)
where cursor.partition = acked.partition and cursor.token = acked.token and cursor.run = acked.run and acked.run = (select reel.run())
returning cursor.partition";

/// The new cursor of a lane: the next number and the next offset.
pub(crate) struct Advance {
    pub(crate) grant: Grant,
    pub(crate) seq: i64,
    pub(crate) next_offset: i64,
}

/// Writes the cursors and returns the lanes that are no longer ours.
pub(crate) async fn advance(connection: &mut PgConnection, advances: &[Advance]) -> sqlx::Result<Vec<Partition>> {
    let ours: Vec<i32> = sqlx::query_scalar(ADVANCE)
        .bind(advances.iter().map(|advance| advance.grant.partition.0).collect::<Vec<_>>())
        .bind(advances.iter().map(|advance| advance.grant.token).collect::<Vec<_>>())
        .bind(advances.iter().map(|advance| advance.grant.run.as_str()).collect::<Vec<_>>())
        .bind(advances.iter().map(|advance| advance.seq).collect::<Vec<_>>())
        .bind(advances.iter().map(|advance| advance.next_offset).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let lost = advances.iter().map(|advance| advance.grant.partition).filter(|partition| !ours.contains(&partition.0));
    Ok(lost.collect())
}
