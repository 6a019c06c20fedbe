//! Reading one service's database, in one snapshot.

use std::collections::HashMap;

use reel::inspect::{self, StoredDeadline, StoredParked};
use reel::model::{Service, WorkingSet};
use reel::rows::Stored;
use sqlx::{Connection, Executor, PgConnection};

use super::{DeadlineRow, OutboxRow, ParkedRow};

/// The contents of a service's database.
pub(super) struct Tables<S: Service> {
    pub(super) state: S::State,
    /// The sequence of the next event, by partition.
    pub(super) heads: HashMap<i32, i64>,
    /// By partition, and then by sequence.
    pub(super) outbox: HashMap<i32, Vec<OutboxRow>>,
    pub(super) deadlines: Vec<DeadlineRow>,
    pub(super) parked: Vec<ParkedRow>,
    pub(super) dead_letters: i64,
}

impl<S: Service<State: Stored>> Tables<S> {
    pub(super) async fn read(url: &str) -> sqlx::Result<Self> {
        let mut connection = PgConnection::connect(url).await?;
        connection.execute("begin isolation level repeatable read, read only").await?;

        let mut state = S::State::complete();
        for table in state.tables() {
            table.load_all(&mut connection).await?;
        }

        let heads = read_heads(&mut connection).await?;
        let mut outbox: HashMap<i32, Vec<OutboxRow>> = HashMap::new();
        for event in inspect::outbox(&mut connection).await? {
            let row = OutboxRow { sequence: event.sequence, event_id: event.event_id };
            outbox.entry(event.partition).or_default().push(row);
        }

        let deadlines = inspect::deadlines(&mut connection).await?;
        let parked = inspect::parked(&mut connection).await?;
        let dead_letters = inspect::dead_letter_count(&mut connection).await?;
        connection.close().await?;

        Ok(Self {
            state,
            heads,
            outbox,
            deadlines: deadlines.into_iter().map(DeadlineRow::from).collect(),
            parked: parked.into_iter().map(ParkedRow::from).collect(),
            dead_letters,
        })
    }
}

/// Reads the sequence of the next event, by partition.
pub(super) async fn heads(url: &str) -> sqlx::Result<HashMap<i32, i64>> {
    let mut connection = PgConnection::connect(url).await?;
    let heads = read_heads(&mut connection).await?;
    connection.close().await?;
    Ok(heads)
}

async fn read_heads(connection: &mut PgConnection) -> sqlx::Result<HashMap<i32, i64>> {
    let lanes = inspect::lanes(connection).await?.into_iter();
    Ok(lanes.map(|lane| (lane.partition.0, lane.next_sequence)).collect())
}

impl From<StoredDeadline> for DeadlineRow {
    fn from(row: StoredDeadline) -> Self {
        let StoredDeadline { partition, key, name, due_at, command, .. } = row;
        Self { partition, key, name, due_at, command }
    }
}

impl From<StoredParked> for ParkedRow {
    fn from(row: StoredParked) -> Self {
        let StoredParked {
            topic,
            partition,
            epoch,
            sequence,
            offset,
            key,
            message_type,
            reason,
            ..
        } = row;
        Self { topic, partition, epoch, sequence, offset, key, message_type, reason }
    }
}
