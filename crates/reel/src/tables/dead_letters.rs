//! `reel.dead_letters` and `reel.parked` (law 8): what cannot be handled is kept by where it is, in
//! the same transaction, and parks its key. The bytes stay in the input, which keeps everything.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::deadlines::Due;
use crate::model::Partition;
use crate::wire::{Parked, RecordRef};

/// A parked key may have many messages, of which one is enough.
const PARKED_AMONG: &str = "select distinct asked.key
    from unnest($1::integer[], $2::text[]) as asked(partition, key)
    where exists (select from reel.parked
        where parked.partition = asked.partition and parked.key = asked.key)";

/// A message that could not be handled.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetter {
    pub(crate) partition: Partition,
    pub(crate) source: Source,
    pub(crate) key: Option<String>,
    pub(crate) name: String,
    pub(crate) reason: String,
}

/// Where the message is.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// An input with a sequence.
    Input(RecordRef),
    /// A record that is not an event of ours: its topic and offset.
    Foreign(String, i64),
    /// A deadline, with the command that was to be decided.
    Deadline(serde_json::Value),
}

impl DeadLetter {
    /// A deadline whose command cannot be decided: it waits for the operator.
    pub(crate) fn of_deadline(due: &Due, reason: String) -> Self {
        Self {
            partition: Partition(due.partition),
            source: Source::Deadline(due.command.clone()),
            key: Some(due.key.clone()),
            name: due.name.clone(),
            reason,
        }
    }
}

/// Keeps dead letters. One that is there already, because its input was blocked and read again, is
/// not kept twice.
pub(crate) async fn keep(
    connection: &mut PgConnection,
    letters: &[DeadLetter],
) -> sqlx::Result<()> {
    if letters.is_empty() {
        return Ok(());
    }

    let input = |letter: &DeadLetter| match &letter.source {
        Source::Input(input) => Some(input.clone()),
        Source::Foreign(..) | Source::Deadline(_) => None,
    };
    let topic = |letter: &DeadLetter| match &letter.source {
        Source::Input(input) => Some(input.topic.clone()),
        Source::Foreign(topic, _) => Some(topic.clone()),
        Source::Deadline(_) => None,
    };
    let offset = |letter: &DeadLetter| match &letter.source {
        Source::Input(input) => Some(input.offset),
        Source::Foreign(_, offset) => Some(*offset),
        Source::Deadline(_) => None,
    };
    let command = |letter: &DeadLetter| match &letter.source {
        Source::Deadline(command) => Some(command.clone()),
        Source::Input(_) | Source::Foreign(..) => None,
    };

    sqlx::query(
        "insert into reel.dead_letters
             (id, partition, topic, generation, number, \"offset\", key, type, command, reason)
         select * from unnest($1::uuid[], $2::integer[], $3::text[], $4::bigint[], $5::bigint[],
             $6::bigint[], $7::text[], $8::text[], $9::jsonb[], $10::text[])
         on conflict on constraint dead_letters_once do nothing",
    )
    .bind(column(letters, |_| Uuid::now_v7()))
    .bind(column(letters, |letter| letter.partition.0))
    .bind(column(letters, topic))
    .bind(column(letters, |letter| input(letter).map(|input| input.epoch)))
    .bind(column(letters, |letter| input(letter).map(|input| input.sequence)))
    .bind(column(letters, offset))
    .bind(column(letters, |letter| letter.key.as_deref().map(storable)))
    .bind(column(letters, |letter| storable(&letter.name)))
    .bind(column(letters, command))
    .bind(column(letters, |letter| storable(&letter.reason)))
    .execute(connection)
    .await?;
    Ok(())
}

/// Parks messages behind their keys, in this order. The fold of `reel.parked`.
pub(crate) async fn park(
    connection: &mut PgConnection,
    parked: &[(String, Parked)],
) -> sqlx::Result<()> {
    if parked.is_empty() {
        return Ok(());
    }

    // In their order, which `nth` keeps.
    sqlx::query(
        "insert into reel.parked
             (partition, key, topic, generation, number, \"offset\", type, reason)
         select partition, key, topic, generation, number, \"offset\", type, reason
         from unnest($1::integer[], $2::text[], $3::text[], $4::bigint[], $5::bigint[],
             $6::bigint[], $7::text[], $8::text[]) with ordinality
             as t(partition, key, topic, generation, number, \"offset\", type, reason, place)
         order by place on conflict do nothing",
    )
    .bind(column(parked, |(_, message)| message.partition))
    .bind(column(parked, |(key, _)| key.clone()))
    .bind(column(parked, |(_, message)| message.topic.clone()))
    .bind(column(parked, |(_, message)| message.generation))
    .bind(column(parked, |(_, message)| message.number))
    .bind(column(parked, |(_, message)| message.offset))
    .bind(column(parked, |(_, message)| storable(&message.message_type)))
    .bind(column(parked, |(_, message)| storable(&message.reason)))
    .execute(connection)
    .await?;
    Ok(())
}

/// Releases a parked message. The fold of `reel.released`.
pub(crate) async fn release(
    connection: &mut PgConnection,
    (topic, partition, epoch, sequence): (&str, i32, i64, i64),
) -> sqlx::Result<()> {
    sqlx::query(
        "delete from reel.parked
         where topic = $1 and partition = $2 and generation = $3 and number = $4",
    )
    .bind(topic)
    .bind(partition)
    .bind(epoch)
    .bind(sequence)
    .execute(connection)
    .await?;
    Ok(())
}

/// The keys that are parked in these lanes, with their lanes.
pub(crate) async fn parked_in(
    connection: &mut PgConnection,
    lanes: &[i32],
) -> sqlx::Result<Vec<(i32, String)>> {
    let parked = "select distinct partition, key from reel.parked where partition = any($1)";
    sqlx::query_as(parked).bind(lanes).fetch_all(connection).await
}

/// The keys that are parked in a lane.
pub(crate) async fn parked_keys(
    connection: &mut PgConnection,
    lane: Partition,
) -> sqlx::Result<HashSet<String>> {
    let parked = parked_in(connection, &[lane.0]).await?;
    Ok(parked.into_iter().map(|(_, key)| key).collect())
}

/// Those of these keys, each of its lane, that are parked.
pub(crate) async fn parked_among(
    connection: &mut PgConnection,
    keys: &[(Partition, &str)],
) -> sqlx::Result<HashSet<String>> {
    let parked: Vec<String> = sqlx::query_scalar(PARKED_AMONG)
        .bind(column(keys, |(lane, _)| lane.0))
        .bind(column(keys, |(_, key)| *key))
        .fetch_all(connection)
        .await?;
    Ok(parked.into_iter().collect())
}

fn column<T, C>(rows: &[T], value: impl Fn(&T) -> C) -> Vec<C> {
    rows.iter().map(value).collect()
}

/// Postgres' text holds every character but NUL.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Fixture;
    use crate::tests::plan::plan;

    #[tokio::test]
    async fn the_keys_of_a_batch_are_looked_up_by_key_however_many_are_parked() {
        let plan = plan(&Fixture::closed("parked").await, PARKED_AMONG).await;
        let both = "Index Cond: ((partition = asked.partition) AND (key = asked.key))";
        assert!(plan.contains(both), "{plan}");
    }
}
