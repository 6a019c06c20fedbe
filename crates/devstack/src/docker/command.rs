//! Docker's command line.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; 128 for a command that was killed.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Standard output of a command that succeeded.
    ///
    /// # Errors
    /// What it said if it failed.
    pub fn success(self) -> Result<String> {
        if self.code != 0 {
            bail!("ended with {}: {}{}", self.code, self.out, self.err);
        }
        Ok(self.out)
    }

    /// Both streams.
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// Runs `docker` to its end.
///
/// # Errors
/// If it cannot be run at all.
pub async fn docker(args: &[&str]) -> Result<Said> {
    run(Command::new("docker").args(args)).await
}

/// Kills a container by SIGKILL, and returns when it is dead: `docker kill` alone does not wait, and `docker start` does nothing for
/// one that is still there.
///
/// # Errors
/// If it does not run.
pub async fn kill(container: &str) -> Result<()> {
    docker(&["kill", container]).await?.success()?;
    docker(&["wait", container]).await?.success().map(drop)
}

pub(super) async fn run(command: &mut Command) -> Result<Said> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.context("cannot run docker")?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Said { code: output.status.code().unwrap_or(128), out: text(output.stdout), err: text(output.stderr) })
}

/// Whether an engine answers. Without one, the test of this name is reported as skipped.
///
/// # Errors
/// If none answers and `REQUIRE_DOCKER=1`.
pub async fn engine(test: &str) -> Result<bool> {
    let reason = match docker(&["version", "--format", "{{.Server.Version}}"]).await {
        Ok(said) if said.code == 0 => return Ok(true),
        Ok(said) => said.text().trim().to_owned(),
        Err(error) => format!("{error:#}"),
    };
    if std::env::var("REQUIRE_DOCKER").is_ok_and(|required| required == "1") {
        bail!("REQUIRE_DOCKER=1, and no Docker engine answers: {reason}");
    }
    eprintln!("skipped: {test}: no Docker engine answers: {reason}");
    Ok(false)
}
