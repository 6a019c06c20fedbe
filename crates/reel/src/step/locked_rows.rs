//! The rows that another transaction was found to hold.
//!
//! A batch that waits for a row holds up all lanes, and the error does not name the row. So after
//! one such wait the rows of the batch are looked at, without waiting, and what needs a locked one
//! is set aside while the rest goes on. The rows are remembered: until they are free again, nobody
//! waits for them a second time.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::work::WorkItem;
use crate::database::{DatabaseErrorKind, PinnedConnection, answered};
use crate::model::{Partition, Service};
use crate::rows::{RowId, Stored, locked, needed};

/// Time after which a row is forgotten that no message has needed.
const REMEMBERED: Duration = Duration::from_secs(10);

/// The rows that were found locked, and when.
#[derive(Debug, Default)]
pub(super) struct LockedRows(HashMap<RowId, Instant>);

/// The items of a batch, by whether a row that they need is locked.
pub(super) struct Sorted<S: Service> {
    pub(super) free: Vec<WorkItem<S>>,
    pub(super) waiting: Vec<WorkItem<S>>,
}

impl LockedRows {
    /// Looks whether rows that this batch needs are locked, all of them or those that were found
    /// locked before, and remembers them.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(super) async fn look<S: Service<State: Stored>>(
        &mut self,
        connection: &mut PinnedConnection,
        items: &[WorkItem<S>],
        only_known: bool,
    ) -> sqlx::Result<()> {
        self.0.retain(|_, found_at| found_at.elapsed() < REMEMBERED);
        let is_asked = |item: &&WorkItem<S>| !only_known || self.holds_up(*item);
        let asked: Vec<_> = items.iter().filter(is_asked).filter_map(WorkItem::trigger).collect();
        if asked.is_empty() {
            return Ok(());
        }

        let rows: HashSet<RowId> = asked.iter().flat_map(|trigger| needed::<S>(*trigger)).collect();
        let look = async { locked::<S>(connection.get().await?, asked).await };
        let locked = match answered(look).await {
            Ok(locked) => locked,
            Err(error) => {
                if DatabaseErrorKind::classify(&error) == DatabaseErrorKind::Lost {
                    connection.lose();
                }
                return Err(error);
            }
        };
        self.0.retain(|row, _| !rows.contains(row));
        self.0.extend(locked.into_iter().map(|row| (row, Instant::now())));
        Ok(())
    }

    /// Takes the items out of a batch that need a row which is locked, and what follows them in
    /// their lanes, because a lane keeps its order.
    pub(super) fn sort<S: Service<State: Stored>>(&self, items: Vec<WorkItem<S>>) -> Sorted<S> {
        let mut sorted = Sorted { free: Vec::new(), waiting: Vec::new() };
        if self.0.is_empty() {
            return Sorted { free: items, ..sorted };
        }

        let mut lanes: HashSet<Partition> = HashSet::new();
        for item in items {
            let is_behind = item.lane().is_some_and(|lane| lanes.contains(&lane));
            if is_behind || self.holds_up(&item) {
                lanes.extend(item.lane());
                sorted.waiting.push(item);
            } else {
                sorted.free.push(item);
            }
        }
        sorted
    }

    fn holds_up<S: Service<State: Stored>>(&self, item: &WorkItem<S>) -> bool {
        let rows = || item.trigger().map(needed::<S>).unwrap_or_default();
        !self.0.is_empty() && rows().iter().any(|row| self.0.contains_key(row))
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;
    use crate::database::CommitDurability;
    use crate::log::{Position, Record};
    use crate::tests::till::{Fixture, Paid, Till, TillInput};
    use crate::wire::Envelope;

    fn payment(lane: i32, entry: &str, account: &str) -> WorkItem<Till> {
        let record = Record {
            topic: "paid".into(),
            partition: Partition(lane),
            offset: 0,
            key: None,
            payload: None,
            envelope: Ok(Envelope::default()),
        };
        let paid = Paid { entry: entry.into(), account: account.into(), amount: 1 };
        let (key, after) = (entry.to_owned(), Position::START);
        WorkItem::Input { record, key, decoded: Ok(TillInput::Paid(paid)), after }
    }

    fn keys(items: &[WorkItem<Till>]) -> Vec<&str> {
        items.iter().filter_map(|item| Some(item.key_in_lane()?.1)).collect()
    }

    #[tokio::test]
    async fn what_needs_a_locked_row_waits_with_what_follows_in_its_lane() {
        let fixture = Fixture::open("locked_rows").await;
        fixture.execute("insert into accounts values ('slow', 1), ('quick', 1)").await;
        let mut elsewhere = fixture.connection().await;
        sqlx::raw_sql("begin; select from accounts where account = 'slow' for update")
            .execute(&mut elsewhere)
            .await
            .expect("locked");

        let mut connection = fixture.replica.database.pin(CommitDurability::Durable);
        let batch = || {
            vec![
                payment(0, "a", "quick"),
                payment(1, "b", "slow"),
                payment(2, "c", "new"),
                payment(1, "d", "quick"),
                payment(2, "e", "slow"),
            ]
        };
        let mut rows = LockedRows::default();
        rows.look(&mut connection, &batch(), true).await.expect("looked");
        assert_eq!(keys(&rows.sort(batch()).free).len(), 5, "none is known yet");

        rows.look(&mut connection, &batch(), false).await.expect("looked");
        let Sorted { free, waiting } = rows.sort(batch());
        assert_eq!(keys(&free), ["a", "c"]);
        assert_eq!(keys(&waiting), ["b", "d", "e"]);

        sqlx::raw_sql("rollback").execute(&mut elsewhere).await.expect("unlocked");
        rows.look(&mut connection, &batch(), true).await.expect("looked");
        assert_eq!(keys(&rows.sort(batch()).free).len(), 5, "it is free again");
    }

    #[tokio::test]
    async fn the_absence_of_a_shared_row_may_be_locked_too() {
        let fixture = Fixture::open("locked_absence").await;
        let mut elsewhere = fixture.connection().await;
        let mut transaction = elsewhere.begin().await.expect("begun");
        crate::rows::load::<Till>(&mut transaction, &triggers(&[payment(0, "a", "new")]))
            .await
            .expect("loaded");

        let mut connection = fixture.replica.database.pin(CommitDurability::Durable);
        let batch = vec![payment(0, "b", "new"), payment(1, "c", "other")];
        let mut rows = LockedRows::default();
        rows.look(&mut connection, &batch, false).await.expect("looked");
        assert_eq!(keys(&rows.sort(batch).waiting), ["b"]);
    }

    fn triggers(items: &[WorkItem<Till>]) -> Vec<crate::model::Trigger<'_, Till>> {
        items.iter().filter_map(WorkItem::trigger).collect()
    }
}
