//! The ledger's process.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use orderctl::system::peak_memory_kib;
use reel::kafka::Kafka;
use tokio::process::{Child, Command};

use crate::ledger::{Acked, Loaded, Loading};

const PROGRAM: &str = "bench-ledger";
/// An opening of ten million events takes minutes.
const READY_WITHIN: Duration = Duration::from_mins(30);
const LOOK: Duration = Duration::from_millis(2);
const LOG_LINES: usize = 12;

/// A ledger that runs. It is killed when this value is dropped, and ends when this process does.
pub struct Ledger {
    child: Child,
    url: String,
    http: reqwest::Client,
    log: PathBuf,
    launched_at: Instant,
}

impl Ledger {
    pub(super) fn launch(database_url: &str, kafka: &Kafka, log: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name(PROGRAM);
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let file = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(&program);
        command.env("DATABASE_URL", database_url).env("KAFKA_BROKERS", &kafka.brokers).env("TOPIC_PREFIX", &kafka.prefix);
        command.env("HTTP_ADDRESS", address.to_string()).env("INSTANCE_ID", PROGRAM).env("NO_COLOR", "1").env("AUTH", "off");
        command.envs(settings.iter().copied());
        // Its stdin is ours to close, even by dying.
        command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
        let launched_at = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {}: run cargo build --package bench", program.display()))?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { child, url: format!("http://{address}"), http, log: log.to_owned(), launched_at })
    }

    /// Waits until it takes commands.
    ///
    /// # Errors
    /// Where its process ends, or it does not become ready.
    pub async fn ready(&mut self) -> Result<()> {
        self.answered(reqwest::Method::GET, "/health/ready").await
    }

    /// Has it note something, again and again until it does. Returns how long that is after the launch.
    ///
    /// # Errors
    /// Where its process ends, or it never does.
    pub async fn first_step(&mut self) -> Result<Duration> {
        self.answered(reqwest::Method::POST, "/notes").await?;
        Ok(self.launched_at.elapsed())
    }

    /// Has it note at a rate, by commands that are made inside its process.
    ///
    /// # Errors
    /// Where a command is refused.
    pub async fn load(&self, loading: Loading) -> Result<()> {
        let Loading { rate, count } = loading;
        let path = format!("{}/load?rate={rate}&count={count}", self.url);
        let loaded: Loaded = self.http.post(path).send().await?.error_for_status()?.json().await?;
        anyhow::ensure!(loaded.refused == 0, "{} of {count} commands were refused at {rate}/s{}", loaded.refused, last_words(&self.log));
        Ok(())
    }

    /// What was acked since it was last asked, if it was told to remember.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn acks(&self) -> Result<Vec<Acked>> {
        Ok(self.http.get(format!("{}/acks", self.url)).send().await?.error_for_status()?.json().await?)
    }

    /// The most memory that it has taken, in MiB.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn peak_memory_mib(&self) -> Result<f64> {
        memory_mib(self.child.id().context("the ledger has ended")?)
    }

    /// Kills it (SIGKILL), and returns when it is gone.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    async fn answered(&mut self, method: reqwest::Method, path: &str) -> Result<()> {
        let url = format!("{}{path}", self.url);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the ledger ended with {status}{}", last_words(&self.log));
            }
            let answer = self.http.request(method.clone(), &url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if self.launched_at.elapsed() > READY_WITHIN {
                bail!("the ledger was not ready in {READY_WITHIN:?}{}", last_words(&self.log));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The most memory that a process has taken, in MiB.
///
/// # Errors
/// Where it has ended.
pub(crate) fn memory_mib(pid: u32) -> Result<f64> {
    Ok(peak_memory_kib(pid)? as f64 / 1024.0)
}

/// How the log ends, to be put behind an error.
pub(super) fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("; its log ends:\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
}
