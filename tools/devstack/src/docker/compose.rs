//! A deployment from a compose file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use testcontainers_modules::testcontainers::compose::DockerCompose;
use tokio::process::Command;

use super::command::{self, CommandOutput, docker};
use super::guard::Guard;
use crate::topics;

const LOG_LINES: &str = "15";
/// Lists for the guard what is left. The arguments are the label, the project and the file.
const LIST: &str = concat!(
    r#"docker ps --all --quiet --filter "$1"; "#,
    r#"docker volume ls --quiet --filter "$1"; "#,
    r#"docker network ls --quiet --filter "$1""#,
);
/// Removes for the guard what is left, with the same arguments.
const DOWN: &str =
    r#"docker compose --project-name "$2" --file "$3" --profile "*" down --volumes --timeout 1"#;

/// A compose project with a unique name. Its containers, networks and volumes are removed with this
/// value.
pub struct Compose {
    project: String,
    file: PathBuf,
    environment: HashMap<String, String>,
    running: DockerCompose,
    _guard: Guard,
}

impl Compose {
    /// Starts the services of a file, with environment variables that override ours. Returns once
    /// they are started, which may be before they are healthy.
    ///
    /// # Errors
    /// If Docker fails: there is no engine, the file is invalid, an image is missing, or a job that
    /// a service depends on has failed. The end of all logs is printed to stderr.
    pub async fn up(file: &Path, environment: HashMap<String, String>) -> Result<Self> {
        let file =
            file.canonicalize().with_context(|| format!("cannot find {}", file.display()))?;
        let project = format!("reel-{}", topics::unique_prefix().trim_end_matches('-'));
        let guard =
            Guard::new(LIST, DOWN, &[label(&project).as_ref(), project.as_ref(), file.as_ref()])?;

        // Waiting would be limited to a minute, and would take finished jobs for unhealthy
        // services.
        let running =
            DockerCompose::with_local_client(&[&file]).with_project_name(&project).with_wait(false);
        let running = running.with_env_vars(environment.clone());
        let mut compose = Self { project, file, environment, running, _guard: guard };
        if let Err(error) = compose.running.up().await {
            compose.show_logs().await;
            return Err(error.into());
        }
        Ok(compose)
    }

    /// The name of the container of a service.
    pub fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.project)
    }

    /// The name of the network of all containers.
    pub fn network(&self) -> String {
        format!("{}_default", self.project)
    }

    /// Runs a command of `docker compose` on this project.
    ///
    /// # Errors
    /// If it cannot be run at all.
    pub async fn run(&self, args: &[&str]) -> Result<CommandOutput> {
        let mut command = Command::new("docker");
        command.args(["compose", "--project-name", &self.project, "--file"]).arg(&self.file);
        command::run(command.args(args).envs(&self.environment)).await
    }

    /// Prints the end of the logs, to explain a failure.
    pub async fn show_logs(&self) {
        if let Ok(logs) = self.run(&["logs", "--tail", LOG_LINES]).await {
            eprintln!("{}", logs.text());
        }
    }

    /// Stops and removes everything.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub async fn down(self) -> Result<()> {
        let Self { project, running, _guard: guard, .. } = self;
        running.down().await?;
        tokio::task::spawn_blocking(|| drop(guard)).await?; // removes what profiles have added
        let left = docker(&["ps", "--all", "--quiet", "--filter", &label(&project)]).await?;
        ensure!(left.success()?.is_empty(), "containers of {project} are still there");
        Ok(())
    }
}

/// The label of everything that belongs to a project.
fn label(project: &str) -> String {
    format!("label=com.docker.compose.project={project}")
}
