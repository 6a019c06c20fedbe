//! Runs one batch in one transaction: positions, state, deadlines, dead letters and outbox commit
//! together, or not at all (law 2). [`run_on`] is the whole of it, in order.

use std::collections::BTreeSet;

use sqlx::{Connection, PgConnection};

use super::decide::{Answers, BatchContext, BatchOutcome, decide};
use super::lane_set::LaneSet;
use super::work::{Moves, WorkItem, moves};
use crate::database::{DatabaseErrorKind, PinnedConnection, TRANSACTION_WITHIN, WriteBatch};
use crate::failpoints;
use crate::model::{Partition, Partitions, Service, Timestamp, Trigger};
use crate::rows::{Stored, Unloaded, load, save};
use crate::tables::outbox::{self, Appended, OutboxEvent};
use crate::tables::positions::{self, Move};
use crate::tables::{dead_letters, deadlines};

/// What a transaction has committed.
pub(super) struct Committed<S: Service> {
    pub(super) answers: Answers<S>,
    pub(super) events: Vec<OutboxEvent>,
    pub(super) moved: Moves,
    pub(super) parked: Vec<(Partition, String)>,
}

/// Why a batch was not committed. After `Lost` it may have been: the reply to the commit is
/// missing.
#[derive(Debug)]
pub(super) enum StepError {
    /// A position of each of these lanes has another token or offset than ours: the lane was
    /// acquired by somebody, or a commit that we took for failed has moved it after all.
    Fenced(BTreeSet<Partition>),
    /// Not all lanes are open for the database epoch: nothing may be decided (docs/laws.md).
    Closed,
    /// A deadlock, or another transaction inserted the same row first: run it again.
    Conflict,
    /// Another transaction held a row for longer than the lock timeout.
    Locked,
    /// A value cannot be stored, or `read_set` panicked: one message of the batch is to blame.
    Poison(String),
    /// The database is unreachable, or did not answer in time.
    Lost(sqlx::Error),
    /// A programming error, or a database that is not as we made it: the process ends.
    Broken(String),
}

/// Options of one run of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunOptions<'a> {
    /// If an earlier run found that the one message of this batch cannot be stored: the reason. The
    /// message then becomes a dead letter, or its command fails.
    pub(super) poison: Option<&'a str>,
    /// Whether to wait only briefly for a locked row.
    pub(super) impatient: bool,
    pub(super) partitions: Partitions,
    pub(super) max_event_bytes: usize,
}

/// Runs a batch, within the timeout.
///
/// # Errors
/// If nothing was committed or, after [`StepError::Lost`], if that is unknown.
pub(super) async fn run<S: Service<State: Stored>>(
    connection: &mut PinnedConnection,
    lanes: &LaneSet<S>,
    batch: &[WorkItem<S>],
    options: RunOptions<'_>,
) -> Result<Committed<S>, StepError> {
    let connected = connection.get().await?;
    let run = async {
        let mut transaction = connected.begin().await?;
        match run_in(&mut transaction, lanes, batch, options).await {
            Ok(committed) => {
                transaction.commit().await?;
                Ok(committed)
            }
            // The server would end it only with the next statement, and hold its locks until then.
            Err(error) => {
                if !matches!(error, StepError::Lost(_)) {
                    transaction.rollback().await?;
                }
                Err(error)
            }
        }
    };
    let ran = tokio::time::timeout(TRANSACTION_WITHIN, run).await;
    let ran = ran.unwrap_or(Err(StepError::Lost(sqlx::Error::PoolTimedOut)));
    // The old session may still commit. Its row locks then decide: the transaction that moves the
    // positions second finds them moved, and is fenced.
    if matches!(ran, Err(StepError::Lost(_))) {
        connection.lose();
    }
    ran
}

/// Does all of a batch but the commit.
async fn run_in<S: Service<State: Stored>>(
    transaction: &mut PgConnection,
    lanes: &LaneSet<S>,
    batch: &[WorkItem<S>],
    options: RunOptions<'_>,
) -> Result<Committed<S>, StepError> {
    let has_input = batch.iter().any(WorkItem::is_input);
    if options.impatient {
        sqlx::query("set local lock_timeout = '50ms'").execute(&mut *transaction).await?;
    }

    // Fence first: from here on a former owner of these lanes waits for us, and then fails before
    // it has locked anything else.
    let moved = moves(batch);
    let now = advance(transaction, lanes, &moved).await?;

    // Lock what the batch reads, tables and keys in one order on all replicas, so that nobody
    // deadlocks.
    let mut state = load::<S>(transaction, &triggers(batch, options)).await?;
    if has_input {
        failpoints::reached(failpoints::STEP_ROWS_LOADED);
    }

    // No I/O: the pure functions, message by message.
    let context = context(transaction, lanes, batch, now, options).await?;
    let outcome = decide::<S>(&mut state, batch, context).map_err(|key| {
        StepError::Broken(format!("a message touched {key}, which `read_set` had not declared"))
    })?;

    // Dead letters are rare, and have statements of their own.
    let BatchOutcome { pending, dead_letters, parked, deadlines, answers } = outcome;
    dead_letters::keep(transaction, &dead_letters).await?;
    dead_letters::park(transaction, &parked).await?;

    // All else takes one round trip. The heads come last: their lock orders the log, so it is held
    // for the shortest time.
    let mut writes = WriteBatch::default();
    save(&mut state, &mut writes);
    deadlines.save(&mut writes);
    let events = match outbox::append(transaction, writes, pending).await? {
        Appended::Events(events) => events,
        Appended::Closed => return Err(StepError::Closed),
    };

    if has_input && !events.is_empty() {
        failpoints::reached(failpoints::STEP_BEFORE_COMMIT);
    }
    if batch.iter().any(|item| item.due().is_some()) {
        failpoints::reached(failpoints::DEADLINE_BEFORE_COMMIT);
    }

    let parked = parked.into_iter().map(|(key, parked)| (Partition(parked.partition), key));
    Ok(Committed { answers, events, moved, parked: parked.collect() })
}

/// The triggers whose rows must be loaded. A poisoned message calls no pure function, and its key
/// may not even be valid in a query.
fn triggers<'a, S: Service>(
    batch: &'a [WorkItem<S>],
    options: RunOptions<'_>,
) -> Vec<Trigger<'a, S>> {
    let items = if options.poison.is_some() { &[] } else { batch };
    items.iter().filter_map(WorkItem::trigger).collect()
}

/// Moves the positions under their fences. Returns the database's time. A batch without
/// records moves none, and still learns the time and whether all lanes are open.
///
/// # Errors
/// If a lane was lost, or not all lanes are open.
async fn advance<S: Service>(
    connection: &mut PgConnection,
    lanes: &LaneSet<S>,
    moved: &Moves,
) -> Result<Timestamp, StepError> {
    let mut gone = BTreeSet::new();
    let mut moves = Vec::with_capacity(moved.len());
    for ((partition, topic), to) in moved {
        let lane = lanes.get(*partition).and_then(|lane| Some((lane, lane.stored(topic)?)));
        match lane {
            Some((lane, stored)) => {
                let from_offset = stored.next_offset;
                moves.push(Move { lease: &lane.lease, topic, from_offset, to });
            }

            // The lane has left the loop while this part of the batch was waiting.
            None => drop(gone.insert(*partition)),
        }
    }

    let mut advanced = positions::advance(connection, S::NAME, &moves).await?;
    advanced.fenced.append(&mut gone);
    match (advanced.fenced.is_empty(), advanced.all_open) {
        (false, _) => Err(StepError::Fenced(advanced.fenced)),
        (true, false) => Err(StepError::Closed),
        (true, true) => Ok(advanced.now),
    }
}

/// Reads what else the pure functions' callers need, now that the rows are locked: the parked keys,
/// if there are any, and which deadlines are still due.
async fn context<'a, S: Service>(
    connection: &mut PgConnection,
    lanes: &LaneSet<S>,
    batch: &[WorkItem<S>],
    now: Timestamp,
    options: RunOptions<'a>,
) -> Result<BatchContext<'a>, StepError> {
    // Only the owner of a lane parks its keys, so the database is asked only about those that it
    // knows as parked.
    let known = |(lane, key): &(Partition, &str)| {
        lanes.get(*lane).is_some_and(|lane| lane.parked.contains(*key))
    };
    let keys: Vec<_> = batch.iter().filter_map(WorkItem::key_in_lane).filter(known).collect();
    let parked = if keys.is_empty() {
        Default::default()
    } else {
        dead_letters::parked_among(connection, &keys).await?
    };

    // A deadline was read before the rows were locked. Meanwhile it may have been cleared, or
    // decided by another replica.
    let due: Vec<&deadlines::Due> = batch.iter().filter_map(WorkItem::due).collect();
    let still_due = if due.is_empty() {
        Default::default()
    } else {
        deadlines::still_due(connection, &due, now).await?.into_iter().collect()
    };

    let RunOptions { poison, partitions, max_event_bytes, .. } = options;
    Ok(BatchContext { partitions, now, parked, still_due, poison, max_event_bytes })
}

impl From<Unloaded> for StepError {
    fn from(unloaded: Unloaded) -> Self {
        match unloaded {
            Unloaded::Database(error) => error.into(),
            Unloaded::Panicked(reason) => Self::Poison(reason),
        }
    }
}

impl From<sqlx::Error> for StepError {
    fn from(error: sqlx::Error) -> Self {
        match DatabaseErrorKind::classify(&error) {
            DatabaseErrorKind::Conflict => Self::Conflict,
            DatabaseErrorKind::Locked => Self::Locked,
            DatabaseErrorKind::Poison => Self::Poison(error.to_string()),
            DatabaseErrorKind::Lost => Self::Lost(error),
            DatabaseErrorKind::Broken => Self::Broken(error.to_string()),
        }
    }
}
