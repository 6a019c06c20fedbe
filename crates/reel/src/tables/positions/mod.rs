//! `reel.positions`: how far each input was consumed, by the service or by a projection (the
//! reader). The service's own are fenced by token and database epoch; those of projections are
//! [`unfenced`].

pub(crate) mod unfenced;

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::lane::Lease;
use crate::log::Position;
use crate::model::{Partition, Partitions, Timestamp};
use crate::wire::RecordRef;

/// Moves the position of one input of a lane.
pub(crate) struct Move<'a> {
    pub(crate) lease: &'a Lease,
    pub(crate) topic: &'a str,
    /// The offset that the database has.
    pub(crate) from_offset: i64,
    pub(crate) to: &'a Position,
}

/// What became of moves, and what the database said besides.
pub(crate) struct Moved {
    /// The database's time.
    pub(crate) now: Timestamp,
    /// The lanes of which a position was no longer ours, or not where we left it.
    pub(crate) fenced: BTreeSet<Partition>,
    /// Whether all lanes were opened for the database's epoch.
    pub(crate) all_open: bool,
}

/// Moves positions whose token, epoch and offset are still ours. It also returns whether all lanes
/// are open, because a decision that yields nothing must not be made on a state that lacks events
/// either.
pub(crate) const ADVANCE: &str = "
with moved as (
    update reel.positions as position
    set next_offset = new.next_offset, next_seq = new.next_seq,
        generation = new.generation, opened_id = new.opened_id
    from unnest($2::text[], $3::integer[], $4::uuid[], $5::text[], $6::bigint[],
            $7::bigint[], $8::bigint[], $9::bigint[], $10::uuid[])
        as new(topic, partition, token, run, expected,
            next_offset, next_seq, generation, opened_id)
    where position.reader = $1
      and position.topic = new.topic and position.partition = new.partition
      and position.token = new.token and position.run = new.run
      and position.next_offset = new.expected and new.run = (select reel.run())
    returning position.topic, position.partition
)
select clock_timestamp(),
    array(select partition from moved), array(select topic from moved),
    not exists (
        select from reel.heads
        where opened_run is distinct from coalesce((select reel.run()), ''))";

/// Creates the rows of a service's inputs that are missing.
pub(super) async fn create(
    connection: &mut PgConnection,
    reader: &str,
    inputs: &[Arc<str>],
    partitions: Partitions,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into reel.positions (reader, topic, partition, next_offset, next_seq, generation)
         select $1, topic, partition, 0, 0, -1
         from unnest($2::text[]) as topic, generate_series(0, $3 - 1) as partition
         on conflict do nothing",
    )
    .bind(reader)
    .bind(inputs.iter().map(AsRef::as_ref).collect::<Vec<&str>>())
    .bind(partitions.count())
    .execute(connection)
    .await?;
    Ok(())
}

/// Sets the token of a lane that is being acquired.
pub(super) async fn fence(
    connection: &mut PgConnection,
    reader: &str,
    lease: &Lease,
) -> sqlx::Result<()> {
    let fence = "update reel.positions set token = $3, run = $4
        where reader = $1 and partition = $2";
    sqlx::query(fence)
        .bind(reader)
        .bind(lease.partition.0)
        .bind(lease.token)
        .bind(lease.database_epoch.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// Moves positions; what was not moved is in [`Moved::fenced`].
pub(crate) async fn advance(
    connection: &mut PgConnection,
    reader: &str,
    moves: &[Move<'_>],
) -> sqlx::Result<Moved> {
    let leases = || moves.iter().map(|moved| moved.lease);
    let targets = || moves.iter().map(|moved| moved.to);
    let (now, partitions, topics, all_open): (
        chrono::DateTime<chrono::Utc>,
        Vec<i32>,
        Vec<String>,
        bool,
    ) = sqlx::query_as(ADVANCE)
        .bind(reader)
        .bind(moves.iter().map(|moved| moved.topic).collect::<Vec<_>>())
        .bind(leases().map(|lease| lease.partition.0).collect::<Vec<_>>())
        .bind(leases().map(|lease| lease.token).collect::<Vec<_>>())
        .bind(leases().map(|lease| lease.database_epoch.as_str()).collect::<Vec<_>>())
        .bind(moves.iter().map(|moved| moved.from_offset).collect::<Vec<_>>())
        .bind(targets().map(|to| to.next_offset).collect::<Vec<_>>())
        .bind(targets().map(|to| to.next_sequence).collect::<Vec<_>>())
        .bind(targets().map(|to| to.epoch).collect::<Vec<_>>())
        .bind(targets().map(|to| to.opened_id).collect::<Vec<_>>())
        .fetch_one(connection)
        .await?;

    let ours: BTreeSet<(i32, &str)> =
        partitions.into_iter().zip(topics.iter().map(String::as_str)).collect();
    let fenced = moves.iter().map(|moved| (moved.lease.partition, moved.topic));
    let fenced = fenced.filter(|(partition, topic)| !ours.contains(&(partition.0, *topic)));
    Ok(Moved { now: now.into(), fenced: fenced.map(|(lane, _)| lane).collect(), all_open })
}

/// The position of one input of a lane; `None` if the lane is no longer ours.
pub(crate) async fn read(
    connection: &mut PgConnection,
    reader: &str,
    lease: &Lease,
    topic: &str,
) -> sqlx::Result<Option<Position>> {
    let row = sqlx::query(
        "select next_offset, next_seq, generation, opened_id from reel.positions
         where reader = $1 and topic = $2 and partition = $3 and token = $4 and run = $5",
    )
    .bind(reader)
    .bind(topic)
    .bind(lease.partition.0)
    .bind(lease.token)
    .bind(lease.database_epoch.as_str())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(position_of).transpose()
}

/// The positions of all lanes that are still ours, by lane and topic.
pub(crate) async fn read_all(
    connection: &mut PgConnection,
    reader: &str,
    leases: &[Lease],
) -> sqlx::Result<Vec<(Partition, String, Position)>> {
    let rows = sqlx::query(
        "select position.partition, topic, next_offset, next_seq, generation, opened_id
         from reel.positions as position
         join unnest($2::integer[], $3::uuid[], $4::text[]) as mine(partition, token, run)
           on mine.partition = position.partition
          and mine.token = position.token and mine.run = position.run
         where reader = $1 and mine.run = (select reel.run())",
    )
    .bind(reader)
    .bind(leases.iter().map(|lease| lease.partition.0).collect::<Vec<_>>())
    .bind(leases.iter().map(|lease| lease.token).collect::<Vec<_>>())
    .bind(leases.iter().map(|lease| lease.database_epoch.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let read = rows.iter().map(|row| {
        Ok((Partition(row.try_get("partition")?), row.try_get("topic")?, position_of(row)?))
    });
    read.collect()
}

/// Restores a position in recovery: the record at `consumed` was consumed last for certain.
pub(crate) async fn restore(
    connection: &mut PgConnection,
    reader: &str,
    lease: &Lease,
    consumed: &RecordRef,
) -> sqlx::Result<()> {
    sqlx::query(
        "update reel.positions set next_offset = $6 + 1, next_seq = $7 + 1, generation = $8,
             opened_id = case when generation = $8 then opened_id end
         where reader = $1 and topic = $2 and partition = $3 and token = $4 and run = $5
           and next_seq <= $7",
    )
    .bind(reader)
    .bind(&consumed.topic)
    .bind(lease.partition.0)
    .bind(lease.token)
    .bind(lease.database_epoch.as_str())
    .bind(consumed.offset)
    .bind(consumed.sequence)
    .bind(consumed.epoch)
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether anything was ever read of a topic.
pub(crate) async fn any_read(connection: &mut PgConnection, topic: &str) -> sqlx::Result<bool> {
    let any = "select exists (select from reel.positions where topic = $1 and generation >= 0)";
    sqlx::query_scalar(any).bind(topic).fetch_one(connection).await
}

fn position_of(row: &sqlx::postgres::PgRow) -> sqlx::Result<Position> {
    Ok(Position {
        next_offset: row.try_get("next_offset")?,
        next_sequence: row.try_get("next_seq")?,
        epoch: row.try_get("generation")?,
        opened_id: row.try_get::<Option<Uuid>, _>("opened_id")?,
    })
}

#[cfg(test)]
mod tests {
    use super::ADVANCE;
    use crate::tests::plan::uses_index;

    #[tokio::test]
    async fn positions_are_advanced_by_key() {
        uses_index(ADVANCE, "positions_pkey").await;
    }
}
