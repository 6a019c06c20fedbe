//! Replays the own topic into the database, chunk by chunk. Each chunk moves state, positions,
//! deadlines, head, cursor and the sequence `reel.decided` together, under token and database
//! epoch, so a replay that fails goes on behind the last chunk.

use std::collections::BTreeMap;
use std::convert::Infallible;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::RecoveryError;
use crate::database::{TRANSACTION_WITHIN, WriteBatch};
use crate::lane::Lease;
use crate::log::{Position, Record};
use crate::model::{Message, Partitions, Service, Trigger};
use crate::replica::Replica;
use crate::rows::{Stored, Unloaded, attempt, load, save};
use crate::tables::dead_letters::{self, DeadLetter, Source};
use crate::tables::deadlines::Changes;
use crate::tables::{cursors, decided, heads, outbox, positions};
use crate::wire::{Envelope, Parked, RecordRef, Released};

/// Consecutive records of the own topic that the consumer's rule applies.
#[derive(Clone, Copy)]
pub(super) struct Chunk<'a> {
    pub(super) records: &'a [Record],
    /// The cursor behind the last of them.
    pub(super) cursor: &'a Position,
    /// Whether this is the last chunk, which opens the lane.
    pub(super) opens: bool,
}

/// An event of the own log, decoded.
struct OwnEvent<'a, S: Service> {
    envelope: &'a Envelope,
    key: &'a str,
    content: Content<S>,
}

/// What an event of the own log is: one of the service's, or one of the toolkit's.
enum Content<S: Service> {
    Service(S::Event),
    Parked(Parked),
    Released(Released),
}

/// Commits one chunk: folds those of its records that the database lacks, and moves head and
/// cursor.
///
/// # Errors
/// If the lane was lost, topic and database contradict each other, or the database does not answer.
pub(super) async fn commit<S: Service<State: Stored>>(
    replica: &Replica<S>,
    lease: &Lease,
    chunk: Chunk<'_>,
) -> Result<(), RecoveryError> {
    let mut connection = replica.pool.get().await?;
    let committed = commit_on(&mut connection, replica, lease, chunk);
    let committed = tokio::time::timeout(TRANSACTION_WITHIN, committed).await;
    committed.unwrap_or(Err(sqlx::Error::PoolTimedOut.into()))?;
    connection.give_back();
    Ok(())
}

async fn commit_on<S: Service<State: Stored>>(
    connection: &mut PgConnection,
    replica: &Replica<S>,
    lease: &Lease,
    chunk: Chunk<'_>,
) -> Result<(), RecoveryError> {
    let Chunk { records, cursor, opens } = chunk;
    let mut transaction = connection.begin().await?;

    // Lock the head first: commands of the same database epoch may be appending, and the head says
    // what the database has.
    let head = heads::lock(&mut transaction, lease.partition).await?;
    let (known, lacking) =
        records.split_at(records.partition_point(|record| sequence(record) < head));
    check_fork(&mut transaction, lease, known).await?;
    check_contiguous(head, cursor, lacking)?;

    if !lacking.is_empty() {
        let (partition, events) = (lease.partition, lacking.len());
        tracing::info!(
            event.code = "lane.replaying", %partition, events, from = head,
            "replaying what the database lacks"
        );
        replay(replica, &mut transaction, lease, lacking).await?;
    }

    // Both are fenced: by the database epoch, and the cursor by the token too.
    let raised = heads::raise(&mut transaction, lease, cursor.next_sequence, opens).await?;
    let moved = cursors::set(&mut transaction, lease, cursor).await?;
    if !(raised && moved) {
        return Err(RecoveryError::Lost);
    }
    transaction.commit().await?;
    Ok(())
}

/// Checks that what both the topic and the database have under a sequence is the same event.
///
/// # Errors
/// If it is not: two primaries have assigned the sequence.
async fn check_fork(
    connection: &mut PgConnection,
    lease: &Lease,
    known: &[Record],
) -> Result<(), RecoveryError> {
    if known.is_empty() {
        return Ok(());
    }
    let partition = lease.partition;
    let id = |record: &Record| record.envelope.as_ref().map_or(Uuid::nil(), |envelope| envelope.id);
    let read: Vec<(i64, Uuid)> =
        known.iter().map(|record| (sequence(record), id(record))).collect();
    match outbox::first_fork(connection, partition, &read).await? {
        Some(forked) => Err(RecoveryError::Stopped(format!(
            "fork: sequence {forked} of partition {partition} is one event in the topic and \
             another in the database; two primaries have written"
        ))),
        None => Ok(()),
    }
}

/// Checks that what the database lacks follows on what it has.
///
/// # Errors
/// If sequences between them are in neither.
fn check_contiguous(head: i64, cursor: &Position, lacking: &[Record]) -> Result<(), RecoveryError> {
    match lacking.first().map(sequence) {
        Some(found) if found > head => Err(RecoveryError::Stopped(format!(
            "the own topic goes on at sequence {found}, but the database ends before {head}"
        ))),
        None if cursor.next_sequence > head => Err(RecoveryError::Stopped(format!(
            "the cursor is at sequence {}, but the database ends before {head}",
            cursor.next_sequence
        ))),
        _ => Ok(()),
    }
}

/// Folds events that the database lacks: rows, deadlines and parked messages, the positions that
/// their causes prove, and the number of the step.
async fn replay<S: Service<State: Stored>>(
    replica: &Replica<S>,
    connection: &mut PgConnection,
    lease: &Lease,
    records: &[Record],
) -> Result<(), RecoveryError> {
    let decoded = records.iter().map(|record| decode::<S>(record, replica.partitions));
    let events: Vec<OwnEvent<'_, S>> = decoded.collect::<Result<_, _>>()?;

    // Load the rows of the whole chunk, in the order that all steps share.
    let service_events = events.iter().filter_map(|event| match &event.content {
        Content::Service(event) => Some(Trigger::Event(event)),
        Content::Parked(_) | Content::Released(_) => None,
    });
    let triggers: Vec<Trigger<'_, S>> = service_events.collect();
    let mut state = load::<S>(connection, &triggers).await?;

    let mut deadlines = Changes::default();
    for OwnEvent { key, content, .. } in &events {
        match content {
            Content::Service(event) => {
                fold::<S>(&mut state, &mut deadlines, lease, key, event)?;
            }
            Content::Parked(parked) => {
                dead_letters::keep(connection, &[dead_letter(lease, key, parked)]).await?;
                dead_letters::park(connection, &[((*key).to_owned(), parked.clone())]).await?;
            }
            Content::Released(released) => {
                let Released { topic, partition, generation, number } = released;
                let released = (topic.as_str(), *partition, *generation, *number);
                dead_letters::release(connection, released).await?;
            }
        }
    }

    let mut writes = WriteBatch::default();
    save(&mut state, &mut writes);
    deadlines.save(&mut writes);
    writes.run(connection).await?;

    // An input that led to an event was consumed. Those that led to none are read again (law 7).
    let envelopes = || events.iter().map(|event| event.envelope);
    for cause in last_causes(lease, envelopes()).into_values() {
        positions::restore(connection, S::NAME, lease, cause).await?;
    }
    if let Some(decided) = envelopes().filter_map(|envelope| envelope.decided).max() {
        decided::raise(connection, decided.step).await?;
    }

    Ok(())
}

/// Decodes an event of the own log.
///
/// # Errors
/// If it cannot be read. It is never skipped: the state would lack it.
fn decode<S: Service>(
    record: &Record,
    partitions: Partitions,
) -> Result<OwnEvent<'_, S>, RecoveryError> {
    let unreadable = |reason: String| {
        let offset = record.offset;
        RecoveryError::Stopped(format!("own event at offset {offset} cannot be replayed: {reason}"))
    };
    let envelope =
        record.envelope.as_ref().map_err(|malformed| unreadable(malformed.to_string()))?;
    let key = record.valid_key(partitions);
    let key = key.ok_or_else(|| unreadable("its key does not belong here".into()))?;

    let payload = record.payload.as_deref().unwrap_or_default();
    let content = match envelope.event_type.as_str() {
        Parked::NAME => Parked::codec().decode(payload).map(Content::Parked),
        Released::NAME => Released::codec().decode(payload).map(Content::Released),
        name => <S::Event as Message>::decode(name, payload).map(Content::Service),
    };
    let content = content.map_err(|error| unreadable(error.to_string()))?;
    Ok(OwnEvent { envelope, key, content })
}

/// Folds one event of the service, as the step did when it was decided.
///
/// # Errors
/// If `evolve` panics, or a deadline's command cannot be stored.
fn fold<S: Service<State: Stored>>(
    state: &mut S::State,
    deadlines: &mut Changes,
    lease: &Lease,
    key: &str,
    event: &S::Event,
) -> Result<(), RecoveryError> {
    let folded = attempt(state, |state| {
        S::evolve(state, event);
        Ok::<_, Infallible>(())
    });
    if let Err(panicked) = folded {
        let reason = format!("folding an own event panicked: {panicked:?}");
        return Err(RecoveryError::Stopped(reason));
    }
    deadlines.apply(lease.partition, key, S::deadlines(event)).map_err(|error| {
        RecoveryError::Stopped(format!("a deadline's command is not JSON: {error}"))
    })
}

/// The highest cause from each input: the last record that was certainly consumed. A cause in
/// another partition belongs to another lane.
fn last_causes<'a>(
    lease: &Lease,
    envelopes: impl Iterator<Item = &'a Envelope>,
) -> BTreeMap<&'a str, &'a RecordRef> {
    let mut last = BTreeMap::new();
    let causes = envelopes.filter_map(|envelope| envelope.causality.cause.as_ref());
    for cause in causes.filter(|cause| cause.partition == lease.partition.0) {
        let known = last.entry(cause.topic.as_str()).or_insert(cause);
        if known.sequence < cause.sequence {
            *known = cause;
        }
    }
    last
}

/// The dead letter of a message that was parked. Its `reel.parked` says all that it holds.
fn dead_letter(lease: &Lease, key: &str, parked: &Parked) -> DeadLetter {
    DeadLetter {
        partition: lease.partition,
        source: Source::Input(parked.record_ref()),
        key: Some(key.to_owned()),
        name: parked.message_type.clone(),
        reason: parked.reason.clone(),
    }
}

/// The sequence of a record that was applied, and so has one.
fn sequence(record: &Record) -> i64 {
    record.sequence().unwrap_or(i64::MIN)
}

impl From<Unloaded> for RecoveryError {
    fn from(unloaded: Unloaded) -> Self {
        match unloaded {
            Unloaded::Database(error) => Self::Database(error),
            Unloaded::Panicked(reason) => {
                Self::Stopped(format!("an own event cannot be replayed: {reason}"))
            }
        }
    }
}
