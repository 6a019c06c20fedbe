//! `reel.dead_letters` and `reel.parked` (law 8): what cannot be handled is kept by where it is, in
//! the same transaction, and parks its key. The bytes stay in the input, which keeps everything.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::deadlines::Due;
use crate::model::Partition;
use crate::wire::{Parked, RecordRef};

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
    for letter in letters {
        let input = if let Source::Input(input) = &letter.source { Some(input) } else { None };
        let (topic, offset, command) = match &letter.source {
            Source::Input(input) => (Some(&input.topic), Some(input.offset), None),
            Source::Foreign(topic, offset) => (Some(topic), Some(*offset), None),
            Source::Deadline(command) => (None, None, Some(command)),
        };
        sqlx::query(
            "insert into reel.dead_letters
                 (id, partition, topic, generation, number, \"offset\", key, type, command, reason)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             on conflict on constraint dead_letters_once do nothing",
        )
        .bind(Uuid::now_v7())
        .bind(letter.partition.0)
        .bind(topic)
        .bind(input.map(|input| input.epoch))
        .bind(input.map(|input| input.sequence))
        .bind(offset)
        .bind(letter.key.as_deref().map(storable))
        .bind(storable(&letter.name))
        .bind(command)
        .bind(storable(&letter.reason))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Parks messages behind their keys, in this order. The fold of `reel.parked`.
pub(crate) async fn park(
    connection: &mut PgConnection,
    parked: &[(String, Parked)],
) -> sqlx::Result<()> {
    for (key, message) in parked {
        sqlx::query(
            "insert into reel.parked
                 (partition, key, topic, generation, number, \"offset\", type, reason)
             values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing",
        )
        .bind(message.partition)
        .bind(key)
        .bind(&message.topic)
        .bind(message.generation)
        .bind(message.number)
        .bind(message.offset)
        .bind(storable(&message.message_type))
        .bind(storable(&message.reason))
        .execute(&mut *connection)
        .await?;
    }
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

/// The keys that are parked in these lanes.
pub(crate) async fn parked_keys(
    connection: &mut PgConnection,
    lanes: &[i32],
) -> sqlx::Result<HashSet<String>> {
    Ok(parked_in(connection, lanes).await?.into_iter().map(|(_, key)| key).collect())
}

/// Postgres' text holds every character but NUL.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
