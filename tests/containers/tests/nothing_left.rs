//! Removal of a Kafka and a Postgres in containers when their owner ends, however it ends.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use container_tests::{LIMIT, Owner};
use devstack::docker::{Containers, engine};
use devstack::wait;
use tokio::sync::Mutex;

/// Time for which no container must be seen, because the engine may still be creating one.
const NONE_FOR: Duration = Duration::from_secs(3);

/// Allows one test at a time whose containers belong to this process.
static HERE: Mutex<()> = Mutex::const_new(());

/// Waits until a process has no containers, and stays without.
async fn nothing_is_left_of(process: u32) -> Result<()> {
    let none_since: Cell<Option<Instant>> = Cell::new(None);
    wait::until(LIMIT, "all containers to be gone", || async {
        let since = if Containers::of_process(process).await?.is_empty() {
            none_since.get().or(Some(Instant::now()))
        } else {
            None
        };
        none_since.set(since);
        Ok(since.filter(|since| since.elapsed() > NONE_FOR).map(drop))
    })
    .await
}

#[tokio::test]
async fn containers_are_removed_when_their_owner_is_interrupted() -> Result<()> {
    if !engine("containers_are_removed_when_their_owner_is_interrupted").await? {
        return Ok(());
    }
    let mut owner = Owner::start()?;
    owner.until_command_runs()?;
    let held = owner.containers().await?;
    ensure!(held.len() == 2, "{held:?}");

    let ended = owner.interrupt()?;
    ensure!(
        ended.code() == Some(130),
        "the exit code must be that of an interrupted command: {ended}"
    );
    let left = owner.containers().await?;
    ensure!(left.is_empty(), "the owner ended before its containers were gone: {left:?}");
    Ok(())
}

#[tokio::test]
async fn containers_are_removed_when_their_owner_is_killed() -> Result<()> {
    if !engine("containers_are_removed_when_their_owner_is_killed").await? {
        return Ok(());
    }
    let mut owner = Owner::start()?;
    owner.until_command_runs()?;
    let held = owner.containers().await?;
    ensure!(held.len() == 2, "{held:?}");
    owner.kill()?;
    nothing_is_left_of(owner.id()).await
}

#[tokio::test]
async fn containers_still_being_created_are_removed_when_their_owner_is_killed() -> Result<()> {
    if !engine("containers_still_being_created_are_removed_when_their_owner_is_killed").await? {
        return Ok(());
    }
    let mut owner = Owner::start()?;
    wait::until(LIMIT, "its first container", || async {
        Ok((!owner.containers().await?.is_empty()).then_some(()))
    })
    .await?;
    owner.kill()?;
    nothing_is_left_of(owner.id()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_removed_when_a_test_panics() -> Result<()> {
    if !engine("containers_are_removed_when_a_test_panics").await? {
        return Ok(());
    }
    let _turn = HERE.lock().await;
    let containers = Containers::start().await?;
    ensure!(
        Containers::of_process(std::process::id()).await?.len() == 2,
        "both containers must be seen"
    );
    let test =
        tokio::spawn(async move { assert!(containers.kafka().is_empty(), "a failed assertion") });
    ensure!(test.await.is_err_and(|ended| ended.is_panic()), "the task must panic");
    nothing_is_left_of(std::process::id()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_to_start_reports_why_and_leaves_nothing_behind() -> Result<()> {
    if !engine("a_server_that_fails_to_start_reports_why_and_leaves_nothing_behind").await? {
        return Ok(());
    }
    let _turn = HERE.lock().await;
    let error = Containers::start_with(&["max_connections=many"])
        .await
        .err()
        .context("a server with an invalid setting must not start")?;
    let message = format!("{error:#}");
    ensure!(
        message.contains("its log ends:")
            && message.contains(r#"invalid value for parameter "max_connections""#),
        "{message}"
    );
    nothing_is_left_of(std::process::id()).await
}
