//! Numbers events and puts them into the outbox, in one statement with all else that the step writes.

use std::borrow::Cow;

use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use uuid::Uuid;

use crate::database::Writes;
use crate::failpoints::{Bug, planted};
use crate::model::{Partition, Timestamp};
use crate::wire::{Decided, Envelope, Traced};

/// An event that was decided and is not numbered yet.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) partition: Partition,
    pub(crate) event_id: Uuid,
    pub(crate) key: String,
    pub(crate) name: &'static str,
    pub(crate) payload: Vec<u8>,
    pub(crate) traced: Traced,
}

/// An event as the outbox holds it.
#[derive(Debug, Clone)]
pub(crate) struct Numbered {
    pub(crate) partition: Partition,
    pub(crate) seq: i64,
    pub(crate) key: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) envelope: Envelope,
}

/// Takes the step's number and, under the locks of the heads in partition order, the numbers of the events. It returns
/// no row, and changes none, unless all lanes were opened for the server's run.
///
/// `locked` comes behind all other writes of the statement, and waits for the heads one by one; `raised` then sees their newest version,
/// as READ COMMITTED has it.
pub(crate) const NUMBER: &str = ",
step as materialized (select nextval('reel.decided') as id from (select count(*) from written) as made),
events as (
    select * from unnest($1::integer[], $2::bigint[], $3::integer[], $4::uuid[], $5::text[], $6::text[], $7::bytea[], $8::jsonb[])
        as event(partition, nth, place, event_id, key, type, payload, headers)
),
counts as (select partition, count(*) as events from events group by partition),
locked as materialized (
    select partition from reel.heads
    where partition = any(array(select partition from counts)) and (select count(*) from written) is not null
    order by partition for update
),
raised as (
    update reel.heads as head set next_seq = head.next_seq + counts.events from counts, locked
    where head.partition = counts.partition and locked.partition = head.partition
      and not exists (select from reel.heads where opened_run is distinct from coalesce((select reel.run()), ''))
    returning head.partition, head.next_seq - counts.events as first_seq
)
insert into reel.outbox (partition, seq, event_id, key, type, payload, headers, step, place)
select partition, first_seq + nth, event_id, key, type, payload, headers, step.id, place
from events join raised using (partition) cross join step
returning place, seq, step, recorded_at";

#[derive(FromRow)]
struct Place {
    place: i32,
    seq: i64,
    step: i64,
    recorded_at: chrono::DateTime<chrono::Utc>,
}

/// Writes, and numbers the events of a step in their order. `None` where the service is closed: not all lanes are open.
pub(crate) async fn number(connection: &mut PgConnection, writes: Writes, drafts: Vec<Draft>) -> sqlx::Result<Option<Vec<Numbered>>> {
    if drafts.is_empty() {
        writes.run(connection).await?;
        return Ok(Some(Vec::new()));
    }
    let mut next_in_partition = std::collections::HashMap::new();
    let mut nths = Vec::with_capacity(drafts.len());
    for draft in &drafts {
        let next = next_in_partition.entry(draft.partition).or_insert(0_i64);
        nths.push(*next);
        *next += 1;
    }
    let places: Vec<i32> = (0..).take(drafts.len()).collect();
    let statement = if planted(Bug::NumberBySequence) {
        Cow::Owned(NUMBER.replace("first_seq + nth", "nextval('reel.decided')"))
    } else if planted(Bug::OpenEarly) {
        Cow::Owned(NUMBER.replace("opened_run is distinct from", "false and opened_run is distinct from"))
    } else {
        Cow::Borrowed(NUMBER)
    };
    let (statement, arguments) = writes.then(&statement, |columns| {
        columns.push(drafts.iter().map(|draft| draft.partition.0));
        columns.push(nths);
        columns.push(places);
        columns.push(drafts.iter().map(|draft| draft.event_id));
        columns.push(drafts.iter().map(|draft| draft.key.as_str()));
        columns.push(drafts.iter().map(|draft| draft.name));
        columns.push(drafts.iter().map(|draft| draft.payload.as_slice()));
        columns.push(drafts.iter().map(|draft| sqlx::types::Json(&draft.traced)));
    });
    let rows: Vec<Place> = sqlx::query_as_with(AssertSqlSafe(statement), arguments).fetch_all(connection).await?;
    if rows.len() != drafts.len() {
        return Ok(None);
    }
    let mut numbered: Vec<Option<Numbered>> = drafts.into_iter().map(Draft::unnumbered).map(Some).collect();
    for row in rows {
        let slot = usize::try_from(row.place).ok().and_then(|place| numbered.get_mut(place));
        if let Some(Some(event)) = slot {
            event.seq = row.seq;
            event.envelope.number = Some(row.seq);
            event.envelope.recorded_at = Some(row.recorded_at.into());
            event.envelope.decided = Some(Decided { step: row.step, place: row.place });
        }
    }
    Ok(Some(numbered.into_iter().flatten().collect()))
}

impl Draft {
    fn unnumbered(self) -> Numbered {
        let envelope = Envelope { id: self.event_id, name: self.name.to_owned(), traced: self.traced, ..Envelope::default() };
        Numbered { partition: self.partition, seq: -1, key: self.key, payload: self.payload, envelope }
    }
}

#[derive(FromRow)]
struct OutboxRow {
    partition: i32,
    seq: i64,
    event_id: Uuid,
    key: String,
    r#type: String,
    payload: Vec<u8>,
    headers: sqlx::types::Json<Traced>,
    step: i64,
    place: i32,
    recorded_at: chrono::DateTime<chrono::Utc>,
}

/// The relay's query: the next rows of several partitions, in order.
pub(crate) const READ: &str = "
select o.partition, o.seq, o.event_id, o.key, o.type, o.payload, o.headers, o.step, o.place, o.recorded_at
from unnest($1::integer[], $2::bigint[]) as wanted(partition, seq)
cross join lateral (
    select * from reel.outbox where partition = wanted.partition and seq >= wanted.seq order by seq limit $3
) as o
order by o.partition, o.seq";

/// The rows of each partition from a number on, at most `limit` of each.
pub(crate) async fn read(connection: &mut PgConnection, from: &[(Partition, i64)], limit: i64) -> sqlx::Result<Vec<Numbered>> {
    let rows: Vec<OutboxRow> = sqlx::query_as(READ)
        .bind(from.iter().map(|(partition, _)| partition.0).collect::<Vec<_>>())
        .bind(from.iter().map(|(_, seq)| *seq).collect::<Vec<_>>())
        .bind(limit)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().map(Numbered::from).collect())
}

impl From<OutboxRow> for Numbered {
    fn from(row: OutboxRow) -> Self {
        let envelope = Envelope {
            id: row.event_id,
            name: row.r#type,
            recorded_at: Some(Timestamp::from(row.recorded_at)),
            number: Some(row.seq),
            generation: None,
            decided: Some(Decided { step: row.step, place: row.place }),
            traced: row.headers.0,
        };
        Self { partition: Partition(row.partition), seq: row.seq, key: row.key, payload: row.payload, envelope }
    }
}
