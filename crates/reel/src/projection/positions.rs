//! Where a projection stands in its inputs. No token fences these rows: whoever moves one compares where it was.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{PgConnection, Row as _};

use crate::lanes::Position;
use crate::model::Partition;

/// By topic-partition: the offset from which a transaction moves, and where it moves to.
pub(super) type Moves = HashMap<(Arc<str>, Partition), (i64, Position)>;

/// What became of moves.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// All were made.
    All,
    /// A position is not where it was left: another replica, to which its lane went, has moved it.
    Overtaken,
}

/// The positions in one partition of these topics. Those that are new begin at the start.
pub(super) async fn load(
    reader: &str,
    topics: &[&str],
    partition: Partition,
    connection: &mut PgConnection,
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
    .bind(Position::START.next_seq)
    .bind(Position::START.generation)
    .execute(&mut *connection)
    .await?;
    let rows = sqlx::query(
        "select topic, next_offset, next_seq, generation, opened_id from reel.positions
         where reader = $1 and partition = $2 and topic = any($3)",
    )
    .bind(reader)
    .bind(partition.0)
    .bind(topics)
    .fetch_all(&mut *connection)
    .await?;
    let position = |row: &sqlx::postgres::PgRow| -> sqlx::Result<_> {
        let position = Position {
            next_offset: row.try_get("next_offset")?,
            next_seq: row.try_get("next_seq")?,
            generation: row.try_get("generation")?,
            opened_id: row.try_get("opened_id")?,
        };
        Ok((Arc::from(row.try_get::<&str, _>("topic")?), position))
    };
    rows.iter().map(position).collect()
}

/// Moves positions, each if it is where it was left.
pub(super) async fn advance(reader: &str, moves: &Moves, connection: &mut PgConnection) -> sqlx::Result<Moved> {
    let positions = || moves.values().map(|(_, position)| position);
    let done = sqlx::query(
        "update reel.positions as position
         set next_offset = moved.next_offset, next_seq = moved.next_seq, generation = moved.generation, opened_id = moved.opened_id
         from unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::uuid[])
             as moved(topic, partition, from_offset, next_offset, next_seq, generation, opened_id)
         where position.reader = $1 and position.topic = moved.topic and position.partition = moved.partition
             and position.next_offset = moved.from_offset",
    )
    .bind(reader)
    .bind(moves.keys().map(|(topic, _)| topic.as_ref()).collect::<Vec<&str>>())
    .bind(moves.keys().map(|(_, partition)| partition.0).collect::<Vec<_>>())
    .bind(moves.values().map(|(from, _)| *from).collect::<Vec<_>>())
    .bind(positions().map(|position| position.next_offset).collect::<Vec<_>>())
    .bind(positions().map(|position| position.next_seq).collect::<Vec<_>>())
    .bind(positions().map(|position| position.generation).collect::<Vec<_>>())
    .bind(positions().map(|position| position.opened_id).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(if done.rows_affected() == moves.len() as u64 { Moved::All } else { Moved::Overtaken })
}
