//! A machine without Docker: tests with containers are skipped and reported as skipped, unless
//! Docker is required.

use std::process::{Command, Output};

use anyhow::{Result, ensure};
use devstack::docker::engine;

/// The test that the others run in a process of its own.
#[tokio::test]
async fn an_engine_answers() -> Result<()> {
    engine("an_engine_answers").await.map(drop)
}

/// Runs [`an_engine_answers`] as `cargo test` does, with no `docker` in `PATH`.
fn without_docker(required: &str) -> Result<Output> {
    let mut test = Command::new(std::env::current_exe()?);
    test.args(["--exact", "an_engine_answers"])
        .env("PATH", "/nowhere")
        .env("REQUIRE_DOCKER", required);
    Ok(test.env_remove("RUST_TEST_NOCAPTURE").output()?)
}

#[test]
fn without_docker_a_test_passes_and_is_reported_as_skipped_by_name() -> Result<()> {
    let output = without_docker("")?;
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "{stderr}");
    ensure!(stderr.contains("skipped: an_engine_answers: no Docker engine answers"), "{stderr}");
    Ok(())
}

#[test]
fn without_docker_a_test_fails_if_docker_is_required() -> Result<()> {
    let output = without_docker("1")?;
    let stdout = String::from_utf8(output.stdout)?;
    ensure!(!output.status.success(), "{stdout}");
    ensure!(stdout.contains("REQUIRE_DOCKER=1, and no Docker engine answers"), "{stdout}");
    Ok(())
}
