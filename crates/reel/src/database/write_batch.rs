//! Several writes in one statement, so that a step writes everything in one round trip.

use std::fmt::Write as _;

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, PgConnection, Postgres, Type};

/// The parameters of a batch: arrays with one value for each row.
#[derive(Default)]
pub struct ArrayParams {
    arguments: PgArguments,
    count: usize,
}

/// The placeholders of one fragment of a statement, which may follow others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placeholders {
    before: usize,
}

/// Writes that one statement makes. Each of them sees the tables as they were before all of them,
/// so no two may touch the same row.
#[derive(Default)]
pub struct WriteBatch {
    parts: Vec<String>,
    params: ArrayParams,
}

impl ArrayParams {
    /// Adds the next array: one value for each row.
    ///
    /// # Panics
    /// If a value cannot be encoded, which cannot happen for the types of plain columns.
    pub fn push<T>(&mut self, values: impl IntoIterator<Item = T>)
    where
        T: for<'q> Encode<'q, Postgres> + Type<Postgres> + sqlx::postgres::PgHasArrayType + Send,
        Vec<T>: for<'q> Encode<'q, Postgres> + Type<Postgres>,
    {
        let values = values.into_iter().collect::<Vec<T>>();
        self.arguments.add(values).expect("arrays of plain column types encode");
        self.count += 1;
    }

    /// The number of arrays so far.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

impl Placeholders {
    /// The placeholders of the first fragment.
    #[cfg(test)]
    pub(crate) const FIRST: Self = Self { before: 0 };

    /// `unnest($1::integer[], $2::text[])`, numbered behind the parameters of earlier fragments:
    /// rows of columns of these types, one array of parameters each.
    pub(crate) fn unnest<'a>(self, column_types: impl IntoIterator<Item = &'a str>) -> String {
        let mut unnest = String::from("unnest(");
        for (nth, column_type) in column_types.into_iter().enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            let _ = write!(unnest, "{comma}${}::{column_type}[]", self.before + nth + 1);
        }
        unnest.push(')');
        unnest
    }
}

impl WriteBatch {
    /// Adds an `insert`, `update` or `delete` without a `returning` clause. The caller pushes the
    /// arrays for its placeholders next, all of them.
    pub(crate) fn add(&mut self, write: impl FnOnce(Placeholders) -> String) -> &mut ArrayParams {
        let part = self.parts.len() + 1;
        let write = write(self.placeholders());
        self.parts.push(format!("write_{part} as ({write} returning true as done)"));
        &mut self.params
    }

    /// Runs the writes.
    pub(crate) async fn run(self, connection: &mut PgConnection) -> sqlx::Result<()> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let (sql, arguments) = self.then(|_| " select count(*) from written".into(), |_| ());
        sqlx::query_with(AssertSqlSafe(sql), arguments).execute(connection).await?;
        Ok(())
    }

    /// The statement that makes the writes and ends with `last`, whose arrays `push` adds.
    ///
    /// A part of `last` that reads `written` runs after all writes. If `last` has common table
    /// expressions of its own, it begins with a comma.
    pub(crate) fn then(
        mut self,
        last: impl FnOnce(Placeholders) -> String,
        push: impl FnOnce(&mut ArrayParams),
    ) -> (String, PgArguments) {
        let mut sql = String::from("with ");
        for part in &self.parts {
            let _ = write!(sql, "{part}, ");
        }

        let all = (1..=self.parts.len()).map(|part| format!("select done from write_{part}"));
        let all = all.collect::<Vec<_>>().join(" union all ");
        let all = if all.is_empty() { "select true as done" } else { &all };
        let _ = write!(sql, "written as materialized ({all}){}", last(self.placeholders()));

        push(&mut self.params);
        (sql, self.params.arguments)
    }

    fn placeholders(&self) -> Placeholders {
        Placeholders { before: self.params.count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_what_follows_make_one_statement() {
        let mut batch = WriteBatch::default();
        let gone = |from: &'static str| {
            move |params: Placeholders| {
                format!("delete from {from} using {} as gone(key)", params.unnest(["bigint"]))
            }
        };
        batch.add(gone("a")).push([1_i64]);
        batch.add(gone("b")).push([2_i64]);

        let last = |params: Placeholders| {
            format!(
                ", c as (select from written) select * from {}",
                params.unnest(["bigint", "text"])
            )
        };

        let (sql, _) = batch.then(last, |params| params.push([3_i64]));
        assert_eq!(
            sql,
            "with write_1 as (delete from a using unnest($1::bigint[]) as gone(key) \
             returning true as done), \
             write_2 as (delete from b using unnest($2::bigint[]) as gone(key) \
             returning true as done), \
             written as materialized (select done from write_1 \
             union all select done from write_2), \
             c as (select from written) select * from unnest($3::bigint[], $4::text[])"
        );
    }
}
