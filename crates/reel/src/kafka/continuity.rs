//! Checks that a topic-partition still contains what was read of it. If it was recreated, truncated
//! or deleted, records are lost, and a reader must not continue silently.

use uuid::Uuid;

use super::{RangeReader, ReadError};
use crate::log::{Position, Record, Verdict};
use crate::model::Partition;

/// A topic-partition no longer contains what was read of it, or cannot be checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContinuityError {
    /// Records are lost: an operator has to decide.
    #[error("{0}")]
    Lost(String),
    /// The topic does not exist. The caller waits for it, because Kafka may report this only for a
    /// moment.
    #[error(
        "{topic} is gone, and was read or written before: the lane goes on when it is back as it \
         was, and skips nothing"
    )]
    Gone { topic: String },
    /// Kafka cannot be asked.
    #[error("kafka does not answer")]
    Read(#[source] ReadError),
}

/// An input that can be read on from its position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Continued {
    /// The id of the last `reel.opened` that was read.
    pub(crate) opened_id: Option<Uuid>,
    /// The offset behind the input's last record.
    pub(crate) end: i64,
}

/// What [`Verdict::EpochMissed`] means for the reader of a record.
pub(crate) fn epoch_missed(record: &Record, epoch: i64) -> String {
    let Record { topic, partition, offset, .. } = record;
    format!(
        "{topic}/{partition} has a record of the epoch {epoch} at offset {offset}, and the \
         reel.opened of that epoch was never read: the topic lost its end and was written on, or \
         somebody else wrote the record"
    )
}

/// Checks that an input still contains what was read of it, and that its next record is not lost:
/// neither missing, nor replaced after the topic lost its end and was written on.
pub(crate) async fn check_input(
    reader: &RangeReader,
    topic: &str,
    partition: Partition,
    position: &Position,
) -> Result<Continued, ContinuityError> {
    let opened_id = check_epoch(reader, topic, partition, position).await?;
    let (first, end) = reader.watermarks(topic, partition).await?;
    if !(first..=end).contains(&position.next_offset) {
        let next = position.next_offset;
        return Err(ContinuityError::Lost(format!(
            "{topic}/{partition} holds {first} to {end}, and {next} is to be read: records are lost"
        )));
    }
    check_last_read(reader, topic, partition, position).await?;
    Ok(Continued { opened_id, end })
}

/// Reads back the record at the epoch's offset, and returns its id. If it is not the `reel.opened`
/// that was read there, the topic was recreated.
pub(crate) async fn check_epoch(
    reader: &RangeReader,
    topic: &str,
    partition: Partition,
    position: &Position,
) -> Result<Option<Uuid>, ContinuityError> {
    if position.epoch < 0 {
        return Ok(None);
    }

    let record = read_known(reader, topic, partition, position.epoch).await?;
    match (record.as_ref().and_then(Record::opened_id), position.opened_id) {
        (Some(found), Some(known)) if found == known => Ok(Some(found)),
        (Some(found), None) => Ok(Some(found)),
        _ => Err(ContinuityError::Lost(format!(
            "{topic}/{partition} does not hold our reel.opened at offset {}: the topic was \
             recreated; restore it, or rebuild this service",
            position.epoch
        ))),
    }
}

/// Reads back the last record that we know we published. If another record is at its offset, the
/// end of the topic was lost and something was written since.
pub(crate) async fn check_end(
    reader: &RangeReader,
    topic: &str,
    partition: Partition,
    cursor: &Position,
) -> Result<(), ContinuityError> {
    let last = cursor.next_offset - 1;
    if last <= cursor.epoch {
        return Ok(()); // the `reel.opened` itself
    }

    let record = read_known(reader, topic, partition, last).await?;
    let found = record.as_ref().and_then(|record| record.envelope.as_ref().ok());
    let (sequence, epoch) = (cursor.next_sequence - 1, cursor.epoch);
    match found {
        Some(found) if (found.sequence, found.epoch) == (Some(sequence), Some(epoch)) => Ok(()),
        _ => Err(ContinuityError::Lost(format!(
            "{topic}/{partition} does not hold our event {sequence} at offset {last}: its end was \
             lost"
        ))),
    }
}

/// Reads back the last record that was read of an input. If it is one that would have moved the
/// position further, it is not the one that was read.
async fn check_last_read(
    reader: &RangeReader,
    topic: &str,
    partition: Partition,
    position: &Position,
) -> Result<(), ContinuityError> {
    let last = position.next_offset - 1;
    if last <= position.epoch {
        return Ok(()); // the `reel.opened` itself, or nothing
    }

    let record = read_known(reader, topic, partition, last).await?;
    if record.is_none_or(|record| could_be_read_before(position, &record)) {
        Ok(())
    } else {
        Err(ContinuityError::Lost(format!(
            "{topic}/{partition} holds another record at offset {last} than was read there: its \
             end was lost, and it was written on"
        )))
    }
}

/// Whether a reader at this position can have read the record before it.
fn could_be_read_before(position: &Position, record: &Record) -> bool {
    match position.classify(record) {
        Verdict::Opened | Verdict::EpochMissed { .. } | Verdict::Apply | Verdict::Gap { .. } => {
            false
        }
        Verdict::Duplicate | Verdict::Stale | Verdict::Malformed(_) => true,
    }
}

/// The record at an offset of a topic whose records are known.
async fn read_known(
    reader: &RangeReader,
    topic: &str,
    partition: Partition,
    offset: i64,
) -> Result<Option<Record>, ContinuityError> {
    reader.at(topic, partition, offset).await.map_err(|error| match error {
        ReadError::NoTopic { topic, .. } => ContinuityError::Gone { topic },
        other => other.into(),
    })
}

impl From<ReadError> for ContinuityError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::OutOfRange { .. } => Self::Lost(error.to_string()),
            ReadError::NoTopic { .. }
            | ReadError::Silent { .. }
            | ReadError::Kafka(_)
            | ReadError::CutOff => Self::Read(error),
        }
    }
}
