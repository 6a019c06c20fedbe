//! Reads the toolkit's tables: for audits, progress displays and tests outside of a service.

use sqlx::PgConnection;
use uuid::Uuid;

pub use crate::database::Database;
use crate::from_row;
use crate::model::{Partition, Timestamp};

/// How far a partition of the own topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneProgress {
    /// The lane.
    pub partition: Partition,
    /// The sequence that is assigned next.
    pub next_sequence: i64,
    /// The sequence up to which events are known to be published.
    pub published: i64,
}

/// How far an input was consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InputProgress {
    /// The topic, as the broker knows it.
    pub topic: String,
    /// The partition.
    pub partition: Partition,
    /// The epoch that is read; -1 before the first.
    pub epoch: i64,
    /// The sequence that is applied next.
    pub next_sequence: i64,
    /// The offset that is read next.
    pub next_offset: i64,
}

/// An event that the database has assigned a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredEvent {
    /// Its partition.
    pub partition: i32,
    /// Its sequence.
    pub sequence: i64,
    /// `ce_id`.
    pub event_id: Uuid,
}

from_row!(StoredEvent { partition: "partition", sequence: "seq", event_id: "event_id" });

/// A deadline that is set.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoredDeadline {
    /// The lane.
    pub partition: i32,
    /// The key, as text.
    pub key: String,
    /// The name, unique within its key.
    pub name: String,
    /// When it is due.
    pub due_at: Timestamp,
    /// The command that is decided then, as JSON.
    pub command: serde_json::Value,
}

/// A message that is parked, or waits behind a parked one of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredParked {
    /// The input's topic.
    pub topic: String,
    /// The input's partition.
    pub partition: i32,
    /// The input's epoch.
    pub epoch: i64,
    /// The message's sequence.
    pub sequence: i64,
    /// The message's offset.
    pub offset: i64,
    /// The message's key.
    pub key: String,
    /// The message's type.
    pub message_type: String,
    /// Why it is parked.
    pub reason: String,
}

from_row!(StoredParked {
    topic: "topic",
    partition: "partition",
    epoch: "generation",
    sequence: "number",
    offset: "offset",
    key: "key",
    message_type: "type",
    reason: "reason",
});

/// The progress of every partition of the own topic, in order.
///
/// # Errors
/// If the database is unreachable or not migrated; so for all functions here.
pub async fn lanes(connection: &mut PgConnection) -> sqlx::Result<Vec<LaneProgress>> {
    let rows: Vec<(i32, i64, i64)> = sqlx::query_as(
        "select partition, next_seq, seq from reel.heads join reel.cursors using (partition)
         order by partition",
    )
    .fetch_all(connection)
    .await?;
    let lane = |(partition, next_sequence, published)| LaneProgress {
        partition: Partition(partition),
        next_sequence,
        published,
    };
    Ok(rows.into_iter().map(lane).collect())
}

/// The progress of a reader (the service or a projection) in every partition of its inputs.
///
/// # Errors
/// See [`lanes`].
pub async fn inputs(
    connection: &mut PgConnection,
    reader: &str,
) -> sqlx::Result<Vec<InputProgress>> {
    let rows: Vec<(String, i32, i64, i64, i64)> = sqlx::query_as(
        "select topic, partition, generation, next_seq, next_offset from reel.positions
         where reader = $1 order by topic, partition",
    )
    .bind(reader)
    .fetch_all(connection)
    .await?;
    let input = |(topic, partition, epoch, next_sequence, next_offset)| InputProgress {
        topic,
        partition: Partition(partition),
        epoch,
        next_sequence,
        next_offset,
    };
    Ok(rows.into_iter().map(input).collect())
}

/// All events, by partition and sequence.
///
/// # Errors
/// See [`lanes`].
pub async fn outbox(connection: &mut PgConnection) -> sqlx::Result<Vec<StoredEvent>> {
    let all = "select partition, seq, event_id from reel.outbox order by partition, seq";
    sqlx::query_as(all).fetch_all(connection).await
}

/// All deadlines.
///
/// # Errors
/// See [`lanes`].
pub async fn deadlines(connection: &mut PgConnection) -> sqlx::Result<Vec<StoredDeadline>> {
    type Row = (i32, String, String, chrono::DateTime<chrono::Utc>, serde_json::Value);
    let all = "select partition, key, name, due_at, command from reel.deadlines";
    let rows: Vec<Row> = sqlx::query_as(all).fetch_all(connection).await?;
    let deadline = |(partition, key, name, due_at, command): Row| {
        let due_at = due_at.into();
        StoredDeadline { partition, key, name, due_at, command }
    };
    Ok(rows.into_iter().map(deadline).collect())
}

/// The number of deadlines in some lanes, or in all.
///
/// # Errors
/// See [`lanes`].
pub async fn deadline_count(
    connection: &mut PgConnection,
    lanes: Option<&[i32]>,
) -> sqlx::Result<i64> {
    let count = "select count(*) from reel.deadlines where $1 is null or partition = any($1)";
    sqlx::query_scalar(count).bind(lanes).fetch_one(connection).await
}

/// All parked messages, in the order in which they were parked.
///
/// # Errors
/// See [`lanes`].
pub async fn parked(connection: &mut PgConnection) -> sqlx::Result<Vec<StoredParked>> {
    let all = "select topic, partition, generation, number, \"offset\", key, type, reason
        from reel.parked order by nth";
    sqlx::query_as(all).fetch_all(connection).await
}

/// The number of dead letters.
///
/// # Errors
/// See [`lanes`].
pub async fn dead_letter_count(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from reel.dead_letters").fetch_one(connection).await
}

/// The lanes that an instance owns, in order, whether or not their leases still run.
///
/// # Errors
/// See [`lanes`].
pub async fn lanes_of(connection: &mut PgConnection, instance: &str) -> sqlx::Result<Vec<i32>> {
    let owned = "select partition from reel.lanes where owner = $1 order by partition";
    sqlx::query_scalar(owned).bind(instance).fetch_all(connection).await
}

/// The owner of each lane, in order, whether or not its lease still runs.
///
/// # Errors
/// See [`lanes`].
pub async fn owners(
    connection: &mut PgConnection,
) -> sqlx::Result<Vec<(Partition, Option<String>)>> {
    let owners = "select partition, owner from reel.lanes order by partition";
    let rows: Vec<(i32, Option<String>)> = sqlx::query_as(owners).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(partition, owner)| (Partition(partition), owner)).collect())
}
