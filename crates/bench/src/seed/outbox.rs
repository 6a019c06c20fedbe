//! Committed rows in the outbox of a ledger: to be relayed, or relayed long ago.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::Result;
use reel::model::{Event, Keyed, Partition};
use reel::wire::{Cause, Traced};
use sqlx::types::Json;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::ledger::{LedgerEvent, Noted};
use crate::stage::{PARTITIONS, Stage};

/// Rows of one statement.
const CHUNK: u32 = 5_000;

const INSERT: &str = "
insert into reel.outbox (partition, seq, event_id, key, type, payload, headers, step, place)
select * from unnest($1::integer[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::bytea[], $7::jsonb[], $8::bigint[], $9::integer[])";

#[derive(Default)]
struct Rows {
    partitions: Vec<i32>,
    seqs: Vec<i64>,
    ids: Vec<Uuid>,
    keys: Vec<String>,
    names: Vec<String>,
    payloads: Vec<Vec<u8>>,
    headers: Vec<Json<Traced>>,
    steps: Vec<i64>,
    places: Vec<i32>,
}

/// Commits rows with the headers that a reaction's event has, as if another replica had committed them, and wakes the relay as that
/// would. Returns when the commit was done.
///
/// # Errors
/// Where the database refuses.
pub async fn commit_rows(pool: &PgPool, count: u32) -> Result<Instant> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let heads: Vec<(i32, i64)> =
        sqlx::query_as("select partition, next_seq from reel.heads order by partition for update").fetch_all(&mut *transaction).await?;
    let mut next: HashMap<i32, i64> = heads.into_iter().collect();
    for first in (0..count).step_by(CHUNK as usize) {
        let rows = Rows::random(CHUNK.min(count - first), i64::from(first / CHUNK), &mut next)?;
        rows.insert(&mut transaction).await?;
    }
    sqlx::query("update reel.heads set next_seq = new.next_seq from unnest($1::integer[], $2::bigint[]) as new(partition, next_seq) where heads.partition = new.partition")
        .bind(next.keys().copied().collect::<Vec<_>>())
        .bind(next.values().copied().collect::<Vec<_>>())
        .execute(&mut *transaction)
        .await?;
    sqlx::query("analyze reel.outbox").execute(&mut *transaction).await?;
    transaction.commit().await?;
    let committed_at = Instant::now();
    let all = (0..PARTITIONS).map(|partition| partition.to_string()).collect::<Vec<_>>().join(",");
    sqlx::query("select pg_notify('reel_outbox', $1)").bind(all).execute(&mut *connection).await?;
    Ok(committed_at)
}

/// Puts so many rows that were relayed long ago into the outbox of a ledger that was opened and does not run, and as many notes, whose
/// keys are as old: those of a service grow with time, as UUIDs of version 7 do.
///
/// # Errors
/// Where the database refuses.
pub async fn old_rows(pool: &PgPool, count: u32) -> Result<()> {
    let each = i64::from(count) / i64::from(PARTITIONS);
    let statements = [
        "insert into reel.outbox (partition, seq, event_id, key, type, payload, headers, step, place)
         select partition, seq, gen_random_uuid(), gen_random_uuid()::text, 'Noted', decode(repeat('5a', 256), 'hex'), '{}', 0, 0
         from generate_series(0, $1 - 1) as seq, generate_series(0, (select max(partition) from reel.heads)) as partition",
        "insert into notes (order_id, length)
         select (lpad(to_hex(1700000000000 + nth), 12, '0') || '7' || substr(md5(nth::text), 1, 19))::uuid, 207
         from generate_series(1, $1 * (select count(*) from reel.heads)) as nth",
        "update reel.heads set next_seq = next_seq + $1",
        "update reel.cursors set seq = seq + $1",
    ];
    for statement in statements {
        sqlx::query(statement).bind(each).execute(pool).await?;
    }
    for statement in ["vacuum (analyze) reel.outbox", "vacuum (analyze) notes", "checkpoint"] {
        sqlx::query(statement).execute(pool).await?;
    }
    Ok(())
}

impl Rows {
    fn random(count: u32, step: i64, next: &mut HashMap<i32, i64>) -> Result<Self> {
        let mut rows = Self::default();
        for place in 0..i32::try_from(count)? {
            let note = Noted::random();
            let key = note.key().to_string();
            let partition = Stage::partitions().of(key.as_bytes());
            let seq = next.entry(partition.0).or_default();
            rows.partitions.push(partition.0);
            rows.seqs.push(*seq);
            rows.ids.push(Uuid::now_v7());
            rows.headers.push(Json(caused(partition, *seq)));
            rows.payloads.push(LedgerEvent::from(note).encode()?);
            rows.keys.push(key);
            rows.names.push("Noted".to_owned());
            rows.steps.push(step);
            rows.places.push(place);
            *seq += 1;
        }
        Ok(rows)
    }

    async fn insert(self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let insert = sqlx::query(INSERT).bind(self.partitions).bind(self.seqs).bind(self.ids).bind(self.keys).bind(self.names);
        insert.bind(self.payloads).bind(self.headers).bind(self.steps).bind(self.places).execute(connection).await.map(drop)
    }
}

/// What a reaction's event says of where it comes from.
fn caused(partition: Partition, number: i64) -> Traced {
    let cause = Cause { topic: "requests".to_owned(), partition: partition.0, generation: 0, number, offset: number + 1 };
    let traceparent = format!("00-{}-{:016x}-01", Uuid::new_v4().simple(), fastrand::u64(..));
    Traced { causation: Some(Uuid::now_v7()), cause: Some(cause), traceparent: Some(traceparent) }
}
