//! The bare transaction of a step in a loop: positions, rows, sequences and outbox. Nothing is read
//! from Kafka, decoded, decided or published.

use std::time::Instant;

use anyhow::Result;
use reel::model::{Event, Keyed};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::ledger::{LedgerEvent, Noted};
use crate::stage::{PARTITIONS, Stage};
use crate::stats::rate;

/// The content of one transaction, made before the time is taken.
struct Batch {
    ids: Vec<Uuid>,
    keys: Vec<String>,
    partitions: Vec<i32>,
    payloads: Vec<Vec<u8>>,
}

/// Inputs a second through bare transactions with `batch` inputs, one after the other, on the
/// tables of a ledger that was opened once.
///
/// # Errors
/// If Postgres is unreachable or refuses.
pub async fn bare_steps(stage: &Stage, inputs: u32, batch: u32) -> Result<f64> {
    stage.opened_once().await?;
    let batches: Vec<Batch> =
        (0..inputs / batch.max(1)).map(|_| Batch::random(batch)).collect::<Result<_>>()?;
    let count = batches.iter().map(|batch| batch.ids.len()).sum();

    let mut connection = stage.pool.acquire().await?;
    let began = Instant::now();
    for batch in &batches {
        batch.commit(&mut connection).await?;
    }
    Ok(rate(count, began.elapsed()))
}

impl Batch {
    fn random(size: u32) -> Result<Self> {
        let mut batch = Self { ids: vec![], keys: vec![], partitions: vec![], payloads: vec![] };
        for _ in 0..size {
            let note = Noted::random();
            let key = note.key().to_string();
            batch.ids.push(note.order_id.uuid());
            batch.partitions.push(Stage::partitions().of(key.as_bytes()).0);
            batch.keys.push(key);
            batch.payloads.push(LedgerEvent::from(note).encode()?);
        }
        Ok(batch)
    }

    async fn commit(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let mut transaction = connection.begin().await?;
        sqlx::query(
            "update reel.positions set next_offset = next_offset + $1, next_seq = next_seq + $1",
        )
        .bind(i64::try_from(self.ids.len()).unwrap_or(0) / i64::from(PARTITIONS))
        .execute(&mut *transaction)
        .await?;

        sqlx::query(
            "select order_id, length from notes where order_id = any($1)
             order by order_id for update",
        )
        .bind(&self.ids)
        .fetch_all(&mut *transaction)
        .await?;

        sqlx::query(
            "insert into notes (order_id, length) select id, 207 from unnest($1::uuid[]) as id",
        )
        .bind(&self.ids)
        .execute(&mut *transaction)
        .await?;

        sqlx::query(
            "with event as (
                 select *, row_number() over (partition by partition) - 1 as nth
                 from unnest($1::integer[], $2::uuid[], $3::text[], $4::bytea[])
                     as event(partition, id, key, payload)
             ),
             raised as (
                 update reel.heads as head set next_seq = head.next_seq + counts.events
                 from (select partition, count(*) as events from event group by partition)
                     as counts
                 where head.partition = counts.partition
                 returning head.partition, head.next_seq - counts.events as first_seq
             )
             insert into reel.outbox
                 (partition, seq, event_id, key, type, payload, headers, step, place)
             select partition, first_seq + nth, id, key, 'Noted', payload, '{}', 0, 0
             from event join raised using (partition)",
        )
        .bind(&self.partitions)
        .bind(&self.ids)
        .bind(&self.keys)
        .bind(&self.payloads)
        .execute(&mut *transaction)
        .await?;

        transaction.commit().await
    }
}
