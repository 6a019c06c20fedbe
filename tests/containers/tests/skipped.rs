//! A machine without Docker: a test of containers is skipped, and says so, unless Docker is required.

use std::process::{Command, Output};

use anyhow::{Result, ensure};
use devstack::docker::engine;

/// The test that the others run.
#[tokio::test]
async fn an_engine_answers() -> Result<()> {
    engine("an_engine_answers").await.map(drop)
}

/// Runs it as `cargo test` does, with no docker to be found.
fn without_docker(required: &str) -> Result<Output> {
    let mut test = Command::new(std::env::current_exe()?);
    test.args(["--exact", "an_engine_answers"]).env("PATH", "/nowhere").env("REQUIRE_DOCKER", required);
    Ok(test.env_remove("RUST_TEST_NOCAPTURE").output()?)
}

#[test]
fn without_docker_a_test_passes_and_is_reported_as_skipped_by_name() -> Result<()> {
    let output = without_docker("")?;
    let told = String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "{told}");
    ensure!(told.contains("skipped: an_engine_answers: no Docker engine answers"), "{told}");
    Ok(())
}

#[test]
fn without_docker_a_test_fails_where_docker_is_required() -> Result<()> {
    let output = without_docker("1")?;
    let told = String::from_utf8(output.stdout)?;
    ensure!(!output.status.success(), "{told}");
    ensure!(told.contains("REQUIRE_DOCKER=1, and no Docker engine answers"), "{told}");
    Ok(())
}
