//! Opening a lane: one procedure for a first start, a take-over, a crash, a restored backup and a rebuild.
//!
//! It produces `reel.opened`, reads the own topic from the cursor up to it by the consumer's rule, and folds what the
//! database lacks (law 10). `model/opening.py` beside the design is this procedure for one lane in executable form.

use std::collections::HashSet;
use std::sync::Arc;

use rdkafka::error::KafkaError;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Grant, Position, Verdict};
use crate::dead_letters;
use crate::kafka::{ReadError, Reader, Record};
use crate::model::{Partition, Service};
use crate::replica::Replica;
use crate::step::Stored;
use crate::wire::Opened;

mod fold;

/// How many events one piece of the fold commits together.
const PIECE: usize = 1_000;

/// A lane that is open: what the step, the intake and the relay need to work on it.
#[derive(Debug)]
pub(crate) struct OpenLane {
    pub(crate) grant: Grant,
    pub(crate) generation: i64,
    /// The number that the relay sends first.
    pub(crate) next_seq: i64,
    pub(crate) positions: Vec<(Arc<str>, Position)>,
    /// The offsets up to which the inputs held records when the lane was opened.
    pub(crate) input_ends: Vec<i64>,
    pub(crate) parked: HashSet<String>,
}

/// A lane is not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpeningError {
    /// The lane is no longer ours, or the database is in another run.
    #[error("the lane was taken by another replica, or the database was restarted")]
    Lost,
    /// Going on would lose or double something: an operator has to look.
    #[error("the lane is stopped: {0}")]
    Stopped(String),
    /// A topic that we have read or written is not there. It is waited for, since Kafka may only not know it for the moment.
    #[error("{topic} is gone, and was read or written before: the lane goes on when it is back as it was, and skips nothing")]
    Gone { topic: String },
    #[error("the database does not answer")]
    Database(#[from] sqlx::Error),
    #[error("kafka does not answer")]
    Kafka(#[from] KafkaError),
    #[error("kafka does not answer")]
    Reading(#[source] ReadError),
}

/// Opens a lane that was taken. Asked again at any point of it, it does what is left.
pub(crate) async fn open<S: Service<State: Stored>>(replica: &Replica<S>, grant: &Grant) -> Result<OpenLane, OpeningError> {
    let partition = grant.partition;
    // Connections are borrowed for each use: an opening may wait long for Kafka, and the step needs them.
    let mut cursor = cursor(&mut *replica.pool.acquire().await?, grant).await?;
    cursor.opened_id = same_topic(&replica.reader, &replica.topic, partition, &cursor).await?;
    same_end(replica, partition, &cursor).await?;

    let (generation, opened_id) = replica.publisher.open(partition, &replica.instance).await?;
    if generation < cursor.next_offset {
        let (topic, known) = (&replica.topic, cursor.next_offset);
        return Err(OpeningError::Stopped(format!(
            "{topic}/{partition} ends at {generation}, and we have published up to {known}: its end is lost"
        )));
    }
    let mut piece = Vec::new();
    let mut records = replica.reader.range(&replica.topic, partition, cursor.next_offset, generation);
    while let Some(record) = records.recv().await {
        let record = record?;
        match cursor.read(&record) {
            Verdict::Apply => piece.push(record),
            Verdict::Malformed(reason) => {
                tracing::warn!(%partition, offset = record.offset, reason, "somebody else wrote to our topic");
            }
            Verdict::Opened | Verdict::Duplicate | Verdict::Stale | Verdict::Gap { .. } => {}
        }
        if piece.len() == PIECE {
            fold::piece(replica, &mut *replica.pool.acquire().await?, grant, &piece, &cursor, false).await?;
            piece.clear();
        }
    }
    cursor = Position { next_offset: generation + 1, generation, opened_id: Some(opened_id), ..cursor };
    fold::piece(replica, &mut *replica.pool.acquire().await?, grant, &piece, &cursor, true).await?;

    let mut positions = positions::<S>(replica, &mut *replica.pool.acquire().await?, grant).await?;
    let mut input_ends = Vec::new();
    for (topic, position) in &mut positions {
        let (opened_id, end) = sound_input(&replica.reader, topic, partition, position).await?;
        position.opened_id = opened_id;
        input_ends.push(end);
    }
    let parked = dead_letters::parked_keys(&mut *replica.pool.acquire().await?, &[partition.0]).await?;
    Ok(OpenLane { grant: grant.clone(), generation, next_seq: cursor.next_seq, positions, input_ends, parked })
}

async fn cursor(connection: &mut PgConnection, grant: &Grant) -> Result<Position, OpeningError> {
    let cursor: Option<(i64, i64, i64, Option<Uuid>)> = sqlx::query_as(
        "select \"offset\", seq, generation, opened_id from reel.cursors
         where partition = $1 and token = $2 and run = $3 and run = (select reel.run())",
    )
    .bind(grant.partition.0)
    .bind(grant.token)
    .bind(grant.run.as_str())
    .fetch_optional(connection)
    .await?;
    cursor.map(Position::of_row).ok_or(OpeningError::Lost)
}

/// The positions of the inputs.
async fn positions<S: Service>(
    replica: &Replica<S>,
    connection: &mut PgConnection,
    grant: &Grant,
) -> Result<Vec<(Arc<str>, Position)>, OpeningError> {
    let mut positions = Vec::new();
    for topic in &replica.inputs {
        let row: Option<(i64, i64, i64, Option<Uuid>)> = sqlx::query_as(
            "select next_offset, next_seq, generation, opened_id from reel.positions
             where reader = $1 and topic = $2 and partition = $3 and token = $4 and run = $5",
        )
        .bind(S::NAME)
        .bind(topic.as_ref())
        .bind(grant.partition.0)
        .bind(grant.token)
        .bind(grant.run.as_str())
        .fetch_optional(&mut *connection)
        .await?;
        positions.push((topic.clone(), row.map(Position::of_row).ok_or(OpeningError::Lost)?));
    }
    Ok(positions)
}

/// Whether an input still is what was read of it, and goes on behind it. Returns the id of its last `reel.opened`, and where it ends.
pub(crate) async fn sound_input(
    reader: &Reader,
    topic: &str,
    partition: Partition,
    position: &Position,
) -> Result<(Option<Uuid>, i64), OpeningError> {
    let opened_id = same_topic(reader, topic, partition, position).await?;
    let (first, end) = reader.watermarks(topic, partition).await?;
    if !(first..=end).contains(&position.next_offset) {
        let next = position.next_offset;
        return Err(OpeningError::Stopped(format!(
            "{topic}/{partition} holds {first} to {end}, and {next} is to be read: records are lost"
        )));
    }
    Ok((opened_id, end))
}

/// Reads back the record at the generation's offset: if it is not the `reel.opened` that was read there, the topic was
/// made anew. Returns that record's id.
async fn same_topic(reader: &Reader, topic: &str, partition: Partition, position: &Position) -> Result<Option<Uuid>, OpeningError> {
    if position.generation < 0 {
        return Ok(None);
    }
    let record = reader.at(topic, partition, position.generation).await.map_err(OpeningError::of_known)?;
    let opened = record.as_ref().and_then(Record::opened_id);
    match (opened, position.opened_id) {
        (Some(found), Some(known)) if found == known => Ok(Some(found)),
        (Some(found), None) => Ok(Some(found)),
        _ => Err(OpeningError::Stopped(format!(
            "{topic}/{partition} does not hold our reel.opened at offset {}: the topic was made anew; restore it, or rebuild this service",
            position.generation
        ))),
    }
}

/// Reads back the last record that we know to have published: if another one stands there, the end of the topic was lost, although
/// something was written since.
async fn same_end<S: Service>(replica: &Replica<S>, partition: Partition, cursor: &Position) -> Result<(), OpeningError> {
    let last = cursor.next_offset - 1;
    if last <= cursor.generation {
        return Ok(()); // the `reel.opened` itself
    }
    let record = replica.reader.at(&replica.topic, partition, last).await.map_err(OpeningError::of_known)?;
    let found = record.as_ref().and_then(|record| record.envelope.as_ref().ok());
    let (number, generation) = (cursor.next_seq - 1, cursor.generation);
    if found.is_some_and(|envelope| (envelope.number, envelope.generation) == (Some(number), Some(generation))) {
        return Ok(());
    }
    let topic = &replica.topic;
    Err(OpeningError::Stopped(format!("{topic}/{partition} does not hold our event {number} at offset {last}: its end was lost")))
}

impl Position {
    fn of_row((next_offset, next_seq, generation, opened_id): (i64, i64, i64, Option<Uuid>)) -> Self {
        Self { next_offset, next_seq, generation, opened_id }
    }
}

impl Record {
    fn opened_id(&self) -> Option<Uuid> {
        let envelope = self.envelope.as_ref().ok()?;
        (envelope.name == Opened::NAME && envelope.number.is_none()).then_some(envelope.id)
    }
}

impl OpeningError {
    /// Of a topic whose records are known.
    fn of_known(error: ReadError) -> Self {
        match error {
            ReadError::NoTopic { topic, .. } => Self::Gone { topic },
            other => other.into(),
        }
    }
}

impl From<ReadError> for OpeningError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::OutOfRange { .. } => Self::Stopped(error.to_string()),
            ReadError::NoTopic { .. } | ReadError::Kafka(_) | ReadError::CutOff => Self::Reading(error),
        }
    }
}
