//! Keeps a projection: for the lanes that this replica owns, in transactions of its own.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rdkafka::error::KafkaError;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::positions::{self, Moved, Moves};
use super::{Projected, Projection};
use crate::database::Sessions;
use crate::kafka::{Delivered, Intake, Reader, Record, Taken};
use crate::lanes::{OpeningError, Position, Reading, Verdict, sound_input};
use crate::model::{MessageType, Partition, Partitions, Timestamp};
use crate::pauses::Pauses;
use crate::runtime::Gate;

/// How often it is looked which lanes are owned.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What arrives in this time is written together.
const GATHER: Duration = Duration::from_millis(20);
/// How many events one transaction writes, unless one bundle has more.
const TOGETHER: usize = 2_000;
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long the database may take to answer.
const ANSWER_AT_MOST: Duration = Duration::from_secs(10);

/// The task that keeps one projection.
pub(crate) struct Projector {
    projection: Box<dyn Projection>,
    sessions: Sessions,
    gate: Arc<Gate>,
    reader: Reader,
    partitions: Partitions,
    intake: Intake,
    records: mpsc::Receiver<Taken>,
    kinds: HashMap<(Arc<str>, &'static str), MessageType>,
    topics: BTreeSet<Arc<str>>,
    lanes: HashMap<Partition, Lane>,
    /// Lanes of which an input is no longer what was read. They stand until an operator has looked.
    broken: BTreeSet<Partition>,
    said: String,
}

/// A lane that is read.
struct Lane {
    /// Tells what was read under this assignment from what was read under one before.
    token: Uuid,
    inputs: HashMap<Arc<str>, Reading>,
}

/// Why what is known of the positions is read again.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("the database does not answer, or refuses: {0}")]
    Database(#[from] sqlx::Error),
    #[error("another replica goes on with one of its lanes")]
    Overtaken,
    #[error("an input lacks what is to be read next: it was truncated, made anew or deleted")]
    Broken,
    #[error("it panicked: a programming error")]
    Panicked,
}

impl Projector {
    pub(crate) fn new(
        projection: Box<dyn Projection>,
        reader: Reader,
        partitions: Partitions,
        sessions: Sessions,
        gate: Arc<Gate>,
    ) -> Result<Self, KafkaError> {
        let kafka = reader.kafka();
        let (intake, records) = Intake::start(&kafka.unhurried_consumer())?;
        let kind_of = |kind: &MessageType| ((Arc::<str>::from(kafka.topic(kind.topic)), kind.name), *kind);
        let kinds: HashMap<_, _> = projection.types().iter().map(kind_of).collect();
        let topics = kinds.keys().map(|(topic, _)| topic.clone()).collect();
        let (lanes, broken, said) = (HashMap::new(), BTreeSet::new(), String::new());
        Ok(Self { projection, sessions, gate, reader, partitions, intake, records, kinds, topics, lanes, broken, said })
    }

    /// Runs for as long as it is polled. It may be dropped at any time: what it has not committed is read again.
    pub(crate) async fn run(mut self) {
        let mut pauses = Pauses::new(AGAIN.0, AGAIN.1);
        loop {
            match AssertUnwindSafe(self.follow(&mut pauses)).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(Stopped::Overtaken)) => tracing::debug!(projection = self.projection.name(), "{}", Stopped::Overtaken),
                Ok(Err(stopped)) => self.say(stopped.to_string()),
                Err(_) => self.say(Stopped::Panicked.to_string()),
            }
            for (partition, _) in self.lanes.drain() {
                self.intake.unassign(partition);
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Says why the projection stands, in the log once and in health until it goes on.
    fn say(&mut self, reason: String) {
        if self.said != reason {
            tracing::error!(projection = self.projection.name(), reason, "the projection stands and tries again");
            self.said.clone_from(&reason);
        }
        self.gate.set_projection(self.projection.name(), Some(reason));
    }

    /// Says that it goes on, but for the lanes that stand.
    fn go_on(&mut self) {
        if self.broken.is_empty() {
            self.said.clear();
            self.gate.set_projection(self.projection.name(), None);
        }
    }

    async fn follow(&mut self, pauses: &mut Pauses) -> Result<(), Stopped> {
        let mut connection = answered(self.sessions.connect()).await?;
        // What is lost with the server is read again: positions and tables go back together.
        answered(sqlx::query("set synchronous_commit = off").execute(&mut connection)).await?;
        let mut looked_at: Option<Instant> = None;
        loop {
            if looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
                self.take_lanes(&mut connection).await?;
                self.go_on();
                looked_at = Some(Instant::now());
            }
            let first = match tokio::time::timeout(LOOK_EVERY, self.records.recv()).await {
                Err(_) => continue,
                Ok(None) => return Ok(()),
                Ok(Some(taken)) => taken,
            };
            let mut bundles = vec![first];
            tokio::time::sleep(GATHER).await;
            while bundles.iter().map(Taken::len).sum::<usize>() < TOGETHER
                && let Ok(more) = self.records.try_recv()
            {
                bundles.push(more);
            }
            self.write(bundles, &mut connection).await?;
            pauses.reset();
        }
    }

    /// Reads the lanes that this replica owns now, from where the projection stands in them.
    async fn take_lanes(&mut self, connection: &mut PgConnection) -> Result<(), Stopped> {
        let owned = self.gate.open_lanes();
        let lost: Vec<Partition> = self.lanes.keys().filter(|partition| !owned.contains(*partition)).copied().collect();
        for partition in lost {
            self.lanes.remove(&partition);
            self.intake.unassign(partition);
        }
        self.broken.retain(|partition| owned.contains(partition));
        for partition in owned {
            if self.lanes.contains_key(&partition) || self.broken.contains(&partition) {
                continue;
            }
            let topics: Vec<&str> = self.topics.iter().map(AsRef::as_ref).collect();
            let positions = answered(positions::load(self.projection.name(), &topics, partition, connection)).await?;
            match sound_inputs(&self.reader, partition, &positions).await {
                Ok(()) => self.take_lane(partition, positions),
                Err(OpeningError::Stopped(reason)) => {
                    self.broken.insert(partition);
                    self.say(reason);
                }
                Err(error @ OpeningError::Gone { .. }) => self.say(error.to_string()),
                Err(error) => {
                    tracing::debug!(projection = self.projection.name(), %partition, error = %error, "its inputs cannot be read yet");
                }
            }
        }
        Ok(())
    }

    fn take_lane(&mut self, partition: Partition, positions: Vec<(Arc<str>, Position)>) {
        let token = Uuid::new_v4();
        self.intake.assign(partition, token, positions.iter().map(|(topic, position)| (topic.clone(), position.next_offset)).collect());
        let inputs = positions.into_iter().map(|(topic, position)| (topic, Reading::new(position))).collect();
        self.lanes.insert(partition, Lane { token, inputs });
    }

    /// Writes what follows from the records, and moves the positions, in one transaction.
    async fn write(&mut self, bundles: Vec<Taken>, connection: &mut PgConnection) -> Result<(), Stopped> {
        let mut events = Vec::new();
        let mut moves = Moves::new();
        for bundle in bundles {
            let Taken::Records(records) = bundle else { return Err(Stopped::Broken) };
            for Delivered { token, record } in records {
                let lane = self.lanes.get_mut(&record.partition).filter(|lane| lane.token == token);
                let Some(input) = lane.and_then(|lane| lane.inputs.get_mut(&record.topic)) else { continue };
                let before = input.sound();
                if input.read(&record) == Some(Verdict::Apply) {
                    events.extend(projected(&self.kinds, &record, self.partitions));
                }
                if input.sound() != before {
                    let place = (record.topic.clone(), record.partition);
                    moves.entry(place).or_insert((before.next_offset, before)).1 = input.sound();
                }
            }
        }
        if moves.is_empty() {
            return Ok(());
        }
        let moved = answered(async {
            let mut transaction = connection.begin().await?;
            self.projection.project(&events, &mut transaction).await?;
            let moved = positions::advance(self.projection.name(), &moves, &mut transaction).await?;
            if moved == Moved::All {
                transaction.commit().await?;
            }
            Ok(moved)
        });
        match moved.await? {
            Moved::All => Ok(()),
            Moved::Overtaken => Err(Stopped::Overtaken),
        }
    }
}

/// What the database answers in time.
async fn answered<T>(asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    tokio::time::timeout(ANSWER_AT_MOST, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// Whether what was read of the inputs is still there, and they go on behind it.
async fn sound_inputs(reader: &Reader, partition: Partition, positions: &[(Arc<str>, Position)]) -> Result<(), OpeningError> {
    for (topic, position) in positions {
        sound_input(reader, topic, partition, position).await?;
    }
    Ok(())
}

/// The event in a record, where it is of a type that is wanted, and its key belongs where it lies.
fn projected(kinds: &HashMap<(Arc<str>, &'static str), MessageType>, record: &Record, partitions: Partitions) -> Option<Projected> {
    let envelope = record.envelope.as_ref().ok()?;
    let kind = kinds.get(&(record.topic.clone(), envelope.name.as_str()))?;
    Some(Projected {
        kind: *kind,
        number: envelope.number?,
        key: record.sound_key(partitions)?.to_owned(),
        recorded_at: envelope.recorded_at.unwrap_or(Timestamp::from_micros(0)),
        payload: record.payload.clone().unwrap_or_default(),
    })
}
