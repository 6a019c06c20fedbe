//! Reads one service's database, as it was at one moment.

use std::collections::HashMap;

use reel::model::{Service, WorkingSet};
use reel::step::Stored;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Connection, Executor, FromRow, PgConnection};
use uuid::Uuid;

use super::{DeadlineRow, OutboxRow, ParkedRow};

/// What the database of a service holds.
pub(super) struct Tables<S: Service> {
    pub(super) state: S::State,
    /// The number that is given next, by partition.
    pub(super) heads: HashMap<i32, i64>,
    /// By partition, in the order of numbers.
    pub(super) outbox: HashMap<i32, Vec<OutboxRow>>,
    pub(super) deadlines: Vec<DeadlineRow>,
    pub(super) parked: Vec<ParkedRow>,
    pub(super) dead_letters: i64,
}

#[derive(FromRow)]
struct StoredDeadline {
    partition: i32,
    key: String,
    name: String,
    due_at: DateTime<Utc>,
    command: serde_json::Value,
}

#[derive(FromRow)]
struct StoredParked {
    topic: String,
    partition: i32,
    generation: i64,
    number: i64,
    offset: i64,
    key: String,
    #[sqlx(rename = "type")]
    message_type: String,
    reason: String,
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
        let rows: Vec<(i32, i64, Uuid)> =
            sqlx::query_as("select partition, seq, event_id from reel.outbox order by partition, seq").fetch_all(&mut connection).await?;
        let mut outbox: HashMap<i32, Vec<OutboxRow>> = HashMap::new();
        for (partition, seq, event_id) in rows {
            outbox.entry(partition).or_default().push(OutboxRow { seq, event_id });
        }
        let deadlines: Vec<StoredDeadline> =
            sqlx::query_as("select partition, key, name, due_at, command from reel.deadlines").fetch_all(&mut connection).await?;
        let parked: Vec<StoredParked> =
            sqlx::query_as(r#"select topic, partition, generation, number, "offset", key, type, reason from reel.parked order by nth"#)
                .fetch_all(&mut connection)
                .await?;
        let dead_letters = sqlx::query_scalar("select count(*) from reel.dead_letters").fetch_one(&mut connection).await?;
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

/// The number that is given next, by partition.
pub(super) async fn heads(url: &str) -> sqlx::Result<HashMap<i32, i64>> {
    let mut connection = PgConnection::connect(url).await?;
    let heads = read_heads(&mut connection).await?;
    connection.close().await?;
    Ok(heads)
}

async fn read_heads(connection: &mut PgConnection) -> sqlx::Result<HashMap<i32, i64>> {
    let heads: Vec<(i32, i64)> = sqlx::query_as("select partition, next_seq from reel.heads").fetch_all(connection).await?;
    Ok(heads.into_iter().collect())
}

impl From<StoredDeadline> for DeadlineRow {
    fn from(row: StoredDeadline) -> Self {
        let StoredDeadline { partition, key, name, due_at, command } = row;
        Self { partition, key, name, due_at: due_at.into(), command }
    }
}

impl From<StoredParked> for ParkedRow {
    fn from(row: StoredParked) -> Self {
        let StoredParked { topic, partition, generation, number, offset, key, message_type, reason } = row;
        Self { topic, partition, generation, number, offset, key, message_type, reason }
    }
}
