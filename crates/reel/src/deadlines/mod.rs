//! Deadlines in Postgres: set and cleared by the fold of events, due by the database's clock.

use std::collections::BTreeMap;

use sqlx::{FromRow, PgConnection};

use crate::database::Writes;
use crate::model::{DeadlineChange, Deadlines, Partition, Service, Timestamp};

/// A deadline that is due.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Due {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) command: serde_json::Value,
}

/// What a batch changes: by key and name, the last change wins.
#[derive(Debug, Default)]
pub(crate) struct Changes(BTreeMap<(String, String), Change>);

#[derive(Debug)]
enum Change {
    Set { partition: Partition, due_at: Timestamp, command: serde_json::Value },
    Clear,
}

/// The query for what is due: by partition and time, in the order of the index. The time is that of the statement, as a clock that moves
/// within it would have every deadline looked at.
pub(crate) const DUE: &str = "
select partition, key, name, command from reel.deadlines
where partition = any($1) and due_at <= statement_timestamp() order by due_at limit $2";

const CLEAR: &str = "delete from reel.deadlines using unnest($1::text[], $2::text[]) as gone(key, name)
where deadlines.key = gone.key and deadlines.name = gone.name";

const SET: &str = "insert into reel.deadlines (partition, key, name, due_at, command)
select * from unnest($1::integer[], $2::text[], $3::text[], $4::timestamptz[], $5::jsonb[])
on conflict (key, name) do update set due_at = excluded.due_at, command = excluded.command";

impl Changes {
    /// Takes in what an event changes.
    pub(crate) fn apply<S: Service>(&mut self, partition: Partition, key: &str, deadlines: Deadlines<S>) -> serde_json::Result<()> {
        for change in deadlines {
            let (name, change) = match change {
                DeadlineChange::Set { name, due_at, command } => {
                    (name, Change::Set { partition, due_at, command: serde_json::to_value(&command)? })
                }
                DeadlineChange::Clear { name } => (name, Change::Clear),
            };
            self.0.insert((key.to_owned(), name.to_owned()), change);
        }
        Ok(())
    }

    /// The deadline has fired and is gone, unless the event it led to sets it again.
    pub(crate) fn fired(&mut self, due: &Due) {
        self.0.entry((due.key.clone(), due.name.clone())).or_insert(Change::Clear);
    }

    /// Whether an earlier message of the batch has changed this deadline, so that what is due is no longer what was read.
    pub(crate) fn touches(&self, due: &Due) -> bool {
        self.0.contains_key(&(due.key.clone(), due.name.clone()))
    }

    /// Adds the changes to what is written.
    pub(crate) fn write(self, writes: &mut Writes) {
        let (mut gone_keys, mut gone_names) = (Vec::new(), Vec::new());
        let (mut partitions, mut keys, mut names, mut due, mut commands) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for ((key, name), change) in self.0 {
            match change {
                Change::Clear => {
                    gone_keys.push(key);
                    gone_names.push(name);
                }
                Change::Set { partition, due_at, command } => {
                    partitions.push(partition.0);
                    keys.push(key);
                    names.push(name);
                    due.push(due_at.to_utc());
                    commands.push(command);
                }
            }
        }
        if !gone_keys.is_empty() {
            let columns = writes.add(CLEAR);
            columns.push(gone_keys);
            columns.push(gone_names);
        }
        if !keys.is_empty() {
            let columns = writes.add(SET);
            columns.push(partitions);
            columns.push(keys);
            columns.push(names);
            columns.push(due);
            columns.push(commands);
        }
    }
}

/// What is due in these lanes, at most `limit`.
pub(crate) async fn due(connection: &mut PgConnection, lanes: &[i32], limit: i64) -> sqlx::Result<Vec<Due>> {
    sqlx::query_as(DUE).bind(lanes).bind(limit).fetch_all(connection).await
}

/// Which of these deadlines are still there and due, seen under the locks of the rows that they are about.
pub(crate) async fn still_due(connection: &mut PgConnection, asked: &[&Due], now: Timestamp) -> sqlx::Result<Vec<(String, String)>> {
    sqlx::query_as(
        "select deadlines.key, deadlines.name from reel.deadlines join unnest($1::text[], $2::text[]) as asked(key, name) using (key, name)
         where due_at <= $3",
    )
    .bind(asked.iter().map(|due| due.key.as_str()).collect::<Vec<_>>())
    .bind(asked.iter().map(|due| due.name.as_str()).collect::<Vec<_>>())
    .bind(now.to_utc())
    .fetch_all(connection)
    .await
}
