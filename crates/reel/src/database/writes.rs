//! Several writes in one statement: what a step writes takes one round trip.

use std::fmt::Write as _;

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, PgConnection, Postgres, Type};

/// The parameters of writes: arrays, with one value for each row.
#[derive(Default)]
pub struct Columns {
    arguments: PgArguments,
    count: usize,
}

/// Writes that are made by one statement. Each sees the tables as they were before all of them, so no two may concern one row.
#[derive(Default)]
pub struct Writes {
    parts: Vec<String>,
    columns: Columns,
}

impl Columns {
    /// Adds the next column: one value for each row.
    ///
    /// # Panics
    /// Where a value cannot be encoded, which the types of Postgres' own encoders exclude.
    pub fn push<T>(&mut self, values: impl IntoIterator<Item = T>)
    where
        T: for<'q> Encode<'q, Postgres> + Type<Postgres> + sqlx::postgres::PgHasArrayType + Send,
        Vec<T>: for<'q> Encode<'q, Postgres> + Type<Postgres>,
    {
        self.arguments.add(values.into_iter().collect::<Vec<T>>()).expect("arrays of plain column types encode");
        self.count += 1;
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

impl Writes {
    /// Adds an `insert`, `update` or `delete` that returns nothing. Its parameters, counted from `$1` in `sql`, are to be pushed next,
    /// all of them.
    pub fn add(&mut self, sql: &str) -> &mut Columns {
        let part = self.parts.len() + 1;
        self.parts.push(format!("write_{part} as ({} returning true as done)", renumbered(sql, self.columns.count)));
        &mut self.columns
    }

    /// Makes them.
    pub(crate) async fn run(self, connection: &mut PgConnection) -> sqlx::Result<()> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let (sql, arguments) = self.then(" select count(*) from written", |_| ());
        sqlx::query_with(AssertSqlSafe(sql), arguments).execute(connection).await?;
        Ok(())
    }

    /// The statement that makes them and ends with `last`, whose parameters `push` gives.
    ///
    /// A part of `last` that reads `written` waits until all are made. Where `last` has common table expressions of its own, it begins
    /// with a comma.
    pub(crate) fn then(mut self, last: &str, push: impl FnOnce(&mut Columns)) -> (String, PgArguments) {
        let mut sql = String::from("with ");
        for part in &self.parts {
            let _ = write!(sql, "{part}, ");
        }
        let made: Vec<String> = (1..=self.parts.len()).map(|part| format!("select done from write_{part}")).collect();
        let made = if made.is_empty() { "select true as done".to_owned() } else { made.join(" union all ") };
        let _ = write!(sql, "written as materialized ({made}){}", renumbered(last, self.columns.count));
        push(&mut self.columns);
        (sql, self.columns.arguments)
    }
}

/// A statement whose parameters are counted from behind `before` others.
fn renumbered(sql: &str, before: usize) -> String {
    let mut parts = sql.split('$');
    let mut renumbered = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|character: char| !character.is_ascii_digit()).unwrap_or(part.len());
        let (number, rest) = part.split_at(digits);
        match number.parse::<usize>() {
            Ok(number) => drop(write!(renumbered, "${}{rest}", number + before)),
            Err(_) => drop(write!(renumbered, "${part}")),
        }
    }
    renumbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_on_from_those_before() {
        assert_eq!(renumbered("values ($1, $2, $10::text[])", 3), "values ($4, $5, $13::text[])");
        assert_eq!(renumbered("select '$', $1", 1), "select '$', $2");
    }

    #[test]
    fn writes_and_what_follows_make_one_statement() {
        let mut writes = Writes::default();
        writes.add("delete from a where key = any($1)").push([1_i64]);
        writes.add("delete from b where key = any($1)").push([2_i64]);
        let (sql, _) = writes.then(", c as (select from written) select $1", |columns| columns.push([3_i64]));
        assert_eq!(
            sql,
            "with write_1 as (delete from a where key = any($1) returning true as done), \
             write_2 as (delete from b where key = any($2) returning true as done), \
             written as materialized (select done from write_1 union all select done from write_2), c as (select from written) select $3"
        );
    }
}
