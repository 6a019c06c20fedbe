//! A Kafka and a Postgres in containers go with whoever asked for them, however that ends.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use container_tests::{LIMIT, Owner};
use devstack::docker::{Containers, engine};
use devstack::wait;
use tokio::sync::Mutex;

/// So long none must be seen: the engine may still be making one.
const NONE_FOR: Duration = Duration::from_secs(3);

/// Of this process one test at a time has containers.
static HERE: Mutex<()> = Mutex::const_new(());

/// Waits until a process has no containers, and gets none any more.
async fn nothing_is_left_of(process: u32) -> Result<()> {
    let none_since: Cell<Option<Instant>> = Cell::new(None);
    wait::until(LIMIT, "all containers to be gone", || async {
        let since = if Containers::of_process(process).await?.is_empty() { none_since.get().or(Some(Instant::now())) } else { None };
        none_since.set(since);
        Ok(since.filter(|since| since.elapsed() > NONE_FOR).map(drop))
    })
    .await
}

#[tokio::test]
async fn containers_go_when_their_owner_is_interrupted() -> Result<()> {
    if !engine("containers_go_when_their_owner_is_interrupted").await? {
        return Ok(());
    }
    let mut owner = Owner::start()?;
    owner.until_its_command_runs()?;
    let held = owner.containers().await?;
    ensure!(held.len() == 2, "{held:?}");
    let ended = owner.interrupt()?;
    ensure!(ended.code() == Some(130), "it hands on that its command was interrupted: {ended}");
    let left = owner.containers().await?;
    ensure!(left.is_empty(), "it has ended before they were gone: {left:?}");
    Ok(())
}

#[tokio::test]
async fn containers_go_when_their_owner_is_killed() -> Result<()> {
    if !engine("containers_go_when_their_owner_is_killed").await? {
        return Ok(());
    }
    let mut owner = Owner::start()?;
    owner.until_its_command_runs()?;
    let held = owner.containers().await?;
    ensure!(held.len() == 2, "{held:?}");
    owner.kill()?;
    nothing_is_left_of(owner.id()).await
}

#[tokio::test]
async fn containers_go_that_were_being_made_when_their_owner_was_killed() -> Result<()> {
    if !engine("containers_go_that_were_being_made_when_their_owner_was_killed").await? {
        return Ok(());
    }
    let mut owner = Owner::start()?;
    wait::until(LIMIT, "its first container", || async { Ok((!owner.containers().await?.is_empty()).then_some(())) }).await?;
    owner.kill()?;
    nothing_is_left_of(owner.id()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_go_with_a_test_that_panics() -> Result<()> {
    if !engine("containers_go_with_a_test_that_panics").await? {
        return Ok(());
    }
    let _turn = HERE.lock().await;
    let containers = Containers::start().await?;
    ensure!(Containers::of_process(std::process::id()).await?.len() == 2, "they are seen");
    let test = tokio::spawn(async move { assert!(containers.kafka().is_empty(), "so a test fails") });
    ensure!(test.await.is_err_and(|ended| ended.is_panic()), "it panics");
    nothing_is_left_of(std::process::id()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_start_says_why_and_leaves_nothing() -> Result<()> {
    if !engine("a_server_that_does_not_start_says_why_and_leaves_nothing").await? {
        return Ok(());
    }
    let _turn = HERE.lock().await;
    let error = Containers::start_with(&["max_connections=many"]).await.err().context("a server with a wrong setting runs")?;
    let said = format!("{error:#}");
    ensure!(said.contains("its log ends:") && said.contains(r#"invalid value for parameter "max_connections""#), "{said}");
    nothing_is_left_of(std::process::id()).await
}
