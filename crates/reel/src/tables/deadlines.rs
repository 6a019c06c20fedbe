//! `reel.deadlines`: set and cleared by the fold of events, due by the database's clock.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use crate::database::{Placeholders, WriteBatch};
use crate::from_row;
use crate::model::{DeadlineChange, Deadlines, Partition, Service, Timestamp};

/// A deadline that is due.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) command: serde_json::Value,
}

from_row!(Due { partition: "partition", key: "key", name: "name", command: "command" });

/// What a batch changes: by key and name, the last change wins.
#[derive(Debug, Default)]
pub(crate) struct Changes(BTreeMap<(String, String), Change>);

#[derive(Debug)]
enum Change {
    Set { partition: Partition, due_at: Timestamp, command: serde_json::Value },
    Clear,
}

/// What is due, by partition and time, in the order of the index. The time is that of the
/// statement: with a clock that moves within it, every deadline would be looked at.
const DUE: &str = "
select partition, key, name, command from reel.deadlines
where partition = any($1) and due_at <= statement_timestamp() order by due_at limit $2";

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

/// The deadlines that are due in these lanes, at most `limit`.
pub(crate) async fn due(
    connection: &mut PgConnection,
    lanes: &[i32],
    limit: i64,
) -> sqlx::Result<Vec<Due>> {
    sqlx::query_as(DUE).bind(lanes).bind(limit).fetch_all(connection).await
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
    use super::DUE;
    use crate::tests::Fixture;
    use crate::tests::plan::plan;

    #[tokio::test]
    async fn due_deadlines_are_found_by_index_without_reading_the_others() {
        let fixture = Fixture::closed("due").await;
        let plan = plan(&fixture, DUE).await;
        assert!(plan.contains("deadlines_due"), "the index is not used:\n{plan}");
        let condition = plan.lines().find(|line| line.contains("Index Cond")).unwrap_or_default();
        assert!(condition.contains("due_at <="), "the index does not limit by time:\n{plan}");
    }
}
