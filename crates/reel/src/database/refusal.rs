//! Refusals: the database answers, and will not do what it is asked until somebody has changed
//! something outside of this process. What it is, and what to do about it.

use sqlx::Error;
use sqlx::error::DatabaseError;

/// What is wrong, and how to mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What is wrong, as a sentence without its end.
    pub(crate) what: &'static str,
    /// What to do.
    pub(crate) mend: &'static str,
}

/// By SQLSTATE (PostgreSQL documentation, appendix A).
const REFUSALS: [(&[&str], Refusal); 8] = [
    (
        NOT_MIGRATED,
        Refusal {
            what: "the database lacks tables of this release",
            mend: "run `migrate`, or start with --migrate",
        },
    ),
    (
        &["42501"],
        Refusal {
            what: "the database refuses a right",
            mend: "grant the role what it needs (docs/operations.md, \"What runs\")",
        },
    ),
    (
        &["28000", "28P01"],
        Refusal {
            what: "the database refuses the role or its password",
            mend: "look at DATABASE_URL, and at the server's pg_hba.conf",
        },
    ),
    (
        &["3D000"],
        Refusal { what: "the database does not exist", mend: "create it, or look at DATABASE_URL" },
    ),
    (
        &["25006"],
        Refusal {
            what: "the database is read-only",
            mend: "let DATABASE_URL lead to the primary, and default_transaction_read_only be off",
        },
    ),
    (
        &["26000", "42P05", "08P01", "0A000"],
        Refusal {
            what: "the database, or a pooler in front of it, does not do what is needed",
            mend: "use Postgres 15 or later, and a pooler in session mode or none",
        },
    ),
    (
        &["53300"],
        Refusal {
            what: "the database has no connection left",
            mend: "raise max_connections (docs/operations.md, \"Connections\")",
        },
    ),
    (
        &["53100"],
        Refusal { what: "the database has no disk left", mend: "give the server more disk" },
    ),
];

/// No such table, schema, function or column.
const NOT_MIGRATED: &[&str] = &["42P01", "3F000", "42883", "42703"];

/// Whether an error means that the database lacks a table, schema, function or column: it is not
/// migrated to this release yet.
pub(crate) fn is_not_migrated(error: &Error) -> bool {
    state(error).is_some_and(|state| NOT_MIGRATED.contains(&&*state))
}

/// What the database refuses; `None` if an error is none of that kind.
pub(crate) fn refusal(error: &Error) -> Option<Refusal> {
    let state = state(error)?;
    let of_state = REFUSALS.iter().find(|(states, _)| states.contains(&&*state));
    of_state.map(|(_, refusal)| *refusal)
}

/// What is wrong if a database cannot be used now.
pub(crate) fn what_is_wrong(error: &Error) -> &'static str {
    refusal(error).map_or("the database does not answer", |refusal| refusal.what)
}

fn state(error: &Error) -> Option<std::borrow::Cow<'_, str>> {
    error.as_database_error().and_then(DatabaseError::code)
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;
    use crate::database::DatabaseErrorKind;
    use crate::tests::Fixture;

    /// The error of a statement.
    async fn error_of(fixture: &Fixture, sql: &'static str) -> Error {
        let mut connection = fixture.connection().await;
        sqlx::raw_sql(sql).execute(&mut connection).await.expect_err(sql)
    }

    #[tokio::test]
    async fn what_an_operator_can_change_is_told_and_ends_no_process() {
        let fixture = Fixture::closed("refusals").await;
        fixture.execute("create role nobody; grant usage on schema reel to nobody").await;
        for (sql, what) in [
            ("set role nobody; select * from reel.lanes", "refuses a right"),
            ("begin read only; delete from reel.lanes", "read-only"),
            ("select * from reel.no_such_table", "lacks tables"),
            ("execute no_such_statement", "a pooler"),
        ] {
            let error = error_of(&fixture, sql).await;
            let refusal = refusal(&error).expect(sql);
            assert!(refusal.what.contains(what), "{sql}: {refusal:?}");
            assert_eq!(DatabaseErrorKind::classify(&error), DatabaseErrorKind::Lost, "{sql}");
        }
        fixture.execute("revoke all on schema reel from nobody; drop role nobody").await;

        let (server, _) = fixture.url().rsplit_once('/').expect("a database");
        let refused = sqlx::PgConnection::connect(&format!("{server}/no_such_database")).await;
        let error = refused.map(drop).expect_err("no such database");
        assert!(what_is_wrong(&error).contains("does not exist"), "{error}");
        assert_eq!(DatabaseErrorKind::classify(&error), DatabaseErrorKind::Lost);
    }
}
