//! Positions of projections. No token fences them: each move compares the position it started from.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sqlx::{PgConnection, Row as _};

use super::position_of;
use crate::log::Position;
use crate::model::Partition;

/// By topic-partition: the offset from which a transaction moves, and where it moves to.
pub(crate) type Moves = HashMap<(Arc<str>, Partition), (i64, Position)>;

/// What became of moves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// All were made.
    All,
    /// In these partitions a position is not where we left it: another replica, which got the lane,
    /// moved it.
    Overtaken(BTreeSet<Partition>),
}

/// The positions in one partition of these topics. New ones begin at the start.
pub(crate) async fn load(
    connection: &mut PgConnection,
    reader: &str,
    topics: &[&str],
    partition: Partition,
) -> sqlx::Result<Vec<(Arc<str>, Position)>> {
    sqlx::query(
        "insert into reel.positions (reader, topic, partition, next_offset, next_seq, generation)
         select $1, topic, $2, $4, $5, $6 from unnest($3::text[]) as input(topic)
         on conflict do nothing",
    )
    .bind(reader)
    .bind(partition.0)
    .bind(topics)
    .bind(Position::START.next_offset)
    .bind(Position::START.next_sequence)
    .bind(Position::START.epoch)
    .execute(&mut *connection)
    .await?;

    let rows = sqlx::query(
        "select topic, next_offset, next_seq, generation, opened_id from reel.positions
         where reader = $1 and partition = $2 and topic = any($3)",
    )
    .bind(reader)
    .bind(partition.0)
    .bind(topics)
    .fetch_all(connection)
    .await?;
    let read =
        rows.iter().map(|row| Ok((row.try_get::<&str, _>("topic")?.into(), position_of(row)?)));
    read.collect()
}

/// Moves positions, each if it is where we left it.
pub(crate) async fn advance(
    connection: &mut PgConnection,
    reader: &str,
    moves: &Moves,
) -> sqlx::Result<Moved> {
    let targets = || moves.values().map(|(_, position)| position);
    let moved: Vec<(String, i32)> = sqlx::query_as(
        "update reel.positions as position
         set next_offset = moved.next_offset, next_seq = moved.next_seq,
             generation = moved.generation, opened_id = moved.opened_id
         from unnest($2::text[], $3::int[], $4::bigint[],
                 $5::bigint[], $6::bigint[], $7::bigint[], $8::uuid[])
             as moved(topic, partition, from_offset, next_offset, next_seq, generation, opened_id)
         where position.reader = $1
           and position.topic = moved.topic and position.partition = moved.partition
           and position.next_offset = moved.from_offset
         returning position.topic, position.partition",
    )
    .bind(reader)
    .bind(moves.keys().map(|(topic, _)| topic.as_ref()).collect::<Vec<&str>>())
    .bind(moves.keys().map(|(_, partition)| partition.0).collect::<Vec<_>>())
    .bind(moves.values().map(|(from, _)| *from).collect::<Vec<_>>())
    .bind(targets().map(|to| to.next_offset).collect::<Vec<_>>())
    .bind(targets().map(|to| to.next_sequence).collect::<Vec<_>>())
    .bind(targets().map(|to| to.epoch).collect::<Vec<_>>())
    .bind(targets().map(|to| to.opened_id).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;

    let moved: BTreeSet<(String, i32)> = moved.into_iter().collect();
    let overtaken =
        moves.keys().filter(|(topic, lane)| !moved.contains(&(topic.to_string(), lane.0)));
    let overtaken: BTreeSet<Partition> = overtaken.map(|(_, lane)| *lane).collect();
    Ok(if overtaken.is_empty() { Moved::All } else { Moved::Overtaken(overtaken) })
}
