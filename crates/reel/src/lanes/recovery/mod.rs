//! Recovery of a lane: one procedure for a first start, a handover, a crash, a restored backup and
//! a rebuild (docs/laws.md, "Recovery").
//!
//! It produces `reel.opened`, reads the own topic from the cursor up to it by the consumer's rule,
//! and replays what the database lacks (law 10).

mod replay;

use rdkafka::error::KafkaError;

use crate::database::answered;
use crate::kafka::ReadError;
use crate::kafka::continuity::{self, ContinuityError, epoch_missed};
use crate::lane::{Lease, OpenInput, OpenLane};
use crate::log::{Position, Record, Verdict};
use crate::model::Service;
use crate::replica::Replica;
use crate::rows::Stored;
use crate::tables::{cursors, dead_letters, positions};
use replay::Chunk;

/// Events that one chunk of the replay commits together, and bytes after which it takes no more.
/// They bound memory, and how long rows are locked.
const CHUNK: usize = 1_000;
const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Lanes that are replayed at a time, each with a chunk in memory. Fewer than the reader has consumers:
/// others check their topics meanwhile.
pub(crate) const REPLAYS: usize = 6;

/// Why a lane could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    /// The lane is no longer ours, or the database is in another epoch. The next rebalance acquires
    /// the lane again if it is free.
    #[error("the lane was taken by another replica, or the database was restarted")]
    Lost,
    /// To go on would lose something or do it twice: an operator has to look.
    #[error("the lane is stopped: {0}")]
    Stopped(String),
    /// A topic is gone or cannot be read. Proof of loss is `Stopped` instead.
    #[error(transparent)]
    Continuity(ContinuityError),
    #[error("the database does not answer")]
    Database(#[from] sqlx::Error),
    #[error("kafka does not answer")]
    Kafka(#[from] KafkaError),
}

/// Recovers a lane that was acquired. After a failure at any point it can be called again, and does
/// what is left.
///
/// # Errors
/// If the lane was lost or must stop, or Kafka or the database is unreachable.
pub(crate) async fn recover<S: Service<State: Stored>>(
    replica: &Replica<S>,
    lease: &Lease,
) -> Result<OpenLane, RecoveryError> {
    let cursor = known_cursor(replica, lease).await?;

    // Open the log before it is read. From here on, whatever a zombie still sends comes behind our
    // `reel.opened`, and every consumer drops it as stale.
    let (epoch, opened_id) = replica.publisher.open(lease.partition, &replica.instance).await?;
    if epoch < cursor.next_offset {
        let (topic, partition, known) = (&replica.topic, lease.partition, cursor.next_offset);
        return Err(RecoveryError::Stopped(format!(
            "{topic}/{partition} ends at {epoch}, and we have published up to {known}: its end is \
             lost"
        )));
    }

    // What it has sent before is in the topic, and counts for consumers. So it must count for us.
    let turn = replica.replays.acquire().await;
    let (cursor, rest) = read_own_topic(replica, lease, cursor, epoch).await?;

    // Only the last chunk opens the lane, and there always is one. If an earlier one did, a command
    // could take a sequence that the next one is about to replay.
    let opened = Position { next_offset: epoch + 1, epoch, opened_id: Some(opened_id), ..cursor };
    let chunk = Chunk { records: &rest, cursor: &opened, opens: true };
    replay::commit(replica, lease, chunk).await?;
    drop((turn, rest));

    // The positions come last, because the replay has restored them.
    let inputs = open_inputs(replica, lease).await?;
    let mut connection = replica.pool.get().await?;
    let parked = answered(dead_letters::parked_keys(&mut connection, lease.partition)).await?;
    connection.give_back();
    let next_sequence = opened.next_sequence;
    Ok(OpenLane { lease: lease.clone(), epoch, next_sequence, inputs, parked })
}

/// Reads the cursor and checks it against the topic: what we know to have published must still be
/// there.
///
/// Here and below, connections are borrowed for each use: recovery may wait long for Kafka, and
/// other lanes need them too.
///
/// # Errors
/// If the lane was lost, or the topic has lost something.
async fn known_cursor<S: Service>(
    replica: &Replica<S>,
    lease: &Lease,
) -> Result<Position, RecoveryError> {
    let (reader, topic, partition) = (&replica.reader, &replica.topic, lease.partition);
    let mut connection = replica.pool.get().await?;
    let cursor = answered(cursors::read(&mut connection, lease)).await?;
    connection.give_back();

    let mut cursor = cursor.ok_or(RecoveryError::Lost)?;
    cursor.opened_id = continuity::check_epoch(reader, topic, partition, &cursor).await?;
    continuity::check_end(reader, topic, partition, &cursor).await?;
    Ok(cursor)
}

/// Reads the own topic from the cursor up to our `reel.opened`, and replays it chunk by chunk.
/// Returns the cursor behind the last record, and the records of the last chunk, which is not
/// committed yet.
async fn read_own_topic<S: Service<State: Stored>>(
    replica: &Replica<S>,
    lease: &Lease,
    mut cursor: Position,
    until: i64,
) -> Result<(Position, Vec<Record>), RecoveryError> {
    let partition = lease.partition;
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    let mut records = replica.reader.range(&replica.topic, partition, cursor.next_offset, until);
    while let Some(record) = records.recv().await {
        let record = record?;

        // What consumers drop does not count here either: the relay sends it again if it is in the
        // outbox.
        match cursor.read(&record) {
            Verdict::Apply => {
                bytes += record.size();
                chunk.push(record);
            }
            Verdict::Malformed(reason) => tracing::warn!(
                event.code = "topic.foreign_record", %partition, offset = record.offset, reason,
                "somebody else wrote to our topic"
            ),
            Verdict::EpochMissed { epoch } => {
                return Err(RecoveryError::Stopped(epoch_missed(&record, epoch)));
            }
            Verdict::Opened | Verdict::Duplicate | Verdict::Stale | Verdict::Gap { .. } => {}
        }

        if chunk.len() == CHUNK || bytes >= CHUNK_BYTES {
            let full = Chunk { records: &chunk, cursor: &cursor, opens: false };
            replay::commit(replica, lease, full).await?;
            chunk.clear();
            bytes = 0;
        }
    }

    Ok((cursor, chunk))
}

/// Reads the positions of the inputs, and checks each against its topic.
///
/// # Errors
/// If the lane was lost, or a topic does not hold what was read of it.
async fn open_inputs<S: Service>(
    replica: &Replica<S>,
    lease: &Lease,
) -> Result<Vec<OpenInput>, RecoveryError> {
    let mut inputs = Vec::new();
    let mut connection = replica.pool.get().await?;
    for topic in &replica.inputs {
        let position = positions::read(&mut connection, S::NAME, lease, topic);
        let position = answered(position).await?.ok_or(RecoveryError::Lost)?;
        inputs.push(OpenInput { topic: topic.clone(), position, end: 0 });
    }
    connection.give_back();

    for input in &mut inputs {
        let OpenInput { topic, position, end } = input;
        let partition = lease.partition;
        let continued =
            continuity::check_input(&replica.reader, topic, partition, position).await?;
        position.opened_id = continued.opened_id;
        *end = continued.end;
    }

    Ok(inputs)
}

impl From<ContinuityError> for RecoveryError {
    fn from(error: ContinuityError) -> Self {
        match error {
            ContinuityError::Lost(reason) => Self::Stopped(reason),
            ContinuityError::Gone { .. } | ContinuityError::Read(_) => Self::Continuity(error),
        }
    }
}

impl From<ReadError> for RecoveryError {
    fn from(error: ReadError) -> Self {
        ContinuityError::from(error).into()
    }
}
