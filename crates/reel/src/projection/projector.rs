//! Runs a projection for the lanes that this replica owns, in transactions of its own.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rdkafka::error::KafkaError;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Projected, Projection};
use crate::database::{Database, answered};
use crate::kafka::continuity::{self, ContinuityError};
use crate::kafka::{Assignment, Delivered, InputConsumer, Polled, RangeReader};
use crate::log::{InputCursor, Position, Record, Verdict};
use crate::model::{MessageType, Partition, Partitions, Timestamp};
use crate::pauses::Pauses;
use crate::status::{Lanes, Projections};
use crate::tables::positions::unfenced::{self, Moved, Moves};

/// Poll interval for lane ownership.
const LANES_EVERY: Duration = Duration::from_millis(200);
/// Window in which records are gathered for one transaction.
const GATHER: Duration = Duration::from_millis(20);
/// Most records in one transaction, unless one bundle has more.
const BATCH: usize = 2_000;
/// Shortest and longest pause after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The task that runs one projection.
pub(crate) struct Projector {
    projection: Box<dyn Projection>,
    database: Database,
    owned: watch::Receiver<Lanes>,
    status: watch::Sender<Projections>,
    reader: RangeReader,
    partitions: Partitions,
    consumer: InputConsumer,
    records: mpsc::Receiver<Polled>,
    kinds: HashMap<(Arc<str>, &'static str), MessageType>,
    topics: BTreeSet<Arc<str>>,
    lanes: HashMap<Partition, Lane>,
    /// Lanes of which an input was truncated, recreated or deleted. They wait for an operator.
    broken: BTreeSet<Partition>,
    /// The reason that was logged last.
    reported: String,
}

/// A lane that the projection reads.
struct Lane {
    /// Distinguishes records that were read under this assignment from those of an earlier one.
    assignment: Assignment,
    inputs: HashMap<Arc<str>, InputCursor>,
}

/// Why the projector drops its lanes and loads their positions again.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("the database does not answer, or refuses: {0}")]
    Database(#[from] sqlx::Error),
    #[error("another replica goes on with one of its lanes")]
    Overtaken,
    #[error("an input lacks what is to be read next: it was truncated, recreated or deleted")]
    Broken,
    #[error("it panicked: a programming error")]
    Panicked,
}

impl Projector {
    pub(crate) fn new(
        projection: Box<dyn Projection>,
        reader: RangeReader,
        partitions: Partitions,
        database: Database,
        owned: watch::Receiver<Lanes>,
        status: watch::Sender<Projections>,
    ) -> Result<Self, KafkaError> {
        let kafka = reader.config();
        let (consumer, records) = InputConsumer::start(&kafka.unhurried_consumer())?;

        let kind_of =
            |kind: &MessageType| ((Arc::<str>::from(kafka.topic(kind.topic)), kind.name), *kind);
        let kinds: HashMap<_, _> = projection.types().iter().map(kind_of).collect();
        let topics = kinds.keys().map(|(topic, _)| topic.clone()).collect();

        let (lanes, broken, reported) = (HashMap::new(), BTreeSet::new(), String::new());
        Ok(Self {
            projection,
            database,
            owned,
            status,
            reader,
            partitions,
            consumer,
            records,
            kinds,
            topics,
            lanes,
            broken,
            reported,
        })
    }

    /// Runs until the consumer's thread ends. The future may be dropped at any time: records that
    /// were not committed are read again.
    pub(crate) async fn run(mut self) {
        let mut pauses = Pauses::new(RETRY.0, RETRY.1);
        loop {
            match AssertUnwindSafe(self.follow(&mut pauses)).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(Stopped::Overtaken)) => {
                    tracing::debug!(projection = self.projection.name(), "{}", Stopped::Overtaken);
                }
                Ok(Err(stopped)) => self.report(stopped.to_string()),
                Err(_) => self.report(Stopped::Panicked.to_string()),
            }

            // Start again from the committed positions.
            for (partition, _) in self.lanes.drain() {
                self.consumer.unassign(partition);
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Reports why the projection does not continue: in the log once, and in health until it does.
    fn report(&mut self, reason: String) {
        if self.reported != reason {
            tracing::error!(
                event.code = "projection.failed",
                projection = self.projection.name(),
                reason,
                "the projection failed and tries again"
            );
            self.reported.clone_from(&reason);
        }
        self.publish(Some(reason));
    }

    /// Reports that the projection continues, unless a lane is broken.
    fn go_on(&mut self) {
        if self.broken.is_empty() {
            self.reported.clear();
            self.publish(None);
        }
    }

    fn publish(&self, reason: Option<String>) {
        let name = self.projection.name();
        self.status.send_if_modified(|published| {
            let changed = published.get(name) != Some(&reason);
            published.insert(name, reason);
            changed
        });
    }

    async fn follow(&mut self, pauses: &mut Pauses) -> Result<(), Stopped> {
        let mut connection = self.database.connect().await?;

        // Safe: if the server crashes and loses the last commits, positions and tables go back
        // together.
        answered(sqlx::query("set synchronous_commit = off").execute(&mut connection)).await?;

        let mut looked_at: Option<Instant> = None;
        loop {
            if looked_at.is_none_or(|at| at.elapsed() >= LANES_EVERY) {
                self.take_lanes(&mut connection).await?;
                self.go_on();
                looked_at = Some(Instant::now());
            }

            // Gather what arrives within the window, and write it in one transaction.
            let first = match tokio::time::timeout(LANES_EVERY, self.records.recv()).await {
                Err(_) => continue,
                Ok(None) => return Ok(()),
                Ok(Some(taken)) => taken,
            };
            let mut bundles = vec![first];
            tokio::time::sleep(GATHER).await;
            while bundles.iter().map(Polled::len).sum::<usize>() < BATCH
                && let Ok(more) = self.records.try_recv()
            {
                bundles.push(more);
            }

            self.write(bundles, &mut connection).await?;
            pauses.reset();
        }
    }

    /// Drops lanes that this replica no longer owns, and starts to read newly owned ones from the
    /// projection's positions.
    async fn take_lanes(&mut self, connection: &mut PgConnection) -> Result<(), Stopped> {
        let owned = self.owned.borrow().open();
        let lost: Vec<Partition> =
            self.lanes.keys().filter(|partition| !owned.contains(*partition)).copied().collect();
        for partition in lost {
            self.lanes.remove(&partition);
            self.consumer.unassign(partition);
        }

        self.broken.retain(|partition| owned.contains(partition));
        for partition in owned {
            if self.lanes.contains_key(&partition) || self.broken.contains(&partition) {
                continue;
            }

            let topics: Vec<&str> = self.topics.iter().map(AsRef::as_ref).collect();
            let positions =
                answered(unfenced::load(connection, self.projection.name(), &topics, partition))
                    .await?;
            match check_inputs(&self.reader, partition, &positions).await {
                Ok(()) => self.take_lane(partition, positions),
                Err(ContinuityError::Lost(reason)) => {
                    self.broken.insert(partition);
                    self.report(reason);
                }
                Err(error @ ContinuityError::Gone { .. }) => self.report(error.to_string()),
                Err(error) => {
                    tracing::debug!(
                        projection = self.projection.name(), %partition, error = %error,
                        "cannot read the inputs of a lane yet"
                    );
                }
            }
        }

        Ok(())
    }

    fn take_lane(&mut self, partition: Partition, positions: Vec<(Arc<str>, Position)>) {
        let offsets =
            positions.iter().map(|(topic, position)| (topic.clone(), position.next_offset));
        let assignment = self.consumer.assign(partition, offsets.collect());
        let inputs = positions
            .into_iter()
            .map(|(topic, position)| (topic, InputCursor::new(position)))
            .collect();
        self.lanes.insert(partition, Lane { assignment, inputs });
    }

    /// Writes the effects of the records and advances the positions, in one transaction.
    async fn write(
        &mut self,
        bundles: Vec<Polled>,
        connection: &mut PgConnection,
    ) -> Result<(), Stopped> {
        let mut events = Vec::new();
        let mut moves = Moves::new();
        for bundle in bundles {
            let Polled::Records(records) = bundle else { return Err(Stopped::Broken) };
            for Delivered { assignment, record } in records {
                let lane = self.lanes.get_mut(&record.partition);
                let lane = lane.filter(|lane| lane.assignment == assignment);
                let Some(input) = lane.and_then(|lane| lane.inputs.get_mut(&record.topic)) else {
                    continue;
                };

                let before = input.committable();
                match input.read(&record) {
                    Some(Verdict::Apply) => {
                        events.extend(projected(&self.kinds, &record, self.partitions));
                    }
                    Some(Verdict::EpochMissed { .. }) => return Err(Stopped::Broken),
                    _ => {}
                }
                if input.committable() != before {
                    let place = (record.topic.clone(), record.partition);
                    moves.entry(place).or_insert((before.next_offset, before)).1 =
                        input.committable();
                }
            }
        }

        if moves.is_empty() {
            return Ok(());
        }

        // If another replica has advanced these positions, it owns the lane now: roll back.
        let moved = answered(async {
            let mut transaction = connection.begin().await?;
            self.projection.project(&events, &mut transaction).await?;
            let moved = unfenced::advance(&mut transaction, self.projection.name(), &moves).await?;
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

/// Checks that each input still contains what was read of it, so that reading can resume there.
async fn check_inputs(
    reader: &RangeReader,
    partition: Partition,
    positions: &[(Arc<str>, Position)],
) -> Result<(), ContinuityError> {
    for (topic, position) in positions {
        continuity::check_input(reader, topic, partition, position).await?;
    }
    Ok(())
}

/// The event in a record, if the projection wants its type and its key belongs to its partition.
fn projected(
    kinds: &HashMap<(Arc<str>, &'static str), MessageType>,
    record: &Record,
    partitions: Partitions,
) -> Option<Projected> {
    let envelope = record.envelope.as_ref().ok()?;
    let kind = kinds.get(&(record.topic.clone(), envelope.event_type.as_str()))?;
    Some(Projected {
        kind: *kind,
        sequence: envelope.sequence?,
        key: record.valid_key(partitions)?.to_owned(),
        recorded_at: envelope.recorded_at.unwrap_or(Timestamp::from_micros(0)),
        payload: record.payload.clone().unwrap_or_default(),
    })
}
