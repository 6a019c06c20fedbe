//! `reel.outbox`: the events of the service, in the order of their sequences (law 3). Insert-only.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::database::{ArrayParams, Placeholders, WriteBatch};
use crate::from_row;
use crate::model::{Partition, Timestamp};
use crate::wire::{Causality, DecisionOrder, Envelope};

/// An event that was decided and has no sequence yet.
#[derive(Debug, Clone)]
pub(crate) struct PendingEvent {
    pub(crate) partition: Partition,
    pub(crate) event_id: Uuid,
    pub(crate) key: String,
    pub(crate) event_type: &'static str,
    pub(crate) payload: Vec<u8>,
    pub(crate) causality: Causality,
}

/// An event as the outbox holds it.
#[derive(Debug, Clone)]
pub(crate) struct OutboxEvent {
    pub(crate) partition: Partition,
    pub(crate) sequence: i64,
    pub(crate) key: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) envelope: Envelope,
}

/// What became of appending events.
#[derive(Debug)]
pub(crate) enum Appended {
    /// They have their sequences.
    Events(Vec<OutboxEvent>),
    /// Nothing was written: not all lanes are open.
    Closed,
}

/// The columns of the events to append, and their types.
const PENDING: [(&str, &str); 8] = [
    ("partition", "integer"),
    ("nth", "bigint"),
    ("place", "integer"),
    ("event_id", "uuid"),
    ("key", "text"),
    ("type", "text"),
    ("payload", "bytea"),
    ("headers", "jsonb"),
];

/// Takes the step's number and, under the locks of the heads in partition order, the sequences of
/// the events. It returns no row, and changes none, unless all lanes are open.
///
/// `locked` comes behind all other writes of the statement and locks the heads one by one; `raised`
/// then sees their newest version, as READ COMMITTED has it.
pub(crate) fn append_sql(params: Placeholders) -> String {
    let events = params.unnest(PENDING.map(|(_, column_type)| column_type));
    let columns = PENDING.map(|(column, _)| column).join(", ");
    format!(
        ",
step as materialized (
    select nextval('reel.decided') as id from (select count(*) from written) as made
),
events as (select * from {events} as event({columns})),
counts as (select partition, count(*) as events from events group by partition),
locked as materialized (
    select partition from reel.heads
    where partition = any(array(select partition from counts))
      and (select count(*) from written) is not null
    order by partition for update
),
raised as (
    update reel.heads as head set next_seq = head.next_seq + counts.events from counts, locked
    where head.partition = counts.partition and locked.partition = head.partition
      and not exists (
          select from reel.heads
          where opened_run is distinct from coalesce((select reel.run()), ''))
    returning head.partition, head.next_seq - counts.events as first_seq
)
insert into reel.outbox
    (partition, seq, event_id, key, type, payload, headers, step, place)
select partition, first_seq + nth, event_id, key, type, payload, headers, step.id, place
from events join raised using (partition) cross join step
returning place, seq, step, recorded_at"
    )
}

/// The next rows of several partitions, in order: of each at most $3, and none behind the one with
/// which the payloads exceed $4 bytes. The lengths are known without reading the payloads.
const READ: &str = "
select o.partition, o.seq, o.event_id, o.key, o.type, o.payload, o.headers,
    o.step, o.place, o.recorded_at
from unnest($1::integer[], $2::bigint[]) as wanted(partition, seq)
cross join lateral (
    select * from (
        select *, sum(octet_length(payload)) over (order by seq) - octet_length(payload)
            as bytes_before
        from (
            select * from reel.outbox
            where partition = wanted.partition and seq >= wanted.seq order by seq limit $3
        ) as next_rows
    ) as sized
    where bytes_before <= $4
) as o
order by o.partition, o.seq";

/// What the database adds to an event as it is appended.
struct AppendedRow {
    place: i32,
    seq: i64,
    step: i64,
    recorded_at: chrono::DateTime<chrono::Utc>,
}

struct OutboxRow {
    partition: i32,
    seq: i64,
    event_id: Uuid,
    key: String,
    r#type: String,
    payload: Vec<u8>,
    headers: sqlx::types::Json<Causality>,
    step: i64,
    place: i32,
    recorded_at: chrono::DateTime<chrono::Utc>,
}

from_row!(AppendedRow { place: "place", seq: "seq", step: "step", recorded_at: "recorded_at" });

from_row!(OutboxRow {
    partition: "partition",
    seq: "seq",
    event_id: "event_id",
    key: "key",
    r#type: "type",
    payload: "payload",
    headers: "headers",
    step: "step",
    place: "place",
    recorded_at: "recorded_at",
});

/// Makes the writes of a batch and appends its events, in one statement.
pub(crate) async fn append(
    connection: &mut PgConnection,
    writes: WriteBatch,
    pending: Vec<PendingEvent>,
) -> sqlx::Result<Appended> {
    if pending.is_empty() {
        writes.run(connection).await?;
        return Ok(Appended::Events(Vec::new()));
    }

    let (sql, arguments) = writes.then(append_sql, |params| push(&pending, params));
    let rows: Vec<AppendedRow> =
        sqlx::query_as_with(AssertSqlSafe(sql), arguments).fetch_all(connection).await?;
    if rows.len() != pending.len() {
        return Ok(Appended::Closed);
    }

    let mut places: HashMap<i32, AppendedRow> =
        rows.into_iter().map(|row| (row.place, row)).collect();
    let events = pending
        .into_iter()
        .zip(0..)
        .filter_map(|(event, place)| places.remove(&place).map(|row| event.appended(&row)));

    Ok(Appended::Events(events.collect()))
}

/// Pushes the arrays of [`PENDING`].
fn push(pending: &[PendingEvent], params: &mut ArrayParams) {
    // The place of each event among those of its partition.
    let mut next = HashMap::new();
    let nths = pending.iter().map(|event| {
        let next = next.entry(event.partition).or_insert(0_i64);
        *next += 1;
        *next - 1
    });

    params.push(pending.iter().map(|event| event.partition.0));
    params.push(nths);
    params.push((0_i32..).take(pending.len()));
    params.push(pending.iter().map(|event| event.event_id));
    params.push(pending.iter().map(|event| event.key.as_str()));
    params.push(pending.iter().map(|event| event.event_type));
    params.push(pending.iter().map(|event| event.payload.as_slice()));
    params.push(pending.iter().map(|event| sqlx::types::Json(&event.causality)));
}

/// The rows of each partition from a sequence on, at most `limit` of each, and none behind the one
/// with which the payloads exceed `bytes`.
pub(crate) async fn read(
    connection: &mut PgConnection,
    from: &[(Partition, i64)],
    limit: usize,
    bytes: usize,
) -> sqlx::Result<Vec<OutboxEvent>> {
    let rows: Vec<OutboxRow> = sqlx::query_as(READ)
        .bind(from.iter().map(|(partition, _)| partition.0).collect::<Vec<_>>())
        .bind(from.iter().map(|(_, sequence)| *sequence).collect::<Vec<_>>())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().map(OutboxEvent::from).collect())
}

/// The first of these sequences under which the outbox has another event than the one read.
pub(crate) async fn first_fork(
    connection: &mut PgConnection,
    partition: Partition,
    read: &[(i64, Uuid)],
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar(
        "select o.seq from unnest($2::bigint[], $3::uuid[]) as read(seq, event_id)
         join reel.outbox as o on o.partition = $1 and o.seq = read.seq
         where o.event_id <> read.event_id order by o.seq limit 1",
    )
    .bind(partition.0)
    .bind(read.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>())
    .bind(read.iter().map(|(_, event_id)| *event_id).collect::<Vec<_>>())
    .fetch_optional(connection)
    .await
}

impl OutboxEvent {
    /// About how many bytes of memory it takes: key, payload, and an allowance for the rest.
    pub(crate) fn size(&self) -> usize {
        const REST: usize = 512;
        self.key.len() + self.payload.len() + REST
    }
}

impl PendingEvent {
    fn appended(self, row: &AppendedRow) -> OutboxEvent {
        let envelope = Envelope {
            id: self.event_id,
            event_type: self.event_type.to_owned(),
            recorded_at: Some(row.recorded_at.into()),
            sequence: Some(row.seq),
            epoch: None,
            decided: Some(DecisionOrder { step: row.step, place: row.place }),
            causality: self.causality,
        };
        let Self { partition, key, payload, .. } = self;
        OutboxEvent { partition, sequence: row.seq, key, payload, envelope }
    }
}

impl From<OutboxRow> for OutboxEvent {
    fn from(row: OutboxRow) -> Self {
        let envelope = Envelope {
            id: row.event_id,
            event_type: row.r#type,
            recorded_at: Some(Timestamp::from(row.recorded_at)),
            sequence: Some(row.seq),
            epoch: None,
            decided: Some(DecisionOrder { step: row.step, place: row.place }),
            causality: row.headers.0,
        };
        Self {
            partition: Partition(row.partition),
            sequence: row.seq,
            key: row.key,
            payload: row.payload,
            envelope,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{READ, append_sql};
    use crate::database::WriteBatch;
    use crate::tests::plan::uses_index;

    #[tokio::test]
    async fn events_are_read_by_key() {
        uses_index(READ, "outbox_pkey").await;
    }

    #[tokio::test]
    async fn the_heads_are_raised_by_key() {
        uses_index(&WriteBatch::default().then(append_sql, |_| ()).0, "heads_pkey").await;
    }
}
