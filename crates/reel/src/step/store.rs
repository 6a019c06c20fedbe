//! How rows lie in Postgres: one table for each [`Rows`] of the state.
//!
//! A [`Record`] names its table, key and columns and maps a row both ways; the statements are made from that. Rows are
//! read `for update` in the order of their keys, with one statement for a whole batch; absent ones are inserted and known ones updated
//! with one statement for all tables.

use std::collections::HashSet;
use std::fmt::{Debug, Write};

use futures_util::future::BoxFuture;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Encode, PgConnection, Postgres, Type};

use crate::database::{Columns, Writes};
use crate::failpoints::{Bug, planted};
use crate::model::{Changes, Rows, WorkingSet};

/// A table, as far as statements need it.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The column of the primary key, and its Postgres type.
    pub key: (&'static str, &'static str),
    /// The other columns, and their Postgres types.
    pub columns: &'static [(&'static str, &'static str)],
    /// Whether several sagas share a row. The absence of such a row is locked too, so that two decisions that found
    /// it absent follow each other.
    pub shared: bool,
}

/// A row of a [`Table`].
pub trait Record<K>: Clone + Send + Sync + 'static {
    /// Where it is kept.
    const TABLE: Table;

    /// Pushes one array for each of the table's columns, in the order of [`Table::columns`].
    fn write(rows: &[(&K, &Self)], columns: &mut Columns);

    /// Reads the key and the row.
    ///
    /// # Errors
    /// Where a column is missing or does not hold what it should.
    fn read(row: &PgRow) -> sqlx::Result<(K, Self)>;
}

/// A key of a [`Record`]: what stands in the table's key column.
pub trait RowKey: Ord + Clone + Debug + Send + Sync + 'static {
    /// The column's value.
    type Column: for<'q> Encode<'q, Postgres> + Type<Postgres> + sqlx::postgres::PgHasArrayType + Send + 'static;
    /// The key as its column holds it.
    fn column(&self) -> Self::Column;
    /// The bytes by which the absence of the row is locked.
    fn bytes(&self) -> Vec<u8>;
}

/// A state that lies in Postgres.
pub trait Stored: WorkingSet {
    /// Its tables, in the order in which every step locks them.
    fn tables(&mut self) -> Vec<&mut dyn StoredRows>;
}

/// One table of the state, as the step handles it. Implemented for all [`Rows`] of a [`Record`].
pub trait StoredRows: Send {
    /// The table.
    fn table(&self) -> &'static Table;
    /// Reads and locks the rows that were declared since the last call.
    fn load<'a>(&'a mut self, connection: &'a mut PgConnection) -> BoxFuture<'a, sqlx::Result<()>>;
    /// Reads every row there is, locking nothing: for the audit.
    fn load_all<'a>(&'a mut self, connection: &'a mut PgConnection) -> BoxFuture<'a, sqlx::Result<()>>;
    /// Adds what has changed to what is written.
    fn save(&self, writes: &mut Writes);
}

impl<K: RowKey, V: Record<K>> StoredRows for Rows<K, V>
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
            let mut absent: Vec<K> = keys.into_iter().filter(|key| absent.contains(&key.bytes())).collect();
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

    fn load_all<'a>(&'a mut self, connection: &'a mut PgConnection) -> BoxFuture<'a, sqlx::Result<()>> {
        Box::pin(async move {
            let rows = sqlx::query(AssertSqlSafe(StoredRows::table(self).select_all())).fetch_all(connection).await?;
            for row in rows {
                let (key, row) = V::read(&row)?;
                self.load(key, Some(row));
            }
            Ok(())
        })
    }

    fn save(&self, writes: &mut Writes) {
        let table = StoredRows::table(self);
        let Changes { new, known } = self.changes();
        for (rows, statement) in [(new, table.insert()), (known, table.update())] {
            if !rows.is_empty() {
                let columns = writes.add(&statement);
                let before = columns.count();
                columns.push(rows.iter().map(|(key, _)| key.column()));
                V::write(&rows, columns);
                assert_eq!(columns.count() - before, 1 + table.columns.len(), "`write` of {} gives one array for each column", table.name);
            }
        }
    }
}

async fn read<K: RowKey, V: Record<K>>(connection: &mut PgConnection, table: &Table, keys: &[K]) -> sqlx::Result<Vec<(K, V)>>
where
    Vec<K::Column>: for<'q> Encode<'q, Postgres> + Type<Postgres>,
{
    let keys: Vec<K::Column> = keys.iter().map(RowKey::column).collect();
    let rows = sqlx::query(AssertSqlSafe(table.select_for_update())).bind(keys).fetch_all(connection).await?;
    rows.iter().map(V::read).collect()
}

/// Locks the absence of rows, in one order for all, until the transaction ends.
async fn lock_absent<K: RowKey>(connection: &mut PgConnection, table: &Table, absent: &[K]) -> sqlx::Result<()> {
    let mut hashes: Vec<i32> = absent.iter().map(|key| murmur2::murmur2(&key.bytes(), 0).cast_signed()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    sqlx::query("select pg_advisory_xact_lock(hashtext($1), hash) from unnest($2::int[]) with ordinality as t(hash, nth) order by nth")
        .bind(table.name)
        .bind(hashes)
        .execute(connection)
        .await?;
    Ok(())
}

impl Table {
    /// `select … where key = any($1) order by key for update`.
    #[must_use]
    pub fn select_for_update(&self) -> String {
        let (key, key_type) = self.key;
        format!("select {} from {} where {key} = any($1::{key_type}[]) order by {key} for update", self.all(), self.name)
    }

    fn select_all(&self) -> String {
        format!("select {} from {}", self.all(), self.name)
    }

    /// `insert into … select * from unnest(…)`.
    #[must_use]
    pub fn insert(&self) -> String {
        let mut insert = format!("insert into {} ({}) select * from {}", self.name, self.all(), self.unnest());
        if planted(Bug::Upsert) {
            let set: Vec<String> = self.columns.iter().map(|(column, _)| format!("{column} = excluded.{column}")).collect();
            let _ = write!(insert, " on conflict ({}) do update set {}", self.key.0, set.join(", "));
        }
        insert
    }

    /// `update … set column = new.column, … from unnest(…) as new where key = new.key`.
    #[must_use]
    pub fn update(&self) -> String {
        let mut set = String::new();
        for (column, _) in self.columns {
            let comma = if set.is_empty() { "" } else { ", " };
            let _ = write!(set, "{comma}{column} = new.{column}");
        }
        format!(
            "update {0} as old set {set} from {1} as new({2}) where old.{3} = new.{3}",
            self.name,
            self.unnest(),
            self.all(),
            self.key.0
        )
    }

    fn all(&self) -> String {
        let columns = self.columns.iter().map(|(column, _)| *column);
        std::iter::once(self.key.0).chain(columns).collect::<Vec<_>>().join(", ")
    }

    fn unnest(&self) -> String {
        let types = std::iter::once(self.key.1).chain(self.columns.iter().map(|(_, column_type)| *column_type));
        let arrays: Vec<String> = types.enumerate().map(|(i, column_type)| format!("${}::{column_type}[]", i + 1)).collect();
        format!("unnest({})", arrays.join(", "))
    }
}
