//! The two halves of a relay, each alone: reading rows, and producing the same records from memory.

use std::time::Instant;

use anyhow::Result;
use reel::kafka::Topics;
use reel::model::{Partition, Timestamp};
use reel::wire::{Causality, DecisionOrder, Envelope};
use sqlx::PgPool;
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::seed::Producer;
use crate::stage::{PARTITIONS, Stage};
use crate::stats::rate;

/// Number of rows in a read.
const PAGE: i64 = 10_000;
/// Topic of the records that are produced alone.
const TOPIC: &str = "alone";

/// The rates of the two halves.
#[derive(Debug, Clone, Copy)]
pub struct Alone {
    /// Rows a second, read and decoded.
    pub read: f64,
    /// Records a second, produced and acked.
    pub produced: f64,
}

struct Row {
    partition: i32,
    sequence: i64,
    event_id: Uuid,
    key: String,
    r#type: String,
    payload: Vec<u8>,
    headers: Json<Causality>,
    step: i64,
    place: i32,
    recorded_at: DateTime<Utc>,
}

reel::from_row!(Row {
    partition: "partition",
    sequence: "seq",
    event_id: "event_id",
    key: "key",
    r#type: "type",
    payload: "payload",
    headers: "headers",
    step: "step",
    place: "place",
    recorded_at: "recorded_at",
});

/// Reads the last `count` rows of the outbox in the order of their sequences, and then produces the
/// same records from memory, to a topic of their own.
///
/// # Errors
/// If Kafka or Postgres is unreachable or refuses.
pub async fn relay_alone(stage: &Stage, count: u32) -> Result<Alone> {
    let lanes = stage.lanes().await?;
    let heads: Vec<i64> = lanes.iter().map(|lane| lane.next_sequence).collect();
    let total: i64 = heads.iter().sum();

    // Old rows are spread evenly over the partitions, new ones by their keys.
    let old_of_each = (total - i64::from(count)) / i64::from(PARTITIONS);
    let began = Instant::now();
    let rows = read(&stage.pool, old_of_each, &heads).await?;
    let read = rate(rows.len(), began.elapsed());

    Topics::new(stage.kafka.clone())?.create_journal(TOPIC, PARTITIONS, None).await?;
    let (producer, topic, sent) =
        (Producer::new(&stage.kafka)?, stage.kafka.topic(TOPIC), rows.len());
    producer.warm_up(&topic).await?;
    let sending = producer.clone();
    let began = Instant::now();
    tokio::task::spawn_blocking(move || {
        rows.into_iter().try_for_each(|row| row.send(&sending, &topic))
    })
    .await??;
    producer.all_acked().await?;
    Ok(Alone { read, produced: rate(sent, began.elapsed()) })
}

async fn read(pool: &PgPool, from: i64, heads: &[i64]) -> Result<Vec<Row>> {
    const READ: &str =
        "select partition, seq, event_id, key, type, payload, headers, step, place, recorded_at
         from reel.outbox where partition = $1 and seq >= $2 order by seq limit $3";

    let mut connection = pool.acquire().await?;
    let mut rows: Vec<Row> = Vec::new();
    for (partition, head) in (0..).zip(heads) {
        let mut next = from;
        while next < *head {
            let page: Vec<Row> = sqlx::query_as(READ)
                .bind(partition)
                .bind(next)
                .bind(PAGE)
                .fetch_all(&mut *connection)
                .await?;
            let Some(last) = page.last() else { break };
            next = last.sequence + 1;
            rows.extend(page);
        }
    }

    Ok(rows)
}

impl Row {
    fn send(self, producer: &Producer, topic: &str) -> Result<()> {
        let envelope = Envelope {
            id: self.event_id,
            event_type: self.r#type,
            recorded_at: Some(Timestamp::from(self.recorded_at)),
            sequence: Some(self.sequence),
            epoch: Some(0),
            decided: Some(DecisionOrder { step: self.step, place: self.place }),
            causality: self.headers.0,
        };
        producer.send(
            topic,
            Partition(self.partition),
            &self.key,
            &self.payload,
            reel::kafka::headers(&envelope, "ledger", &self.key),
        )
    }
}
