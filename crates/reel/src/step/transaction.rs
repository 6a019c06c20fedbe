//! One batch in one transaction: positions, state, deadlines, dead letters and outbox together, or not at all (law 2).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::batch::{Answers, Handled, Handling, Work, handle};
use super::inputs::LaneInputs;
use super::{Stored, Unloaded, Writes, load, save};
use crate::database::{Failure, Kept};
use crate::failpoints::{self, Bug, planted};
use crate::lanes::Position;
use crate::model::{Ask, Partition, Service, Timestamp};
use crate::outbox::{Numbered, number};
use crate::replica::Replica;
use crate::{dead_letters, deadlines};

/// What was committed.
pub(super) struct Done<S: Service> {
    pub(super) answers: Answers<S>,
    pub(super) events: Vec<Numbered>,
    pub(super) moved: Moves,
    pub(super) parked: Vec<(Partition, String)>,
}

pub(super) type Moves = BTreeMap<(Partition, Arc<str>), Position>;

/// Why nothing was committed (or, where the commit itself was cut off, perhaps all of it).
#[derive(Debug)]
pub(super) enum Failed {
    /// These lanes are no longer ours.
    Fenced(BTreeSet<Partition>),
    /// Not all lanes are open: nothing may be numbered.
    Closed,
    /// Another transaction was in the way.
    Conflict,
    /// A row did not become free in time.
    Locked,
    /// A value cannot be stored.
    Poison(String),
    /// The database does not answer.
    Lost(sqlx::Error),
    /// A programming error: the process ends.
    Broken(String),
}

/// How a batch is run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manner<'a> {
    /// Why its one message cannot be stored.
    pub(super) poisoned: Option<&'a str>,
    /// Whether it asks for a row that was locked before, and should not wait long for it.
    pub(super) impatient: bool,
    pub(super) max_event_bytes: usize,
}

/// The positions that a batch moves: the last place of each input.
pub(super) fn moves<S: Service>(batch: &[Work<S>]) -> Moves {
    batch.iter().filter_map(Work::moves).map(|(partition, topic, after)| ((partition, topic), after)).collect()
}

/// How long a transaction may take; a server that is silent for so long is gone.
const SILENT_AT_MOST: Duration = Duration::from_secs(30);

/// Runs a batch.
pub(super) async fn run<S: Service<State: Stored>>(
    connection: &mut Kept,
    replica: &Replica<S>,
    lanes: &HashMap<Partition, LaneInputs<S>>,
    batch: &[Work<S>],
    manner: Manner<'_>,
) -> Result<Done<S>, Failed> {
    let ran = tokio::time::timeout(SILENT_AT_MOST, run_on(connection.get().await?, replica, lanes, batch, manner)).await;
    let ran = ran.unwrap_or(Err(Failed::Lost(sqlx::Error::PoolTimedOut)));
    if matches!(ran, Err(Failed::Lost(_))) {
        connection.lose();
    }
    ran
}

async fn run_on<S: Service<State: Stored>>(
    connection: &mut PgConnection,
    replica: &Replica<S>,
    lanes: &HashMap<Partition, LaneInputs<S>>,
    batch: &[Work<S>],
    manner: Manner<'_>,
) -> Result<Done<S>, Failed> {
    let moved = moves(batch);
    let mut transaction = connection.begin().await?;
    if manner.impatient {
        sqlx::query("set local lock_timeout = '50ms'").execute(&mut *transaction).await?;
    }
    let now = advance::<S>(&mut transaction, lanes, &moved).await?;
    if planted(Bug::PositionApart) {
        sqlx::raw_sql("commit; begin").execute(&mut *transaction).await?;
    }
    // What cannot be stored cannot be asked for either.
    let asks: Vec<Ask<'_, S>> = if manner.poisoned.is_some() { Vec::new() } else { batch.iter().filter_map(Work::ask).collect() };
    let mut state = load::<S>(&mut transaction, &asks).await?;
    // A point of the step is worth dying at where an input is at stake.
    let with_input = batch.iter().any(|work| matches!(work, Work::Input { .. }));
    if with_input {
        failpoints::reached(failpoints::STEP_ROWS_LOADED);
    }
    let with = handling(replica, &mut transaction, lanes, batch, now, manner).await?;
    let handled = handle::<S>(&mut state, batch, with)
        .map_err(|key| Failed::Broken(format!("a message touched {key}, which `needs` had not declared")))?;
    let Handled { drafts, letters, parked, deadlines, answers } = handled;
    dead_letters::keep(&mut transaction, &letters).await?;
    dead_letters::park(&mut transaction, &parked).await?;
    let mut writes = Writes::default();
    save(&mut state, &mut writes);
    deadlines.write(&mut writes);
    if planted(Bug::OutboxLate) {
        std::mem::take(&mut writes).run(&mut transaction).await?;
        sqlx::raw_sql("commit; begin").execute(&mut *transaction).await?;
    }
    let events = number(&mut transaction, writes, drafts).await?.ok_or(Failed::Closed)?;
    if with_input && !events.is_empty() {
        failpoints::reached(failpoints::STEP_BEFORE_COMMIT);
    }
    if batch.iter().any(|work| matches!(work, Work::Deadline { .. })) {
        failpoints::reached(failpoints::DEADLINE_BEFORE_COMMIT);
    }
    transaction.commit().await?;
    let parked = parked.into_iter().map(|(key, message)| (Partition(message.partition), key)).collect();
    Ok(Done { answers, events, moved, parked })
}

/// Fences and advances the positions, where token, run and offset are still ours. Returns the database's time, and whether
/// all lanes are open: a decision that yields nothing must not be made on a state that lacks events either.
pub(crate) const ADVANCE: &str = "
with moved as (
    update reel.positions as position
    set next_offset = new.next_offset, next_seq = new.next_seq, generation = new.generation, opened_id = new.opened_id
    from unnest($2::text[], $3::integer[], $4::uuid[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::uuid[])
        as new(topic, partition, token, run, expected, next_offset, next_seq, generation, opened_id)
    where position.reader = $1 and position.topic = new.topic and position.partition = new.partition
      and position.token = new.token and position.run = new.run and position.next_offset = new.expected
      and new.run = (select reel.run())
    returning position.topic, position.partition
)
select clock_timestamp(), array(select partition from moved), array(select topic from moved),
    not exists (select from reel.heads where opened_run is distinct from coalesce((select reel.run()), ''))";

async fn advance<S: Service>(
    connection: &mut PgConnection,
    lanes: &HashMap<Partition, LaneInputs<S>>,
    moved: &Moves,
) -> Result<Timestamp, Failed> {
    let mut fenced: BTreeSet<Partition> = BTreeSet::new();
    let mut rows = Vec::with_capacity(moved.len());
    for ((partition, topic), to) in moved {
        let lane = lanes.get(partition).and_then(|lane| Some((lane, lane.stored(topic)?)));
        match lane {
            Some((lane, stored)) => rows.push((topic, partition.0, &lane.grant, stored.next_offset, to)),
            None => drop(fenced.insert(*partition)),
        }
    }
    let statement = if planted(Bug::NoToken) {
        Cow::Owned(ADVANCE.replace("position.token = new.token and position.run = new.run", "true"))
    } else {
        Cow::Borrowed(ADVANCE)
    };
    let (now, partitions, topics, open): (chrono::DateTime<chrono::Utc>, Vec<i32>, Vec<String>, bool) =
        sqlx::query_as(AssertSqlSafe(statement))
            .bind(S::NAME)
            .bind(rows.iter().map(|(topic, ..)| topic.as_ref()).collect::<Vec<_>>())
            .bind(rows.iter().map(|(_, partition, ..)| *partition).collect::<Vec<_>>())
            .bind(rows.iter().map(|(_, _, grant, ..)| grant.token).collect::<Vec<_>>())
            .bind(rows.iter().map(|(_, _, grant, ..)| grant.run.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|(_, _, _, expected, _)| *expected).collect::<Vec<_>>())
            .bind(rows.iter().map(|(.., to)| to.next_offset).collect::<Vec<_>>())
            .bind(rows.iter().map(|(.., to)| to.next_seq).collect::<Vec<_>>())
            .bind(rows.iter().map(|(.., to)| to.generation).collect::<Vec<_>>())
            .bind(rows.iter().map(|(.., to)| to.opened_id).collect::<Vec<_>>())
            .fetch_one(connection)
            .await?;
    let open = open || planted(Bug::OpenEarly);
    let ours: BTreeSet<(i32, &str)> = partitions.into_iter().zip(topics.iter().map(String::as_str)).collect();
    fenced.extend(rows.iter().filter(|(topic, partition, ..)| !ours.contains(&(*partition, topic.as_ref()))).map(|row| Partition(row.1)));
    match (fenced.is_empty(), open) {
        (false, _) => Err(Failed::Fenced(fenced)),
        (true, false) => Err(Failed::Closed),
        (true, true) => Ok(now.into()),
    }
}

/// Reads what else the messages are handled with: parked keys where there are any, and which deadlines are still due.
async fn handling<'a, S: Service>(
    replica: &Replica<S>,
    connection: &mut PgConnection,
    lanes: &HashMap<Partition, LaneInputs<S>>,
    batch: &[Work<S>],
    now: Timestamp,
    manner: Manner<'a>,
) -> Result<Handling<'a>, Failed> {
    // Only this replica parks keys of its lanes, so where it knows of none there are none; an operator may release them.
    let with_parked: BTreeSet<Partition> = batch.iter().filter_map(Work::lane).collect();
    let with_parked: Vec<i32> =
        with_parked.iter().filter(|lane| lanes.get(lane).is_some_and(|lane| !lane.parked.is_empty())).map(|lane| lane.0).collect();
    let parked = if with_parked.is_empty() { Default::default() } else { dead_letters::parked_keys(connection, &with_parked).await? };
    let due: Vec<&deadlines::Due> =
        batch.iter().filter_map(|work| if let Work::Deadline { due, .. } = work { Some(due) } else { None }).collect();
    let still_due =
        if due.is_empty() { Default::default() } else { deadlines::still_due(connection, &due, now).await?.into_iter().collect() };
    let Manner { poisoned, max_event_bytes, .. } = manner;
    Ok(Handling { partitions: replica.partitions, now, parked, still_due, poisoned, max_event_bytes })
}

impl From<Unloaded> for Failed {
    fn from(unloaded: Unloaded) -> Self {
        match unloaded {
            Unloaded::Database(error) => error.into(),
            Unloaded::Panicked(reason) => Self::Poison(reason),
        }
    }
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        match Failure::of(&error) {
            Failure::Conflict => Self::Conflict,
            Failure::Locked => Self::Locked,
            Failure::Poison => Self::Poison(error.to_string()),
            Failure::Lost => Self::Lost(error),
            Failure::Broken => Self::Broken(error.to_string()),
        }
    }
}
