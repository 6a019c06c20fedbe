//! `reel.deadlines`: set and cleared by the fold of events, due by the database's clock.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::database::{Placeholders, WriteBatch};
use crate::from_row;
use crate::model::{DeadlineChange, Deadlines, Partition, Partitions, Service, Timestamp};

/// A deadline that is due.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) command: serde_json::Value,
}

/// What is due, and when that was.
#[derive(Debug)]
pub(crate) struct DueAt {
    /// The deadlines, the earliest first.
    pub(crate) due: Vec<Due>,
    /// When the earliest of them was due, or else when they were looked for: of what was due before
    /// that, nothing is left.
    pub(crate) nothing_before: Timestamp,
}

/// A row of [`DUE`]; there is one without a deadline if none is due.
struct DueRow {
    looked_at: DateTime<Utc>,
    due_at: Option<DateTime<Utc>>,
    partition: Option<i32>,
    key: Option<String>,
    name: Option<String>,
    command: Option<serde_json::Value>,
}

from_row!(DueRow {
    looked_at: "looked_at",
    due_at: "due_at",
    partition: "partition",
    key: "key",
    name: "name",
    command: "command",
});

/// The sagas of a service that are open, which are those with a deadline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenSagas {
    /// Their number.
    pub(crate) open: u64,
    /// How many of those are left that were open at the count before.
    pub(crate) left_of_before: u64,
    /// When they were counted, by the database's clock.
    pub(crate) counted_at: Timestamp,
    /// Mean time from when a deadline was set until it is due; zero if there is none.
    pub(crate) time_allowed: Duration,
}

/// What a batch changes: by key and name, the last change wins.
#[derive(Debug, Default)]
pub(crate) struct Changes(BTreeMap<(String, String), Change>);

#[derive(Debug)]
enum Change {
    Set { partition: Partition, due_at: Timestamp, command: serde_json::Value },
    Clear,
}

/// What is due, by partition and time, in the order of the index. The time is that of the
/// statement: with a clock that moves within it, every deadline would be looked at. It begins at a
/// time before which nothing is left, since while a transaction is held open somewhere, the rows of
/// all that were due and cleared meanwhile lie there.
const DUE: &str = "
select statement_timestamp() as looked_at, due.*
from (select 1) as always
left join lateral (
    select due_at, partition, key, name, command from reel.deadlines
    where partition = any($1) and due_at <= statement_timestamp()
      and due_at >= coalesce($3, '-infinity'::timestamptz)
    order by due_at limit $2
) as due on true
order by due_at";

/// At most so many open sagas are counted.
const COUNTED: i64 = 1_000_000;

/// Leaves out what has been due for a minute: it does not become more by what is let in, and while
/// a transaction is held open somewhere, the rows of all that have ended meanwhile lie there too.
const COUNT_OPEN: &str = "
select count(*), count(*) filter (where set_at <= $2), statement_timestamp(),
    coalesce(extract(epoch from avg(due_at - set_at)), 0)::float8
from (
    select set_at, due_at from reel.deadlines
    where partition = any($1) and due_at > statement_timestamp() - interval '1 minute' limit $3
) as open";

fn clear_sql(params: Placeholders) -> String {
    let gone = params.unnest(["text", "text"]);
    format!(
        "delete from reel.deadlines using {gone} as gone(key, name)
         where deadlines.key = gone.key and deadlines.name = gone.name"
    )
}

fn set_sql(params: Placeholders) -> String {
    let set = params.unnest(["integer", "text", "text", "timestamptz", "jsonb"]);
    format!(
        "insert into reel.deadlines (partition, key, name, due_at, command) select * from {set}
         on conflict (key, name) do update set due_at = excluded.due_at, command = excluded.command"
    )
}

impl Changes {
    /// Adds what an event changes.
    pub(crate) fn apply<S: Service>(
        &mut self,
        partition: Partition,
        key: &str,
        deadlines: Deadlines<S>,
    ) -> serde_json::Result<()> {
        for change in deadlines {
            let (name, change) = match change {
                DeadlineChange::Set { name, due_at, command } => (
                    name,
                    Change::Set { partition, due_at, command: serde_json::to_value(&command)? },
                ),
                DeadlineChange::Clear { name } => (name, Change::Clear),
            };
            self.0.insert((key.to_owned(), name.to_owned()), change);
        }
        Ok(())
    }

    /// Clears a deadline that has fired, unless the event it led to sets it again.
    pub(crate) fn fired(&mut self, due: &Due) {
        self.0.entry((due.key.clone(), due.name.clone())).or_insert(Change::Clear);
    }

    /// Whether an earlier message of the batch has changed this deadline, so that what is due is no
    /// longer what was read.
    pub(crate) fn touches(&self, due: &Due) -> bool {
        self.0.contains_key(&(due.key.clone(), due.name.clone()))
    }

    /// Adds the changes to a batch of writes.
    pub(crate) fn save(self, writes: &mut WriteBatch) {
        let (mut cleared, mut set) = (Vec::new(), Vec::new());
        for ((key, name), change) in self.0 {
            match change {
                Change::Clear => cleared.push((key, name)),
                Change::Set { partition, due_at, command } => {
                    set.push((partition, key, name, due_at, command));
                }
            }
        }

        if !cleared.is_empty() {
            let params = writes.add(clear_sql);
            params.push(cleared.iter().map(|(key, _)| key.as_str()));
            params.push(cleared.iter().map(|(_, name)| name.as_str()));
        }

        if !set.is_empty() {
            let params = writes.add(set_sql);
            params.push(set.iter().map(|(partition, ..)| partition.0));
            params.push(set.iter().map(|(_, key, ..)| key.as_str()));
            params.push(set.iter().map(|(_, _, name, ..)| name.as_str()));
            params.push(set.iter().map(|(_, _, _, due_at, _)| due_at.to_utc()));
            params.push(set.iter().map(|(.., command)| command.clone()));
        }
    }
}

/// The deadlines that are due in these lanes, at most `limit`, and not before `from`.
pub(crate) async fn due(
    connection: &mut PgConnection,
    lanes: &[i32],
    limit: i64,
    from: Option<Timestamp>,
) -> sqlx::Result<DueAt> {
    let from = from.map(Timestamp::to_utc);
    let rows: Vec<DueRow> =
        sqlx::query_as(DUE).bind(lanes).bind(limit).bind(from).fetch_all(connection).await?;
    let first = rows.first().map(|row| row.due_at.unwrap_or(row.looked_at));
    let nothing_before = first.map_or(Timestamp::from_micros(0), Timestamp::from);
    let due = rows.into_iter().filter_map(|DueRow { partition, key, name, command, .. }| {
        Some(Due { partition: partition?, key: key?, name: name?, command: command? })
    });
    Ok(DueAt { due: due.collect(), nothing_before })
}

/// Counts the open sagas of the service, and those that were open at the count `before`.
pub(crate) async fn count_open(
    connection: &mut PgConnection,
    partitions: Partitions,
    before: Option<Timestamp>,
) -> sqlx::Result<OpenSagas> {
    let lanes: Vec<i32> = (0..partitions.count()).collect();
    let (open, left_of_before, counted_at, time_allowed): (i64, i64, DateTime<Utc>, f64) =
        sqlx::query_as(COUNT_OPEN)
            .bind(lanes)
            .bind(before.map(Timestamp::to_utc))
            .bind(COUNTED)
            .fetch_one(connection)
            .await?;
    Ok(OpenSagas {
        open: u64::try_from(open).unwrap_or(0),
        left_of_before: u64::try_from(left_of_before).unwrap_or(0),
        counted_at: counted_at.into(),
        time_allowed: Duration::try_from_secs_f64(time_allowed).unwrap_or_default(),
    })
}

/// Which of these deadlines are still there and due, read under the locks of the rows that they
/// are about.
pub(crate) async fn still_due(
    connection: &mut PgConnection,
    asked: &[&Due],
    now: Timestamp,
) -> sqlx::Result<Vec<(String, String)>> {
    sqlx::query_as(
        "select deadlines.key, deadlines.name from reel.deadlines
         join unnest($1::text[], $2::text[]) as asked(key, name) using (key, name)
         where due_at <= $3",
    )
    .bind(asked.iter().map(|due| due.key.as_str()).collect::<Vec<_>>())
    .bind(asked.iter().map(|due| due.name.as_str()).collect::<Vec<_>>())
    .bind(now.to_utc())
    .fetch_all(connection)
    .await
}

#[cfg(test)]
mod tests {
    use super::{COUNT_OPEN, DUE};
    use crate::tests::Fixture;
    use crate::tests::plan::plan;

    #[tokio::test]
    async fn open_sagas_are_counted_without_reading_what_ended_long_ago() {
        let fixture = Fixture::closed("open").await;
        let plan = plan(&fixture, COUNT_OPEN).await;
        let condition = plan.lines().find(|line| line.contains("Index Cond")).unwrap_or_default();
        assert!(condition.contains("due_at >"), "the index does not limit by time:\n{plan}");
    }

    #[tokio::test]
    async fn due_deadlines_are_found_by_index_without_reading_the_others() {
        let fixture = Fixture::closed("due").await;
        let plan = plan(&fixture, DUE).await;
        assert!(plan.contains("deadlines_due"), "the index is not used:\n{plan}");
        let condition = plan.lines().find(|line| line.contains("Index Cond")).unwrap_or_default();
        assert!(condition.contains("due_at <="), "the index does not limit by time:\n{plan}");
    }
}
