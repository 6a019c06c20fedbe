//! Starting a replica's process, and its readiness.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use devstack::Port;
use tokio::process::Command;

use super::Service;

/// Number of lines of a log that errors show.
const LOG_LINES: usize = 12;

/// A replica to be started.
pub(super) struct Launch<'a> {
    pub(super) service: Service,
    pub(super) name: &'a str,
    pub(super) program: &'a Path,
    pub(super) environment: Vec<(String, String)>,
    pub(super) folder: &'a Path,
}

/// A process of a service that outlives the process that started it.
#[derive(Debug, Clone)]
pub struct Detached {
    /// The id of its process.
    pub pid: u32,
    /// `http://127.0.0.1:<port>`
    pub url: String,
    /// The file of its log.
    pub log: PathBuf,
}

impl Launch<'_> {
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    pub(super) fn command(&self, port: &Port) -> Result<Command> {
        let log = self.log();
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(self.program);
        command
            .arg("run")
            .env("HTTP_ADDRESS", format!("127.0.0.1:{}", port.number()))
            .env("INSTANCE_ID", self.name);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // A process group of its own, so that Ctrl-C reaches only its owner.
        command.process_group(0);
        Ok(command)
    }

    pub(super) fn detached(&self, port: &Port) -> Result<Detached> {
        let child = self
            .command(port)?
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let pid = child.id().context("the process ended at once")?;
        Ok(Detached { pid, url: url(port), log: self.log() })
    }
}

impl Detached {
    /// Returns whether it takes commands, or else why not.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub async fn is_ready(&self) -> Result<Result<(), String>> {
        Ok(ask_ready(&http()?, &self.url).await)
    }

    /// Returns the path and the last lines of its log, to be appended to an error.
    #[must_use]
    pub fn last_words(&self) -> String {
        last_words(&self.log)
    }
}

pub(super) fn url(port: &Port) -> String {
    format!("http://127.0.0.1:{}", port.number())
}

pub(super) fn http() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build()
}

/// Sends `GET /health/ready`; if that is not a success, returns what was answered.
pub(super) async fn ask_ready(http: &reqwest::Client, url: &str) -> Result<(), String> {
    match http.get(format!("{url}/health/ready")).send().await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(format!("it answers {}", answer.text().await.unwrap_or_default())),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

pub(super) fn last_words(log: &Path) -> String {
    let text =
        fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    format!("; the end of {}:\n{last}", log.display())
}
