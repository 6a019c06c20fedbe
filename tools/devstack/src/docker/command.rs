//! The command line of Docker.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// The output and the exit code of a command.
#[derive(Debug)]
pub struct CommandOutput {
    /// The exit code; 128 if the command was killed.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl CommandOutput {
    /// Returns the standard output of a command that succeeded.
    ///
    /// # Errors
    /// If the command failed, with its output.
    pub fn success(self) -> Result<String> {
        if self.code != 0 {
            bail!("docker exited with {}: {}{}", self.code, self.out, self.err);
        }
        Ok(self.out)
    }

    /// Both streams, standard output first.
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// Runs a `docker` command.
///
/// # Errors
/// If it cannot be run at all.
pub async fn docker(args: &[&str]) -> Result<CommandOutput> {
    run(Command::new("docker").args(args)).await
}

/// Kills a container (SIGKILL), and waits until it is dead: `docker kill` alone does not wait, and
/// `docker start` has no effect on a container that is still running.
///
/// # Errors
/// If it is not running.
pub async fn kill(container: &str) -> Result<()> {
    docker(&["kill", container]).await?.success()?;
    docker(&["wait", container]).await?.success().map(drop)
}

/// Stops a container as Docker does: by its stop signal, and by SIGKILL after a grace period.
/// Returns its exit code, which is 137 if it was killed.
///
/// # Errors
/// If there is no container of this name.
pub async fn stop(container: &str) -> Result<i32> {
    docker(&["stop", container]).await?.success()?;
    let code =
        docker(&["inspect", "--format", "{{.State.ExitCode}}", container]).await?.success()?;
    code.trim()
        .parse()
        .with_context(|| format!("cannot parse the exit code of {container}: {code:?}"))
}

pub(super) async fn run(command: &mut Command) -> Result<CommandOutput> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run docker")?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(CommandOutput {
        code: output.status.code().unwrap_or(128),
        out: text(output.stdout),
        err: text(output.stderr),
    })
}

/// Whether a Docker engine answers. If not, reports the test of this name as skipped.
///
/// # Errors
/// If none answers and `REQUIRE_DOCKER=1`.
pub async fn engine(test: &str) -> Result<bool> {
    let required = std::env::var("REQUIRE_DOCKER").is_ok_and(|required| required == "1");
    let skipped = skipped(test, probe(&mut Command::new("docker")).await, required)?;
    if let Some(skipped) = &skipped {
        crate::print_uncaptured(skipped);
    }
    Ok(skipped.is_none())
}

async fn probe(docker: &mut Command) -> Result<CommandOutput> {
    run(docker.args(["version", "--format", "{{.Server.Version}}"])).await
}

/// The message for a test that is skipped because no engine has answered; `None` if one has.
fn skipped(test: &str, answer: Result<CommandOutput>, required: bool) -> Result<Option<String>> {
    let reason = match answer {
        Ok(output) if output.code == 0 => return Ok(None),
        Ok(output) => output.text().trim().to_owned(),
        Err(error) => format!("{error:#}"),
    };
    if required {
        bail!("REQUIRE_DOCKER=1, and no Docker engine answers: {reason}");
    }
    Ok(Some(format!("skipped: {test}: no Docker engine answers: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(code: i32, text: &str) -> Result<CommandOutput> {
        Ok(CommandOutput { code, out: String::new(), err: text.to_owned() })
    }

    async fn without_docker_on_the_path() -> Result<CommandOutput> {
        probe(Command::new("docker").env("PATH", "/nowhere")).await
    }

    #[tokio::test]
    async fn without_docker_on_the_path_a_test_is_skipped_by_name() {
        let message =
            skipped("a_test", without_docker_on_the_path().await, false).unwrap().unwrap();
        assert!(
            message.starts_with("skipped: a_test: no Docker engine answers: cannot run docker"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn if_docker_is_required_a_test_fails_without_it() {
        let error =
            skipped("a_test", without_docker_on_the_path().await, true).unwrap_err().to_string();
        assert!(
            error.starts_with("REQUIRE_DOCKER=1, and no Docker engine answers: cannot run docker"),
            "{error}"
        );
    }

    #[test]
    fn an_engine_that_does_not_answer_counts_as_none() {
        let message = skipped("a_test", output(1, "Cannot connect to the Docker daemon"), false)
            .unwrap()
            .unwrap();
        assert!(message.contains("Cannot connect"), "{message}");
        assert!(skipped("a_test", output(1, "Cannot connect to the Docker daemon"), true).is_err());
    }

    #[test]
    fn if_an_engine_answers_nothing_is_skipped() {
        assert_eq!(skipped("a_test", output(0, ""), false).unwrap(), None);
        assert_eq!(skipped("a_test", output(0, ""), true).unwrap(), None);
    }
}
