//! How the rows of a state are stored: one table for each [`Rows`] of the state.
//!
//! A [`Row`] names its table, key and columns and maps a row both ways; the statements are
//! generated from that. Rows are read `for update` in the order of their keys, with one statement
//! for a whole batch; absent ones are inserted and known ones updated with one statement for all
//! tables.

mod locks;
mod working_set;

use std::collections::HashSet;
use std::fmt::{Debug, Write};

use futures_util::future::BoxFuture;
use sqlx::postgres::{PgHasArrayType, PgRow};
use sqlx::{AssertSqlSafe, Encode, PgConnection, Postgres, Type};

pub use crate::database::ArrayParams;
use crate::database::Placeholders;
#[doc(hidden)]
pub use crate::database::WriteBatch;
pub use crate::model::RowKey;
use crate::model::{Changes, Rows, WorkingSet};
pub(crate) use locks::{RowId, locked, needed};
pub(crate) use working_set::{Panicked, Unloaded, attempt, load, panic_message, save};

/// A table as the generated statements need it.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The column of the primary key, and its Postgres type.
    pub key: (&'static str, &'static str),
    /// The other columns, and their Postgres types.
    pub columns: &'static [(&'static str, &'static str)],
    /// Whether several sagas share a row. The absence of such a row is locked too, so that two
    /// decisions that found it absent are made one after the other.
    pub shared: bool,
}

/// A value of a key column, as Postgres takes it: implemented for all types that fit.
pub trait KeyColumn:
    for<'q> Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType + Send + 'static
{
}

impl<T> KeyColumn for T where
    T: for<'q> Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType + Send + 'static
{
}

/// A row of a [`Table`].
pub trait Row<K>: Clone + Send + Sync + 'static {
    /// The table that holds it.
    const TABLE: Table;

    /// Pushes one array for each of the table's columns, in the order of [`Table::columns`].
    fn write(rows: &[(&K, &Self)], columns: &mut ArrayParams);

    /// Reads the key and the row.
    ///
    /// # Errors
    /// If a column is missing or does not hold what it should.
    fn read(row: &PgRow) -> sqlx::Result<(K, Self)>;
}

/// A state that is stored in Postgres.
pub trait Stored: WorkingSet {
    /// Its tables, in the order in which every step locks them.
    fn tables(&mut self) -> Vec<&mut dyn StoredRows>;
}

/// One table of the state, as the step handles it. Implemented for all [`Rows`] of a [`Row`]; an
/// author only names it, in [`Stored::tables`].
pub trait StoredRows: Send {
    /// The table.
    fn table(&self) -> &'static Table;
    /// Reads and locks the rows that were declared since the last call.
    #[doc(hidden)]
    fn load<'a>(&'a mut self, connection: &'a mut PgConnection) -> BoxFuture<'a, sqlx::Result<()>>;
    /// Reads every row without a lock: for an audit.
    ///
    /// # Errors
    /// If the table cannot be read, or a row does not hold what it should.
    fn load_all<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
    ) -> BoxFuture<'a, sqlx::Result<()>>;
    /// Adds the rows that changed to a batch of writes.
    #[doc(hidden)]
    fn save(&self, writes: &mut WriteBatch);
    /// Takes the keys that were declared since the last call, as bytes.
    #[doc(hidden)]
    fn needed(&mut self) -> Vec<Vec<u8>>;
    /// Locks the rows that were declared since the last call, but for those that another
    /// transaction has locked, whose keys it returns.
    #[doc(hidden)]
    fn locked<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
    ) -> BoxFuture<'a, sqlx::Result<Vec<Vec<u8>>>>;
}

impl<K: RowKey<Column: KeyColumn>, V: Row<K>> StoredRows for Rows<K, V>
where
    Vec<K::Column>: for<'q> Encode<'q, Postgres> + Type<Postgres>,
{
    fn table(&self) -> &'static Table {
        const { &V::TABLE }
    }

    fn load<'a>(&'a mut self, connection: &'a mut PgConnection) -> BoxFuture<'a, sqlx::Result<()>> {
        Box::pin(async move {
            let keys = self.take_needed();
            if keys.is_empty() {
                return Ok(());
            }
            let table = StoredRows::table(self);
            let mut absent: HashSet<Vec<u8>> = keys.iter().map(RowKey::bytes).collect();
            for (key, row) in read::<K, V>(connection, table, &keys).await? {
                absent.remove(&key.bytes());
                self.load(key, Some(row));
            }

            let mut absent: Vec<K> =
                keys.into_iter().filter(|key| absent.contains(&key.bytes())).collect();
            if table.shared && !absent.is_empty() {
                lock_absent(connection, table, &absent).await?;
                for (key, row) in read::<K, V>(connection, table, &absent).await? {
                    absent.retain(|other| *other != key);
                    self.load(key, Some(row));
                }
            }

            for key in absent {
                self.load(key, None);
            }

            Ok(())
        })
    }

    fn load_all<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
    ) -> BoxFuture<'a, sqlx::Result<()>> {
        Box::pin(async move {
            let rows = sqlx::query(AssertSqlSafe(StoredRows::table(self).select_all()))
                .fetch_all(connection)
                .await?;
            for row in rows {
                let (key, row) = V::read(&row)?;
                self.load(key, Some(row));
            }
            Ok(())
        })
    }

    fn save(&self, writes: &mut WriteBatch) {
        let table = StoredRows::table(self);
        let Changes { new, known } = self.changes();
        let mut add = |rows: Vec<(&K, &V)>, sql: fn(&Table, Placeholders) -> String| {
            if rows.is_empty() {
                return;
            }
            let params = writes.add(|params| sql(table, params));
            let before = params.count();
            params.push(rows.iter().map(|(key, _)| key.column()));
            V::write(&rows, params);

            let (pushed, columns) = (params.count() - before, 1 + table.columns.len());
            assert_eq!(pushed, columns, "`write` of {} pushes one array a column", table.name);
        };
        add(new, Table::insert);
        // A row that is nothing but its key cannot change.
        if !table.columns.is_empty() {
            add(known, Table::update);
        }
    }

    fn needed(&mut self) -> Vec<Vec<u8>> {
        self.take_needed().iter().map(RowKey::bytes).collect()
    }

    fn locked<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
    ) -> BoxFuture<'a, sqlx::Result<Vec<Vec<u8>>>> {
        Box::pin(async move {
            let keys = self.take_needed();
            let table = StoredRows::table(self);
            let columns: Vec<K::Column> = keys.iter().map(RowKey::column).collect();
            let others: Vec<(i64, bool)> = sqlx::query_as(AssertSqlSafe(table.select_locked()))
                .bind(columns)
                .fetch_all(&mut *connection)
                .await?;

            let (mut locked, mut absent) = (Vec::new(), Vec::new());
            for (nth, exists) in others {
                let key = usize::try_from(nth - 1).ok().and_then(|nth| keys.get(nth));
                let of = if exists { &mut locked } else { &mut absent };
                of.extend(key.map(RowKey::bytes));
            }
            if table.shared {
                locked.extend(locked_absent(connection, table, absent).await?);
            }
            Ok(locked)
        })
    }
}

async fn read<K: RowKey<Column: KeyColumn>, V: Row<K>>(
    connection: &mut PgConnection,
    table: &Table,
    keys: &[K],
) -> sqlx::Result<Vec<(K, V)>>
where
    Vec<K::Column>: for<'q> Encode<'q, Postgres> + Type<Postgres>,
{
    let keys: Vec<K::Column> = keys.iter().map(RowKey::column).collect();
    let rows = sqlx::query(AssertSqlSafe(table.select_for_update()))
        .bind(keys)
        .fetch_all(connection)
        .await?;
    rows.iter().map(V::read).collect()
}

/// Locks the absence of rows, in one order for all, until the transaction ends.
async fn lock_absent<K: RowKey>(
    connection: &mut PgConnection,
    table: &Table,
    absent: &[K],
) -> sqlx::Result<()> {
    let mut hashes: Vec<i32> = absent.iter().map(|key| absence(&key.bytes())).collect();
    hashes.sort_unstable();
    hashes.dedup();
    let lock = "select pg_advisory_xact_lock(hashtext($1), hash)
        from unnest($2::int[]) with ordinality as t(hash, nth) order by nth";
    sqlx::query(lock).bind(table.name).bind(hashes).execute(connection).await?;
    Ok(())
}

/// Of these keys, all absent, those whose absence another transaction has locked.
async fn locked_absent(
    connection: &mut PgConnection,
    table: &Table,
    absent: Vec<Vec<u8>>,
) -> sqlx::Result<impl Iterator<Item = Vec<u8>>> {
    let hashes: HashSet<i32> = absent.iter().map(|key| absence(key)).collect();
    let try_lock = "select hash from unnest($2::int[]) as hash
        where not pg_try_advisory_xact_lock(hashtext($1), hash)";
    let hashes: Vec<i32> = hashes.into_iter().collect();
    let locked: Vec<i32> =
        sqlx::query_scalar(try_lock).bind(table.name).bind(hashes).fetch_all(connection).await?;
    Ok(absent.into_iter().filter(move |key| locked.contains(&absence(key))))
}

/// What stands for a key in the lock on its absence.
fn absence(key: &[u8]) -> i32 {
    murmur2::murmur2(key, 0).cast_signed()
}

impl Table {
    /// `select … where key = any($1) order by key for update`.
    pub(crate) fn select_for_update(&self) -> String {
        let (key, key_type) = self.key;
        format!(
            "select {} from {} where {key} = any($1::{key_type}[]) order by {key} for update",
            self.all(),
            self.name
        )
    }

    /// Locks the rows with these keys that no other transaction has locked, and returns the places
    /// of the other keys, from 1 on, and whether there is such a row.
    fn select_locked(&self) -> String {
        let (key, key_type) = self.key;
        let name = self.name;
        format!(
            "with free as materialized (
                 select {key} as key from {name} where {key} = any($1::{key_type}[])
                 for update skip locked
             )
             select nth, {name}.{key} is not null
             from unnest($1::{key_type}[]) with ordinality as wanted(key, nth)
             left join {name} on {name}.{key} = wanted.key
             where not exists (select from free where free.key = wanted.key)"
        )
    }

    fn select_all(&self) -> String {
        format!("select {} from {}", self.all(), self.name)
    }

    /// `insert into … select * from unnest(…)`.
    pub(crate) fn insert(&self, params: Placeholders) -> String {
        let values = params.unnest(self.column_types());
        format!("insert into {} ({}) select * from {values}", self.name, self.all())
    }

    /// `update … set column = new.column, … from unnest(…) as new where key = new.key`.
    pub(crate) fn update(&self, params: Placeholders) -> String {
        let mut set = String::new();
        for (column, _) in self.columns {
            let comma = if set.is_empty() { "" } else { ", " };
            let _ = write!(set, "{comma}{column} = new.{column}");
        }
        let (name, key, all) = (self.name, self.key.0, self.all());
        let values = params.unnest(self.column_types());
        format!(
            "update {name} as old set {set} from {values} as new({all}) where old.{key} = new.{key}"
        )
    }

    fn column_types(&self) -> impl Iterator<Item = &'static str> {
        let columns = self.columns.iter().map(|(_, column_type)| *column_type);
        std::iter::once(self.key.1).chain(columns)
    }

    fn all(&self) -> String {
        let columns = self.columns.iter().map(|(column, _)| *column);
        std::iter::once(self.key.0).chain(columns).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::{Row as _, Table};
    use crate::database::{Placeholders, WriteBatch};
    use crate::tables::outbox::append_sql;
    use crate::tests::Fixture;
    use crate::tests::plan::{plan, uses_index};
    use crate::tests::till::Account;

    #[tokio::test]
    async fn rows_are_read_and_updated_by_key() {
        uses_index(&Account::TABLE.select_for_update(), "accounts_pkey").await;
        uses_index(&Account::TABLE.select_locked(), "accounts_pkey").await;
        uses_index(&Account::TABLE.update(Placeholders::FIRST), "accounts_pkey").await;
    }

    #[tokio::test]
    async fn everything_a_step_writes_is_found_by_key_in_one_statement() {
        let fixture = Fixture::closed("writes").await;
        let mut writes = WriteBatch::default();
        for statement in [Table::insert, Table::update] {
            let columns = writes.add(|params| statement(&Account::TABLE, params));
            columns.push([String::new()]);
            columns.push([0_i64]);
        }

        let plan = plan(&fixture, &writes.then(append_sql, |_| ()).0).await;
        for scan in ["Index Scan using accounts_pkey", "heads_pkey"] {
            assert!(plan.contains(scan), "{scan} is missing:\n{plan}");
        }

        // The heads may be scanned: all of them show whether all lanes are open, and they are few.
        assert!(!plan.contains("Seq Scan on accounts") && !plan.contains("Merge Join"), "{plan}");
    }
}
