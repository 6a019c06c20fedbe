//! A deployment of a compose file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use testcontainers_modules::testcontainers::compose::DockerCompose;
use tokio::process::Command;

use super::command::{self, Said, docker};
use super::guard::Guard;
use crate::topics;

const LOG_LINES: &str = "15";
/// For the guard: the label, the project and the file are its arguments.
const LOOK: &str =
    r#"docker ps --all --quiet --filter "$1"; docker volume ls --quiet --filter "$1"; docker network ls --quiet --filter "$1""#;
const DOWN: &str = r#"docker compose --project-name "$2" --file "$3" --profile "*" down --volumes --timeout 1"#;

/// A project of a compose file that nobody else has: its containers, networks and volumes go with this value.
pub struct Compose {
    project: String,
    file: PathBuf,
    environment: HashMap<String, String>,
    running: DockerCompose,
    _guard: Guard,
}

impl Compose {
    /// Starts the services of a file, with environment variables that win over ours. Returns when they are started, not when they
    /// are healthy.
    ///
    /// # Errors
    /// If Docker refuses: there is no engine, the file is wrong, an image is missing, or a job before a service has failed; then
    /// with the end of all logs on stderr.
    pub async fn up(file: &Path, environment: HashMap<String, String>) -> Result<Self> {
        let file = file.canonicalize().with_context(|| format!("there is no {}", file.display()))?;
        let project = format!("reel-{}", topics::unique_prefix().trim_end_matches('-'));
        let guard = Guard::new(LOOK, DOWN, &[label(&project).as_ref(), project.as_ref(), file.as_ref()])?;
        // It would wait for a minute at most, and takes jobs that have ended for services that are not healthy.
        let running = DockerCompose::with_local_client(&[&file]).with_project_name(&project).with_wait(false);
        let running = running.with_env_vars(environment.clone());
        let mut compose = Self { project, file, environment, running, _guard: guard };
        if let Err(error) = compose.running.up().await {
            compose.show_logs().await;
            return Err(error.into());
        }
        Ok(compose)
    }

    /// The container of a service.
    pub fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.project)
    }

    /// The name of the network that all containers are in.
    pub fn network(&self) -> String {
        format!("{}_default", self.project)
    }

    /// Runs a command of `docker compose` on this project.
    ///
    /// # Errors
    /// If it cannot be run at all.
    pub async fn run(&self, args: &[&str]) -> Result<Said> {
        let mut command = Command::new("docker");
        command.args(["compose", "--project-name", &self.project, "--file"]).arg(&self.file);
        command::run(command.args(args).envs(&self.environment)).await
    }

    /// Prints how the logs end, for whoever looks at something that failed.
    pub async fn show_logs(&self) {
        if let Ok(said) = self.run(&["logs", "--tail", LOG_LINES]).await {
            eprintln!("{}", said.text());
        }
    }

    /// Stops and removes everything.
    ///
    /// # Errors
    /// If something stays.
    pub async fn down(self) -> Result<()> {
        let Self { project, running, _guard: guard, .. } = self;
        running.down().await?;
        tokio::task::spawn_blocking(|| drop(guard)).await?; // it removes what profiles have added
        let left = docker(&["ps", "--all", "--quiet", "--filter", &label(&project)]).await?;
        ensure!(left.success()?.is_empty(), "containers of {project} are left");
        Ok(())
    }
}

/// What all that belongs to a project is found by.
fn label(project: &str) -> String {
    format!("label=com.docker.compose.project={project}")
}
