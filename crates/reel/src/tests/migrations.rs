//! Migrations: the toolkit's own tables, and databases that earlier releases created.

use std::time::Duration;

use devstack::{Stack, TestDatabase};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection, PgConnection, SqlSafeStr as _};

use crate::database::Database;
use crate::migrations;

/// The toolkit's files as an earlier release kept them among a service's own.
const FORMER_TABLES: &str =
    concat!("create schema reel;\n", include_str!("../../migrations/0001_tables.sql"));
const FORMER_RUN: &str = include_str!("../../migrations/0002_run_in_plpgsql.sql");
const ACCOUNTS: &str = "create table accounts (account text primary key)";
const ENTRIES: &str = "create table entries (entry text primary key)";

async fn database(name: &str) -> (TestDatabase, PgConnection) {
    let stack = Stack::shared().await.expect("stack");
    let database = TestDatabase::create(stack.postgres(), name).await.expect("database");
    let connection = Database::new(database.url(), "till", Duration::from_secs(5)).expect("url");
    let connection = connection.connect().await.expect("connection");
    (database, connection)
}

fn file(version: i64, description: &'static str, sql: &'static str) -> Migration {
    let simple = MigrationType::Simple;
    Migration::new(version, description.into(), simple, sql.into_sql_str(), false)
}

/// A service's migrations in an earlier release: the toolkit's files are among them.
fn former() -> Migrator {
    Migrator::with_migrations(vec![
        file(1, "reel", FORMER_TABLES),
        file(2, "till", ACCOUNTS),
        file(3, "reel", FORMER_RUN),
    ])
}

/// The service's migrations in this release: without the toolkit's files, and with one more.
fn now() -> Migrator {
    Migrator::with_migrations(vec![file(2, "till", ACCOUNTS), file(4, "till", ENTRIES)])
}

/// The number of the toolkit's files.
fn toolkit() -> i64 {
    migrations::toolkit().iter().count().try_into().expect("few")
}

async fn count(connection: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(connection).await.expect("count")
}

#[tokio::test]
async fn a_database_of_an_earlier_release_is_adopted_and_keeps_its_rows() {
    let (_database, mut connection) = database("adopted").await;
    former().run(&mut connection).await.expect("the earlier release");
    sqlx::raw_sql("insert into reel.heads values (0, 7, null); insert into accounts values ('x')")
        .execute(&mut connection)
        .await
        .expect("rows");

    for _ in 0..2 {
        migrations::run(&mut connection, &now()).await.expect("this release");
        assert_eq!(count(&mut connection, "select count(*) from reel.migrations").await, toolkit());
        assert_eq!(count(&mut connection, "select next_seq from reel.heads").await, 7);
        assert_eq!(count(&mut connection, "select count(*) from accounts").await, 1);
        assert_eq!(count(&mut connection, "select count(*) from entries").await, 0);
    }
}

#[tokio::test]
async fn an_earlier_release_that_had_only_its_first_file_gets_the_rest() {
    let (_database, mut connection) = database("adopted-early").await;
    let first = Migrator::with_migrations(vec![file(1, "reel", FORMER_TABLES)]);
    first.run(&mut connection).await.expect("the earlier release");

    migrations::run(&mut connection, &now()).await.expect("this release");

    let language = "select count(*) from pg_proc join pg_language on pg_language.oid = prolang
        where proname = 'run' and pronamespace = 'reel'::regnamespace and lanname = 'plpgsql'";
    assert_eq!(count(&mut connection, language).await, 1);
}

#[tokio::test]
async fn an_old_binary_beside_this_one_finds_its_migrations_applied() {
    let (_database, mut connection) = database("old-binary").await;
    former().run(&mut connection).await.expect("the earlier release");
    let same = Migrator::with_migrations(vec![file(2, "till", ACCOUNTS)]);
    migrations::run(&mut connection, &same).await.expect("this release");

    former().run(&mut connection).await.expect("the earlier release, started again");
}

#[tokio::test]
async fn a_database_that_a_newer_binary_migrated_is_refused() {
    let (_database, mut connection) = database("newer").await;
    migrations::run(&mut connection, &now()).await.expect("the newer release");
    let older = Migrator::with_migrations(vec![file(2, "till", ACCOUNTS)]);
    let refused = migrations::run(&mut connection, &older).await;
    assert!(matches!(refused, Err(MigrateError::VersionMissing(4))), "{refused:?}");
}

#[tokio::test]
async fn replicas_that_migrate_an_earlier_database_at_once_adopt_it_once() {
    let (database, mut connection) = database("at-once").await;
    former().run(&mut connection).await.expect("the earlier release");
    let migrate = || async {
        let mut connection = PgConnection::connect(database.url()).await.expect("connection");
        migrations::run(&mut connection, &now()).await
    };

    let (a, b) = tokio::join!(migrate(), migrate());
    a.and(b).expect("both migrate");
    assert_eq!(count(&mut connection, "select count(*) from reel.migrations").await, toolkit());
}
