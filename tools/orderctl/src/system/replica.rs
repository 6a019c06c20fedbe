//! A replica: a running process of a service.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use devstack::Port;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tokio::process::Child;

use super::Service;
use super::client::Directory;
use super::guard::Guard;
use super::launch::{self, Launch};

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// A process of a service. It is killed when this value is dropped, and when this process dies.
pub struct Replica {
    service: Service,
    name: String,
    pid: u32,
    url: String,
    log: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
    guard: Arc<Guard>,
    directory: Directory,
    _port: Port,
}

impl Replica {
    pub(super) fn start(
        launch: &Launch<'_>,
        guard: Arc<Guard>,
        directory: Directory,
    ) -> Result<Self> {
        let port = Port::reserve(None)?;
        let mut command = launch.command(&port)?;
        let child = command
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", launch.program.display()))?;
        let pid = child.id().context("the process ended at once")?;
        guard.add(pid)?;
        let url = launch::url(&port);
        directory.add(launch.service, &url);
        let (service, name, log) = (launch.service, launch.name.to_owned(), launch.log());
        Ok(Self { service, name, pid, url, log, child, ended: None, guard, directory, _port: port })
    }

    /// Returns its service.
    #[must_use]
    pub fn service(&self) -> Service {
        self.service
    }

    /// Returns its instance id.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the id of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns its address, `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the path of its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns what it has logged so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until it takes commands: `GET /health/ready` answers 200.
    ///
    /// # Errors
    /// If the process ends, or is not ready within a minute; with the last lines of its log.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let http = launch::http()?;
        let deadline = tokio::time::Instant::now() + READY_WITHIN;
        loop {
            if !self.is_running() {
                bail!("{} ended while it started{}", self.name, self.last_words());
            }
            let Err(reason) = launch::ask_ready(&http, &self.url).await else { return Ok(()) };
            if tokio::time::Instant::now() >= deadline {
                bail!(
                    "{} was not ready in {READY_WITHIN:?}: {reason}{}",
                    self.name,
                    self.last_words()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns whether the process runs (or is paused).
    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.has_ended(status);
        }
        self.ended.is_none()
    }

    /// Kills it at once (SIGKILL).
    ///
    /// # Errors
    /// If the process cannot be waited for.
    pub async fn kill(&mut self) -> Result<()> {
        if self.is_running() {
            self.directory.remove(self.service, &self.url);
            self.child.start_kill()?;
            let status = self.child.wait().await?;
            self.has_ended(status);
        }
        Ok(())
    }

    /// Stops it cleanly: sends SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// If it does not end within half a minute (it is killed then), or its exit code is not 0.
    pub async fn stop(&mut self) -> Result<()> {
        self.directory.remove(self.service, &self.url);
        self.signal(Signal::SIGTERM)?;
        let Some(status) = self.exited(STOPPED_WITHIN).await? else {
            self.kill().await?;
            bail!(
                "{} did not stop in {STOPPED_WITHIN:?} and was killed{}",
                self.name,
                self.last_words()
            );
        };
        anyhow::ensure!(
            status.success(),
            "{} ended with {status} when it was asked to stop{}",
            self.name,
            self.last_words()
        );
        Ok(())
    }

    /// Waits until the process ends by itself; `None` if it does not within the limit.
    ///
    /// # Errors
    /// If the process cannot be waited for.
    pub async fn exited(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        if self.is_running() {
            match tokio::time::timeout(limit, self.child.wait()).await {
                Ok(status) => self.has_ended(status?),
                Err(_) => return Ok(None),
            }
        }
        Ok(self.ended)
    }

    /// Pauses the process (SIGSTOP).
    ///
    /// # Errors
    /// If it has ended.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Resumes the process (SIGCONT).
    ///
    /// # Errors
    /// If it has ended.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Returns the path and the last lines of its log, to be appended to an error.
    #[must_use]
    pub fn last_words(&self) -> String {
        launch::last_words(&self.log)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            bail!("{} has ended{}", self.name, self.last_words());
        }
        kill(self.process()?, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    fn process(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.pid)?))
    }

    fn has_ended(&mut self, status: ExitStatus) {
        self.ended = Some(status);
        self.guard.remove(self.pid);
        self.directory.remove(self.service, &self.url);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.directory.remove(self.service, &self.url);
        // Wait for it, so that the guard never kills another process that is given the same id. The
        // wait is short, because a killed process ends at once.
        if self.is_running() && self.child.start_kill().is_ok() {
            let _ = self.process().map(|pid| waitpid(pid, None));
            self.guard.remove(self.pid);
        }
    }
}
