//! The process of a ledger.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use devstack::Port;
use orderctl::system::peak_memory_kib;
use reel::kafka::KafkaConfig;
use tokio::process::{Child, Command};

use super::PARTITIONS;
use crate::ledger::{Acked, LoadOutcome, LoadSpec};

const PROGRAM: &str = "bench-ledger";
/// Recovery of ten million events takes minutes.
const READY_TIMEOUT: Duration = Duration::from_mins(30);
const POLL_INTERVAL: Duration = Duration::from_millis(2);
const LOG_LINES: usize = 12;

/// A running ledger. It is killed when this value is dropped, and exits when this process does.
pub struct Ledger {
    child: Child,
    url: String,
    http: reqwest::Client,
    log: PathBuf,
    launched_at: Instant,
    _port: Port,
}

impl Ledger {
    pub(super) fn launch(
        database_url: &str,
        kafka: &KafkaConfig,
        log: &Path,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name(PROGRAM);
        let port = Port::reserve(None)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        let file = OpenOptions::new().create(true).append(true).open(log)?;

        let mut command = Command::new(&program);
        command
            .env("DATABASE_URL", database_url)
            .env("KAFKA_BROKERS", &kafka.brokers)
            .env("TOPIC_PREFIX", &kafka.prefix);
        command
            .env("HTTP_ADDRESS", address.to_string())
            .env("INSTANCE_ID", PROGRAM)
            .env("NO_COLOR", "1")
            .env("AUTH", "off");
        command.envs(settings.iter().copied());

        // The ledger exits when this pipe is closed, even if that is because we died.
        command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);

        let launched_at = Instant::now();
        let child = command.spawn().with_context(|| {
            format!("cannot start {}: run cargo build --package bench", program.display())
        })?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://{address}");
        Ok(Self { child, url, http, log: log.to_owned(), launched_at, _port: port })
    }

    /// Waits until it accepts commands.
    ///
    /// # Errors
    /// If the process ends, or does not become ready.
    pub async fn ready(&mut self) -> Result<()> {
        self.answered(reqwest::Method::GET, "/health/ready").await
    }

    /// Sends a command until it succeeds, and returns the time since the launch.
    ///
    /// # Errors
    /// If the process ends, or the command never succeeds.
    pub async fn first_step(&mut self) -> Result<Duration> {
        self.answered(reqwest::Method::POST, "/notes").await?;
        Ok(self.launched_at.elapsed())
    }

    /// Waits until all its lanes are open, and returns the time since the launch.
    ///
    /// # Errors
    /// If the process ends, or a lane stays closed.
    pub async fn all_lanes_open(&mut self) -> Result<Duration> {
        loop {
            self.answered(reqwest::Method::GET, "/health/ready").await?;
            let health = self.http.get(format!("{}/health/ready", self.url)).send().await?;
            let health: serde_json::Value = health.json().await?;
            if health["lanes"]["open"] == PARTITIONS {
                return Ok(self.launched_at.elapsed());
            }
            self.within_limit()?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Runs a load of commands, which are made inside its process.
    ///
    /// # Errors
    /// If a command is refused.
    pub async fn load(&self, spec: LoadSpec) -> Result<()> {
        let LoadSpec { rate, count } = spec;
        let path = format!("{}/load?rate={rate}&count={count}", self.url);
        let loaded: LoadOutcome =
            self.http.post(path).send().await?.error_for_status()?.json().await?;
        anyhow::ensure!(
            loaded.refused == 0,
            "{} of {count} commands were refused at {rate}/s{}",
            loaded.refused,
            log_tail(&self.log)
        );
        Ok(())
    }

    /// The acks since the last call, if the process was started with `REMEMBER_ACKS`.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn acks(&self) -> Result<Vec<Acked>> {
        Ok(self
            .http
            .get(format!("{}/acks", self.url))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }

    /// Peak memory of the process, in MiB.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn peak_memory_mib(&self) -> Result<f64> {
        memory_mib(self.child.id().context("the ledger has ended")?)
    }

    /// Kills it (SIGKILL), and returns when it is gone.
    ///
    /// # Errors
    /// If its exit status cannot be read.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    async fn answered(&mut self, method: reqwest::Method, path: &str) -> Result<()> {
        let url = format!("{}{path}", self.url);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the ledger ended with {status}{}", log_tail(&self.log));
            }
            let answer = self.http.request(method.clone(), &url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            self.within_limit()?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn within_limit(&self) -> Result<()> {
        anyhow::ensure!(
            self.launched_at.elapsed() <= READY_TIMEOUT,
            "the ledger was not ready in {READY_TIMEOUT:?}{}",
            log_tail(&self.log)
        );
        Ok(())
    }
}

/// Peak memory of a process, in MiB.
///
/// # Errors
/// If the process has ended.
pub(crate) fn memory_mib(pid: u32) -> Result<f64> {
    Ok(peak_memory_kib(pid)? as f64 / 1024.0)
}

/// The end of a log, to append to an error message.
pub(super) fn log_tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("; its log ends:\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
}
