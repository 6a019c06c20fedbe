//! The stack that tests share: started once, found by all, with a database and a prefix per test.

use std::process::{Command, Output};
use std::thread;

use anyhow::Result;
use devstack::{Stack, TestDatabase, topics};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use sqlx::{Connection, PgConnection};

fn devstack(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devstack"));
    command
        .args(arguments)
        .env_remove("REEL_KAFKA")
        .env_remove("REEL_POSTGRES")
        .env_remove("STACK");
    command.envs(variables.iter().copied());
    Ok(command.output()?)
}

#[test]
fn a_shared_stack_is_started_once_and_found_by_the_second_caller() -> Result<()> {
    let folder = tempfile::Builder::new().permissions(open_to_all()).tempdir()?;
    let folder = folder.path().to_string_lossy().into_owned();
    let up = || devstack(&["up", "--dir", &folder], &[]);
    let [first, second] = thread::scope(|scope| {
        [scope.spawn(up), scope.spawn(up)].map(thread::ScopedJoinHandle::join)
    });
    let [first, second] = [first.unwrap()?, second.unwrap()?];
    assert!(first.status.success(), "{first:?}");
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(devstack(&["status", "--dir", &folder], &[])?.stdout, first.stdout);

    assert!(devstack(&["down", "--delete-data", "--dir", &folder], &[])?.status.success());
    let status = devstack(&["status", "--dir", &folder], &[])?;
    assert_eq!((status.status.code(), &*status.stdout), (Some(1), &b"nothing is running\n"[..]));
    Ok(())
}

#[tokio::test]
async fn a_command_gets_the_given_addresses_and_its_exit_code_is_forwarded() -> Result<()> {
    let stack = Stack::shared().await?;
    let output =
        devstack(&["exec", "--", "sh", "-c", "echo $REEL_KAFKA; exit 7"], &stack.variables())?;
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8(output.stdout)?.trim(), stack.kafka());
    Ok(())
}

#[test]
fn half_of_a_given_stack_is_refused() -> Result<()> {
    let output = devstack(&["status"], &[("REEL_KAFKA", "127.0.0.1:1")])?;
    assert!(!output.status.success());
    assert!(
        String::from_utf8(output.stderr)?.contains("REEL_POSTGRES is not: set both or neither")
    );
    Ok(())
}

#[test]
fn a_stack_in_containers_exists_only_for_a_command() -> Result<()> {
    let refusal =
        |stack| anyhow::Ok(String::from_utf8(devstack(&["up"], &[("STACK", stack)])?.stderr)?);
    assert!(refusal("docker")?.contains("works only with `devstack exec`"));
    assert!(refusal("podman")?.contains("set it to `docker`"));
    Ok(())
}

#[tokio::test]
async fn a_test_database_is_dropped_although_somebody_is_connected_to_it() -> Result<()> {
    let stack = Stack::shared().await?;
    let database = TestDatabase::create(stack.postgres(), "Order-service").await?;
    assert!(database.name().starts_with("orderservice_"));
    let mut other = PgConnection::connect(database.url()).await?;
    let name = database.name().to_owned();
    drop(database);
    assert!(other.ping().await.is_err());
    let mut admin = PgConnection::connect(stack.postgres()).await?;
    let left: i64 = sqlx::query_scalar("select count(*) from pg_database where datname = $1")
        .bind(name)
        .fetch_one(&mut admin)
        .await?;
    assert_eq!(left, 0);
    Ok(())
}

#[tokio::test]
async fn only_topics_with_the_prefix_are_deleted() -> Result<()> {
    let stack = Stack::shared().await?;
    let [mine, other] = [topics::unique_prefix(), topics::unique_prefix()];
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", stack.kafka()).create()?;
    let names = [format!("{mine}orders"), format!("{mine}payments"), format!("{other}orders")];
    let new = names.each_ref().map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1)));
    admin.create_topics(&new, &AdminOptions::new()).await?;
    assert_eq!(topics::delete_with_prefix(stack.kafka(), &mine).await?, 2);
    assert!(topics::names(stack.kafka(), &mine).await?.is_empty());
    assert_eq!(topics::delete_with_prefix(stack.kafka(), &other).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_stack_can_be_asked_for_from_a_spawned_task() -> Result<()> {
    let (mine, theirs) = tokio::join!(Stack::shared(), tokio::spawn(Stack::shared()));
    assert_eq!(mine?.postgres(), theirs??.postgres());
    Ok(())
}

/// Permissions of folders that the user of Postgres must be able to enter.
fn open_to_all() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}
