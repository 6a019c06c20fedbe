//! Servers that a test owns: killed, paused, restored from a copy, and gone when their owner is
//! gone.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use devstack::{KafkaServer, PostgresServer, topics, wait};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use sqlx::{Connection, PgConnection};

const LIMIT: Duration = Duration::from_secs(10);

async fn add(url: &str, number: i32) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query("create table if not exists numbers (number int)").execute(&mut connection).await?;
    sqlx::query("insert into numbers values ($1)").bind(number).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

async fn numbers(url: &str) -> Result<Vec<i32>> {
    let mut connection = PgConnection::connect(url).await?;
    Ok(sqlx::query_scalar("select number from numbers order by number")
        .fetch_all(&mut connection)
        .await?)
}

async fn create_topic(bootstrap: &str, name: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    let topic = NewTopic::new(name, 12, TopicReplication::Fixed(1));
    for result in admin.create_topics([&topic], &AdminOptions::new()).await? {
        result.map_err(|(_, code)| code)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_postgres_comes_back_with_all_that_was_committed() -> Result<()> {
    let mut postgres = PostgresServer::temporary().await?;
    add(postgres.url(), 1).await?;

    let mut busy = PgConnection::connect(postgres.url()).await?;
    let busy =
        tokio::spawn(async move { sqlx::query("select pg_sleep(600)").execute(&mut busy).await });
    postgres.kill().await?;
    assert!(busy.await?.is_err(), "the kill reaches the children of the server");

    postgres.restart().await?;
    assert_eq!(numbers(postgres.url()).await?, [1]);
    Ok(())
}

#[tokio::test]
async fn a_paused_postgres_answers_when_it_is_resumed_and_can_be_killed_before() -> Result<()> {
    let mut postgres = PostgresServer::temporary().await?;
    add(postgres.url(), 1).await?;
    postgres.pause()?;
    let silence = tokio::time::timeout(Duration::from_millis(300), numbers(postgres.url())).await;
    assert!(silence.is_err(), "a paused server answers nothing");
    postgres.resume()?;
    assert_eq!(numbers(postgres.url()).await?, [1]);
    postgres.pause()?;
    postgres.kill().await?;
    assert!(numbers(postgres.url()).await.is_err());
    Ok(())
}

#[tokio::test]
async fn postgres_goes_back_to_a_copy_of_its_data() -> Result<()> {
    let copies = tempfile::tempdir()?;
    let copy = copies.path().join("copy");
    let mut postgres = PostgresServer::temporary().await?;
    add(postgres.url(), 1).await?;
    assert!(postgres.copy_to(&copy).await.is_err(), "the files of a running server are not a copy");
    postgres.stop().await?;
    postgres.copy_to(&copy).await?;
    postgres.restart().await?;
    add(postgres.url(), 2).await?;
    postgres.kill().await?;
    postgres.restore_from(&copy).await?;
    postgres.restart().await?;
    assert_eq!(numbers(postgres.url()).await?, [1]);
    Ok(())
}

#[tokio::test]
async fn a_killed_kafka_comes_back_at_its_address_with_its_topics() -> Result<()> {
    let mut kafka = tokio::spawn(KafkaServer::temporary()).await??;
    create_topic(kafka.bootstrap(), "orders").await?;
    kafka.kill().await?;
    kafka.restart().await?;
    assert_eq!(topics::names(kafka.bootstrap(), "").await?, ["orders"]);
    kafka.stop().await?;
    kafka.restart().await?;
    assert_eq!(topics::names(kafka.bootstrap(), "").await?, ["orders"]);
    Ok(())
}

#[tokio::test]
async fn owned_servers_end_when_their_owner_is_killed() -> Result<()> {
    // Postgres runs as another user, who must be able to enter the folder.
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    let folder = tempfile::Builder::new().permissions(open_to_all).tempdir()?;
    let mut owner = Command::new(env!("CARGO_BIN_EXE_devstack"))
        .args(["exec", "--", "sh", "-c", "echo $REEL_KAFKA $REEL_POSTGRES; exec cat"])
        .env_remove("REEL_KAFKA")
        .env_remove("REEL_POSTGRES")
        .env("REEL_DEVSTACK_DIR", folder.path().join("data"))
        .env("REEL_DEVSTACK_CACHE", devstack::folders::cache()?)
        .stdin(Stdio::piped()) // ends `cat` when it is closed
        .stdout(Stdio::piped())
        .spawn()?;

    let mut addresses = String::new();
    BufReader::new(owner.stdout.take().expect("stdout is a pipe")).read_line(&mut addresses)?;
    owner.kill()?;
    owner.wait()?;

    let ports = addresses.split([':', '/', ' ', '\n']).filter_map(|part| part.parse::<u16>().ok());
    let ports: Vec<_> = ports.collect();
    assert_eq!(ports.len(), 2, "{addresses}");
    wait::until(LIMIT, "both servers to end", || async {
        let all_closed =
            ports.iter().all(|&port| std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
        Ok(all_closed.then_some(()))
    })
    .await
}
