//! Databases and settings that somebody else made.

use anyhow::{Context, Result};
use orderctl::system::Service;
use saga_tests::{Shop, eventually};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

#[tokio::test]
async fn a_database_that_does_not_hold_any_text_is_refused_by_name() -> Result<()> {
    let shop = Shop::prepared(|_| {}).await?;
    let url = shop.system.database_url(Service::ORDER);
    let (server, name) = url.rsplit_once('/').context("the URL names a database")?;
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await?;
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("{name}_{encoding}");
        let create = format!(
            "create database \"{name}\" encoding '{encoding}' locale 'C' template template0"
        );
        admin.execute(AssertSqlSafe(create)).await?;

        let url = format!("{server}/{name}");
        let elsewhere = [("DATABASE_URL", url.as_str())];
        let migrated = shop.system.run_with(Service::ORDER, "migrate", &elsewhere).await;
        let refused = format!("{:#}", migrated.expect_err(encoding));
        assert!(refused.contains(encoding) && refused.contains("UTF8"), "{refused}");

        let mut replica = shop.system.start_with(Service::ORDER, "order-1", &elsewhere).await?;
        let status = replica.exited(saga_tests::LIMIT).await?.context("the process exits")?;
        assert_eq!(status.code(), Some(2), "{}", replica.last_words());

        admin.execute(AssertSqlSafe(format!("drop database \"{name}\" with (force)"))).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_variable_that_is_empty_is_as_one_that_is_not_set() -> Result<()> {
    let shop = Shop::prepared(|_| {}).await?;
    let empty = ["INSTANCE_ID", "TOKEN_AUDIENCE", "RUST_LOG", "LEASE", "RDKAFKA_CLIENT_RACK"];
    let mut replica =
        shop.system.start_with(Service::ORDER, "order-1", &empty.map(|name| (name, ""))).await?;
    replica.wait_ready().await?;
    replica.stop().await
}

#[tokio::test]
async fn a_right_that_is_missing_is_told_and_once_granted_all_goes_on() -> Result<()> {
    let shop = Shop::prepared(|_| {}).await?;
    let pool = shop.system.pool(Service::ORDER);
    let role = format!("clerk_{}", uuid::Uuid::now_v7().simple());
    for statement in [
        format!("create role {role} login password 'secret'"),
        format!("alter role {role} set search_path = ''"),
        format!("grant usage on schema reel to {role}"),
        format!("grant select, insert, update, delete on all tables in schema public to {role}"),
        format!("grant usage, select, update on all sequences in schema reel to {role}"),
    ] {
        pool.execute(AssertSqlSafe(statement)).await?;
    }

    let url = shop.system.database_url(Service::ORDER);
    let url = url.replacen("postgres@", &format!("{role}:secret@"), 1);
    let mut replica =
        shop.system.start_with(Service::ORDER, "order-1", &[("DATABASE_URL", &url)]).await?;
    eventually("the missing right to be told", || async {
        Ok(replica.log_text().contains("refuses a right: grant the role"))
    })
    .await?;

    let grant = "grant select, insert, update, delete on all tables in schema reel to";
    pool.execute(AssertSqlSafe(format!("{grant} {role}"))).await?;
    replica.wait_ready().await?;
    replica.stop().await?;
    for statement in [format!("drop owned by {role}"), format!("drop role {role}")] {
        pool.execute(AssertSqlSafe(statement)).await?;
    }
    Ok(())
}
