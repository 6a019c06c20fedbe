//! Committed rows in the outbox of a ledger: still to be relayed, or relayed long ago.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::Result;
use reel::model::{Event, Keyed, Partition};
use reel::wire::{Causality, RecordRef};
use sqlx::types::Json;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::ledger::{LedgerEvent, Noted};
use crate::stage::{PARTITIONS, Stage};

/// Rows of one insert.
const CHUNK: u32 = 5_000;

const INSERT: &str = "
insert into reel.outbox (partition, seq, event_id, key, type, payload, headers, step, place)
select * from unnest($1::integer[], $2::bigint[], $3::uuid[], $4::text[], $5::text[],
                     $6::bytea[], $7::jsonb[], $8::bigint[], $9::integer[])";

/// Rows of the outbox, as the array parameters of [`INSERT`].
#[derive(Default)]
struct Rows {
    partitions: Vec<i32>,
    sequences: Vec<i64>,
    ids: Vec<Uuid>,
    keys: Vec<String>,
    names: Vec<String>,
    payloads: Vec<Vec<u8>>,
    headers: Vec<Json<Causality>>,
    steps: Vec<i64>,
    places: Vec<i32>,
}

/// Commits rows with the headers of a reaction's event, and wakes the relay, both as another
/// replica would. Returns the time of the commit.
///
/// # Errors
/// If Postgres is unreachable or refuses.
pub async fn commit_rows(pool: &PgPool, count: u32) -> Result<Instant> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;

    // As in the step, the locks of the heads order the log.
    let heads: Vec<(i32, i64)> =
        sqlx::query_as("select partition, next_seq from reel.heads order by partition for update")
            .fetch_all(&mut *transaction)
            .await?;
    let mut next: HashMap<i32, i64> = heads.into_iter().collect();
    for first in (0..count).step_by(CHUNK as usize) {
        let rows = Rows::random(CHUNK.min(count - first), i64::from(first / CHUNK), &mut next)?;
        rows.insert(&mut transaction).await?;
    }

    sqlx::query(
        "update reel.heads set next_seq = new.next_seq
         from unnest($1::integer[], $2::bigint[]) as new(partition, next_seq)
         where heads.partition = new.partition",
    )
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

/// Adds rows that were relayed long ago to the outbox of a ledger that was opened and does not run,
/// and as many notes. Their keys are old too, because the UUIDs of version 7 that services use grow
/// with time.
///
/// # Errors
/// If Postgres is unreachable or refuses.
pub async fn old_rows(pool: &PgPool, count: u32) -> Result<()> {
    let each = i64::from(count) / i64::from(PARTITIONS);
    let statements = [
        "insert into reel.outbox
             (partition, seq, event_id, key, type, payload, headers, step, place)
         select partition, seq, gen_random_uuid(), gen_random_uuid()::text, 'Noted',
             decode(repeat('5a', 256), 'hex'), '{}', 0, 0
         from generate_series(0, $1 - 1) as seq,
             generate_series(0, (select max(partition) from reel.heads)) as partition",
        "insert into notes (order_id, length)
         select (lpad(to_hex(1700000000000 + nth), 12, '0') || '7'
             || substr(md5(nth::text), 1, 19))::uuid, 207
         from generate_series(1, $1 * (select count(*) from reel.heads)) as nth",
        "update reel.heads set next_seq = next_seq + $1",
        "update reel.cursors set seq = seq + $1",
    ];
    for statement in statements {
        sqlx::query(statement).bind(each).execute(pool).await?;
    }

    // So that no vacuum and no checkpoint of the old rows falls into the measurement.
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
            let sequence = next.entry(partition.0).or_default();
            rows.partitions.push(partition.0);
            rows.sequences.push(*sequence);
            rows.ids.push(Uuid::now_v7());
            rows.headers.push(Json(causality(partition, *sequence)));
            rows.payloads.push(LedgerEvent::from(note).encode()?);
            rows.keys.push(key);
            rows.names.push("Noted".to_owned());
            rows.steps.push(step);
            rows.places.push(place);
            *sequence += 1;
        }

        Ok(rows)
    }

    async fn insert(self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let insert = sqlx::query(INSERT)
            .bind(self.partitions)
            .bind(self.sequences)
            .bind(self.ids)
            .bind(self.keys)
            .bind(self.names);
        insert
            .bind(self.payloads)
            .bind(self.headers)
            .bind(self.steps)
            .bind(self.places)
            .execute(connection)
            .await
            .map(drop)
    }
}

/// The causality of a reaction's event, as the step would record it.
fn causality(partition: Partition, sequence: i64) -> Causality {
    let cause = RecordRef {
        topic: "requests".to_owned(),
        partition: partition.0,
        epoch: 0,
        sequence,
        offset: sequence + 1,
    };
    let traceparent = format!("00-{}-{:016x}-01", Uuid::new_v4().simple(), fastrand::u64(..));
    Causality {
        causation: Some(Uuid::now_v7()),
        cause: Some(cause),
        traceparent: Some(traceparent),
        expires_at: None,
    }
}
