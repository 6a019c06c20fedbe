//! Runs a projection for the lanes that this replica owns, in transactions of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rdkafka::error::KafkaError;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Projected, Projection};
use crate::database::{Database, answered};
use crate::kafka::continuity::{self, ContinuityError, epoch_missed};
use crate::kafka::{Assignment, Delivered, InputConsumer, Polled, RangeReader, ReadError};
use crate::log::{InputCursor, Position, Record, Verdict};
use crate::model::{MessageType, Partition, Partitions, Timestamp};
use crate::pauses::Pauses;
use crate::status::{Lanes, Projections};
use crate::tables::positions::unfenced::{self, Moved, Moves};

/// Poll interval for lane ownership.
const LANES_EVERY: Duration = Duration::from_millis(200);
/// Lanes whose inputs are checked at a time. Each check may need a Kafka client of its own.
const CHECKS: usize = 8;
/// Limit of such a check, after which it is another lane's turn.
const CHECK_WITHIN: Duration = Duration::from_secs(15);
/// Window in which records are gathered for one transaction.
const GATHER: Duration = Duration::from_millis(20);
/// Records in one transaction, and bundles of at most a megabyte, after which it takes no more.
const BATCH: usize = 2_000;
const BUNDLES: usize = 4;
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
    /// The lanes that are read.
    lanes: HashMap<Partition, Lane>,
    /// The lanes that wait for a check of their inputs, in turn.
    unchecked: VecDeque<Partition>,
    checks: JoinSet<Check>,
    /// Why lanes that are owned cannot be read.
    troubles: BTreeMap<Partition, Trouble>,
    /// The reason that was logged last.
    reported: Option<String>,
}

/// A lane that the projection reads.
struct Lane {
    /// Distinguishes records that were read under this assignment from those of an earlier one.
    assignment: Assignment,
    inputs: HashMap<Arc<str>, InputCursor>,
}

/// A check whether the inputs of a lane still hold what was read of them. Each runs by itself, so
/// that a lane waits for its own inputs only.
struct Check {
    partition: Partition,
    positions: Vec<(Arc<str>, Position)>,
    result: Result<(), ContinuityError>,
}

/// Why a lane cannot be read.
struct Trouble {
    reason: String,
    /// Whether an input was truncated or recreated, so that the lane waits for an operator.
    is_lost: bool,
}

/// What records lead to: events, each with its lane, and moves of positions.
#[derive(Default)]
struct Effects {
    lanes: Vec<Partition>,
    events: Vec<Projected>,
    moves: Moves,
}

/// Why the projector drops its lanes and loads their positions again.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("the database does not answer, or refuses: {0}")]
    Database(#[from] sqlx::Error),
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
            lanes: HashMap::new(),
            unchecked: VecDeque::new(),
            checks: JoinSet::new(),
            troubles: BTreeMap::new(),
            reported: None,
        })
    }

    /// Runs until the consumer's thread ends. The future may be dropped at any time: records that
    /// were not committed are read again.
    pub(crate) async fn run(mut self) {
        let mut pauses = Pauses::new(RETRY.0, RETRY.1);
        loop {
            match AssertUnwindSafe(self.follow(&mut pauses)).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(stopped)) => self.report(Some(stopped.to_string())),
                Err(_) => self.report(Some(Stopped::Panicked.to_string())),
            }

            // Start again from the committed positions.
            self.checks = JoinSet::new();
            self.unchecked.clear();
            for (partition, _) in self.lanes.drain() {
                self.consumer.unassign(partition);
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Reports why the projection, or one of its lanes, does not continue: in the log once, and in
    /// health until it does.
    fn report(&mut self, reason: Option<String>) {
        let name = self.projection.name();
        if let Some(reason) = reason.as_ref().filter(|_| self.reported != reason) {
            tracing::error!(
                event.code = "projection.failed",
                projection = name,
                reason,
                "the projection failed and tries again"
            );
        }
        self.reported.clone_from(&reason);
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
                self.look_at_lanes();
                self.start_checks(&mut connection).await?;
                self.report(self.troubles.values().next().map(|trouble| trouble.reason.clone()));
                looked_at = Some(Instant::now());
            }

            // Gather what arrives within the window, and write it in one transaction.
            let first = tokio::select! {
                Some(check) = self.checks.join_next() => {
                    if self.checked(check.map_err(|_| Stopped::Panicked)?) {
                        self.start_checks(&mut connection).await?;
                    }
                    continue;
                }
                polled = self.records.recv() => match polled {
                    Some(polled) => polled,
                    None => return Ok(()),
                },
                () = tokio::time::sleep(LANES_EVERY) => continue,
            };
            let mut bundles = vec![first];
            tokio::time::sleep(GATHER).await;
            while bundles.len() < BUNDLES
                && bundles.iter().map(Polled::len).sum::<usize>() < BATCH
                && let Ok(more) = self.records.try_recv()
            {
                bundles.push(more);
            }

            let effects = self.read(bundles)?;
            self.write(effects, &mut connection).await?;
            pauses.reset();
        }
    }

    /// Drops lanes that this replica no longer owns, and has newly owned ones checked.
    fn look_at_lanes(&mut self) {
        let owned = self.owned.borrow().open();
        let lost: Vec<Partition> =
            self.lanes.keys().filter(|partition| !owned.contains(*partition)).copied().collect();
        lost.into_iter().for_each(|partition| self.drop_lane(partition));

        self.troubles.retain(|partition, _| owned.contains(partition));
        self.unchecked.retain(|partition| owned.contains(partition));
        for partition in owned {
            let waits = self.troubles.get(&partition).is_some_and(|trouble| trouble.is_lost);
            if !waits
                && !self.lanes.contains_key(&partition)
                && !self.unchecked.contains(&partition)
            {
                self.unchecked.push_back(partition);
            }
        }
    }

    /// Starts to check lanes, as many as may be checked at a time.
    async fn start_checks(&mut self, connection: &mut PgConnection) -> Result<(), Stopped> {
        while self.checks.len() < CHECKS
            && let Some(partition) = self.unchecked.pop_front()
        {
            let topics: Vec<&str> = self.topics.iter().map(AsRef::as_ref).collect();
            let load = unfenced::load(connection, self.projection.name(), &topics, partition);
            let positions = answered(load).await?;
            let reader = self.reader.clone();
            self.checks.spawn(async move {
                let check = check_inputs(&reader, partition, &positions);
                let result = tokio::time::timeout(CHECK_WITHIN, check).await;
                let result = result.unwrap_or(Err(ContinuityError::Read(ReadError::CutOff)));
                Check { partition, positions, result }
            });
        }
        Ok(())
    }

    /// Takes the result of a check. Returns whether the lane is read from now on; otherwise its next
    /// turn comes with the next look at the lanes.
    fn checked(&mut self, Check { partition, positions, result }: Check) -> bool {
        let is_owned = self.owned.borrow().open().contains(&partition);
        if !is_owned || self.lanes.contains_key(&partition) {
            return true;
        }
        let (reason, is_lost) = match result {
            Ok(()) => {
                self.troubles.remove(&partition);
                self.take_lane(partition, positions);
                return true;
            }
            Err(ContinuityError::Lost(reason)) => (reason, true),
            Err(error @ ContinuityError::Gone { .. }) => (error.to_string(), false),
            Err(error) => {
                tracing::debug!(
                    projection = self.projection.name(), %partition, error = %error,
                    "cannot read the inputs of a lane yet"
                );
                return false;
            }
        };
        self.troubles.insert(partition, Trouble { reason, is_lost });
        false
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

    fn drop_lane(&mut self, partition: Partition) {
        self.lanes.remove(&partition);
        self.consumer.unassign(partition);
    }

    /// Reads records by the consumer's rule.
    ///
    /// # Errors
    /// If the consumer found that an input lost records.
    fn read(&mut self, bundles: Vec<Polled>) -> Result<Effects, Stopped> {
        let mut effects = Effects::default();
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
                        if let Some(event) = projected(&self.kinds, &record, self.partitions) {
                            effects.lanes.push(record.partition);
                            effects.events.push(event);
                        }
                    }
                    Some(Verdict::EpochMissed { epoch }) => {
                        let reason = epoch_missed(&record, epoch);
                        self.troubles.insert(record.partition, Trouble { reason, is_lost: true });
                        self.drop_lane(record.partition);
                        effects.leave_out(&BTreeSet::from([record.partition]));
                        continue;
                    }
                    _ => {}
                }
                if input.committable() != before {
                    let place = (record.topic.clone(), record.partition);
                    let moved = effects.moves.entry(place).or_insert((before.next_offset, before));
                    moved.1 = input.committable();
                }
            }
        }
        Ok(effects)
    }

    /// Writes effects and advances the positions, in one transaction. Lanes whose positions another
    /// replica has advanced are dropped, and the rest is written without them.
    async fn write(
        &mut self,
        mut effects: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), Stopped> {
        while !effects.moves.is_empty() {
            let moved = answered(async {
                let mut transaction = connection.begin().await?;
                self.projection.project(&effects.events, &mut transaction).await?;
                let name = self.projection.name();
                let moved = unfenced::advance(&mut transaction, name, &effects.moves).await?;
                match &moved {
                    Moved::All => transaction.commit().await?,
                    Moved::Overtaken(_) => transaction.rollback().await?,
                }
                Ok(moved)
            });

            match moved.await? {
                Moved::All => return Ok(()),
                Moved::Overtaken(lanes) => {
                    let projection = self.projection.name();
                    tracing::debug!(projection, ?lanes, "another replica goes on with lanes");
                    effects.leave_out(&lanes);
                    lanes.into_iter().for_each(|partition| self.drop_lane(partition));
                }
            }
        }
        Ok(())
    }
}

impl Effects {
    /// Leaves lanes out.
    fn leave_out(&mut self, lanes: &BTreeSet<Partition>) {
        let mut owners = self.lanes.iter();
        self.events.retain(|_| owners.next().is_none_or(|lane| !lanes.contains(lane)));
        self.lanes.retain(|lane| !lanes.contains(lane));
        self.moves.retain(|(_, lane), _| !lanes.contains(lane));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Contract as _, Message as _};
    use crate::tests::till::{Fixture, Paid, TillInput};
    use crate::wire::Envelope;

    /// Notes which events it got.
    struct Notes;

    impl Projection for Notes {
        fn name(&self) -> &'static str {
            "notes"
        }

        fn types(&self) -> &'static [MessageType] {
            TillInput::types()
        }

        fn project<'a>(
            &'a self,
            events: &'a [Projected],
            connection: &'a mut PgConnection,
        ) -> futures_util::future::BoxFuture<'a, sqlx::Result<()>> {
            Box::pin(async move {
                let keys: Vec<&str> = events.iter().map(|event| event.key.as_str()).collect();
                let note = "insert into notes select * from unnest($1::text[])";
                sqlx::query(note).bind(keys).execute(connection).await.map(drop)
            })
        }
    }

    /// A projector of the fixture, which reads these lanes.
    async fn projector(fixture: &Fixture, lanes: &[Partition]) -> Projector {
        fixture.execute("create table notes (key text not null)").await;
        let replica = &fixture.replica;
        let (_, owned) = watch::channel(Lanes::default());
        let (status, _) = watch::channel(Projections::default());
        let (reader, database) = (replica.reader.clone(), replica.database.clone());
        let mut projector =
            Projector::new(Box::new(Notes), reader, replica.partitions, database, owned, status)
                .expect("a consumer");

        let topic = replica.inputs[0].clone();
        let mut connection = fixture.connection().await;
        for lane in lanes {
            unfenced::load(&mut connection, "notes", &[&topic], *lane).await.expect("loaded");
            let position = Position { epoch: 0, ..Position::START };
            projector.take_lane(*lane, vec![(topic.clone(), position)]);
        }
        projector
    }

    /// The first event of a lane, about this key.
    fn first(projector: &Projector, fixture: &Fixture, key: &str) -> Delivered {
        let partition = fixture.replica.partitions.of(key.as_bytes());
        let paid = Paid { entry: key.into(), account: "a".into(), amount: 1 };
        let envelope = Envelope {
            event_type: "Paid".into(),
            sequence: Some(0),
            epoch: Some(0),
            ..Envelope::default()
        };
        let record = Record {
            topic: fixture.replica.inputs[0].clone(),
            partition,
            offset: 0,
            key: Some(key.into()),
            payload: Some(Paid::codec().encode(&paid).expect("encodes")),
            envelope: Ok(envelope),
        };
        Delivered { assignment: projector.lanes[&partition].assignment, record }
    }

    #[tokio::test]
    async fn a_lane_that_another_replica_goes_on_with_disturbs_no_other() {
        let fixture = Fixture::closed("overtaken").await;
        let of = |key: &str| fixture.replica.partitions.of(key.as_bytes());
        let mut others = ["b", "c", "d", "e", "f"].into_iter();
        let other = others.find(|key| of(key) != of("a")).expect("another lane");
        let mut projector = projector(&fixture, &[of("a"), of(other)]).await;
        let mut connection = fixture.connection().await;
        sqlx::query(
            "update reel.positions set next_offset = 7 where reader = 'notes' and partition = $1",
        )
        .bind(of("a").0)
        .execute(&mut connection)
        .await
        .expect("moved elsewhere");

        let records =
            ["a", other].map(|key| first(&projector, &fixture, key)).into_iter().collect();
        let effects = projector.read(vec![Polled::Records(records)]).expect("read");
        projector.write(effects, &mut connection).await.expect("written");

        let notes: Vec<String> = sqlx::query_scalar("select key from notes")
            .fetch_all(&mut connection)
            .await
            .expect("notes");
        assert_eq!(notes, [other]);
        assert!(projector.lanes.contains_key(&of(other)) && projector.lanes.len() == 1);
    }
}
