//! The machine and the versions of a run.

use std::fs;
use std::process::Command;

use anyhow::Result;
use devstack::OwnStack;
use serde::Serialize;
use sqlx::{Connection, PgConnection};

/// The machine and the versions of a run. Figures from different machines, or from a busy one, do
/// not compare; their ratios do.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    cores: usize,
    processor: Option<String>,
    memory_mib: Option<u64>,
    kernel: Option<String>,
    /// Load average of the last minute before the run.
    load_before: Option<f64>,
    postgres: String,
    kafka: Option<String>,
    librdkafka: String,
    commit: Option<String>,
    profile: &'static str,
}

impl Machine {
    /// Detects this machine, the servers of the stack, and the commit that is checked out.
    ///
    /// # Errors
    /// If Postgres is unreachable.
    pub async fn detect(stack: &OwnStack) -> Result<Self> {
        let mut connection = PgConnection::connect(stack.postgres.url()).await?;
        let postgres = sqlx::query_scalar("show server_version").fetch_one(&mut connection).await?;

        let memory_kib = line_of("/proc/meminfo", "MemTotal:")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            processor: line_of("/proc/cpuinfo", "model name")
                .map(|text| text.trim_start_matches([':', ' ', '\t']).to_owned()),
            memory_mib: memory_kib.map(|kib| kib / 1024),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .ok()
                .map(|text| text.trim().to_owned()),
            load_before: fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| text.split(' ').next()?.parse().ok()),
            postgres,
            kafka: kafka_version(stack),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            commit: commit(),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" },
        })
    }

    /// A summary in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let or_unknown =
            |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        format!(
            "{} cores of {}, {} MiB, postgres {}, kafka {}, commit {}, {} build, load before {:.1}",
            self.cores,
            or_unknown(&self.processor),
            self.memory_mib.unwrap_or(0),
            self.postgres,
            or_unknown(&self.kafka),
            or_unknown(&self.commit),
            self.profile,
            self.load_before.unwrap_or(0.0),
        )
    }
}

/// The rest of the first line of a file that begins with a name.
fn line_of(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned())
}

/// The version that the broker's log names.
fn kafka_version(stack: &OwnStack) -> Option<String> {
    let log = fs::read_to_string(stack.kafka.log()).ok()?;
    let version = log.lines().find_map(|line| line.split_once("Kafka version: "))?.1;
    version.split_whitespace().next().map(str::to_owned)
}

/// `git describe --always --dirty`, if this is a checkout and git is installed.
fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
