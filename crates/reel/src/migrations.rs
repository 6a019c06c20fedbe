//! Creates and migrates the tables of a database: the toolkit's own, then the service's.
//!
//! The toolkit's version table is `reel.migrations`. A database that an earlier release made, with
//! the toolkit's files among the service's (`NNNN_reel.sql`), is adopted: its rows of
//! `_sqlx_migrations` stay, so that an old binary beside this one still finds them.

use std::collections::HashSet;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqlSafeStr as _};

const SCHEMA: &str = "reel";
const VERSIONS: &str = "reel.migrations";
/// Description of the toolkit's files among a service's, in databases of earlier releases.
const FORMERLY: &str = "reel";

/// The toolkit's own files. As `sqlx::migrate!` would embed them, but that macro compiles a second
/// Postgres driver with TLS, for the compiler to run.
const TOOLKIT: &[(&str, &str)] = &[
    ("0001_tables.sql", include_str!("../migrations/0001_tables.sql")),
    ("0002_run_in_plpgsql.sql", include_str!("../migrations/0002_run_in_plpgsql.sql")),
    ("0003_kafka_heard_at.sql", include_str!("../migrations/0003_kafka_heard_at.sql")),
    ("0004_deadlines_set_at.sql", include_str!("../migrations/0004_deadlines_set_at.sql")),
];

/// Embeds a service's migrations: files named `0002_what_it_does.sql`, as paths from the file that
/// calls this. They are applied in the order of the numbers and never changed afterwards.
///
/// ```ignore
/// fn migrations() -> &'static Migrator {
///     reel::migrations!["../../../migrations/payment/0002_payment.sql"]
/// }
/// ```
#[macro_export]
macro_rules! migrations {
    ($($file:literal),+ $(,)?) => {{
        static MIGRATIONS: ::std::sync::LazyLock<$crate::private::Migrator> =
            ::std::sync::LazyLock::new(|| {
                $crate::private::embedded(&[$(($file, include_str!($file))),+])
            });
        &MIGRATIONS
    }};
}

/// The migrations in these files, each a path and a content.
///
/// # Panics
/// If a file's name is not of the form `0002_what_it_does.sql`.
#[must_use]
pub fn embedded(files: &[(&'static str, &'static str)]) -> Migrator {
    let migration = |(path, sql): &(&'static str, &'static str)| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let parts = name.strip_suffix(".sql").and_then(|name| name.split_once('_'));
        let numbered = parts.and_then(|(number, what)| Some((number.parse().ok()?, what)));
        let (version, what) = numbered
            .unwrap_or_else(|| panic!("the migration {path} is not named like 0002_accounts.sql"));
        // A checkout may have changed the line ends, which must not change the checksum.
        let sql = AssertSqlSafe(sql.replace("\r\n", "\n")).into_sql_str();
        Migration::new(version, what.replace('_', " ").into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

/// Brings a database up to date.
///
/// # Errors
/// If the database is unreachable, a migration fails, or the database is newer than this binary.
pub(crate) async fn run(
    connection: &mut PgConnection,
    of_service: &Migrator,
) -> Result<(), MigrateError> {
    let toolkit = toolkit();
    adopt(connection, &toolkit).await?;
    toolkit.run(&mut *connection).await?;
    check_newer(connection, of_service).await?;
    service(of_service).run(connection).await
}

/// The toolkit's own migrations.
pub(crate) fn toolkit() -> Migrator {
    let mut toolkit = embedded(TOOLKIT);
    toolkit.create_schema(SCHEMA);
    toolkit.dangerous_set_table_name(VERSIONS);
    toolkit
}

/// The service's migrations; that the toolkit's former ones are missing is no error.
fn service(migrations: &Migrator) -> Migrator {
    let mut service = Migrator::with_migrations(migrations.iter().cloned().collect());
    service.set_ignore_missing(true);
    service
}

/// Takes over a database whose tables of the toolkit were made among those of the service.
async fn adopt(connection: &mut PgConnection, toolkit: &Migrator) -> Result<(), MigrateError> {
    let mut transaction = connection.begin().await?;
    let lock = "select pg_advisory_xact_lock(hashtext('reel.adopt'))";
    sqlx::query(lock).execute(&mut *transaction).await?;
    let formerly: bool = sqlx::query_scalar(
        "select to_regclass('reel.lanes') is not null and to_regclass('reel.migrations') is null",
    )
    .fetch_one(&mut *transaction)
    .await?;
    if !formerly {
        return Ok(());
    }

    let applied = "select count(*) from _sqlx_migrations where description = $1 and success";
    let applied: i64 =
        sqlx::query_scalar(applied).bind(FORMERLY).fetch_one(&mut *transaction).await?;
    toolkit.skip(&mut *transaction, Some(applied)).await?;
    transaction.commit().await?;
    tracing::info!(
        event.code = "database.adopted",
        applied,
        "the toolkit's tables of an earlier release are adopted"
    );

    Ok(())
}

/// Refuses a database that a newer binary has migrated.
async fn check_newer(
    connection: &mut PgConnection,
    of_service: &Migrator,
) -> Result<(), MigrateError> {
    let known: HashSet<i64> = of_service.iter().map(|migration| migration.version).collect();
    let exists = "select to_regclass('_sqlx_migrations') is not null";
    if !sqlx::query_scalar::<_, bool>(exists).fetch_one(&mut *connection).await? {
        return Ok(());
    }
    let applied = "select version from _sqlx_migrations where description <> $1 order by version";
    let applied: Vec<i64> =
        sqlx::query_scalar(applied).bind(FORMERLY).fetch_all(connection).await?;
    match applied.into_iter().find(|version| !known.contains(version)) {
        Some(version) => Err(MigrateError::VersionMissing(version)),
        None => Ok(()),
    }
}
