//! The file in which `up` writes down what runs.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};
use devstack::folders;
use serde::{Deserialize, Serialize};

use super::process::Process;
use crate::system::{Detached, Service};

const STATE: &str = "running.json";

/// The servers and replicas that run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Running {
    pub(super) kafka: String,
    pub(super) postgres: String,
    pub(super) replicas: Vec<Started>,
}

/// A replica that `up` started.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) service: Service,
    pub(super) name: String,
    pub(super) process: Process,
    pub(super) url: String,
    pub(super) log: PathBuf,
}

/// Returns the folder of the logs and of the file that says what runs, and makes it if needed.
pub(super) fn folder() -> Result<PathBuf> {
    let folder = folders::data()?.join("up");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Takes the lock that lets one `up` or `down` run at a time; dropping the file releases it.
pub(super) fn lock() -> Result<File> {
    let path = folder()?.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("orderctl: waiting for another `orderctl up` or `down`");
        file.lock().context("cannot lock")?;
    }
    Ok(file)
}

impl Running {
    /// Reads what was written last; empty if nothing was written yet.
    pub(super) fn read() -> Result<Self> {
        let path = folder()?.join(STATE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!("{} cannot be read: remove it, and stop what runs by hand", path.display())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub(super) fn write(&self) -> Result<()> {
        let path = folder()?.join(STATE);
        let partial = path.with_added_extension("partial");
        fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
        Ok(fs::rename(partial, path)?)
    }

    /// Returns the addresses of everything, and three requests to try with a token.
    pub(super) fn description(&self, token: &str) -> String {
        let mut text =
            format!("{:<12}{}\n{:<12}{}\n", "kafka", self.kafka, "postgres", self.postgres);
        for replica in &self.replicas {
            let Started { name, url, process, log, .. } = replica;
            let _ = writeln!(
                text,
                "{name:<12}{url}   process {}, log {}",
                process.pid(),
                log.display()
            );
        }

        let url = |service| {
            self.replicas
                .iter()
                .find(|replica| replica.service == service)
                .map_or("", |replica| replica.url.as_str())
        };
        let [order, payment, inventory] = Service::SAGA.map(url);
        let post = "curl -H \"Authorization: Bearer $TOKEN\" \
                    -H \"Idempotency-Key: $RANDOM$RANDOM\" \
                    -H 'Content-Type: application/json'";
        let _ = write!(
            text,
            r#"
try:
  TOKEN={token}
  {post} {payment}/accounts/anna/deposits -d '{{"amount": 10000, "currency": "EUR"}}'
  {post} {inventory}/stock/MUG/receipts -d '{{"quantity": 5}}'
  {post} {order}/orders -d '{{"customer": "anna", "lines": [{{"sku": "MUG", "quantity": 2}}]}}'"#
        );
        text
    }
}

impl Started {
    pub(super) fn new(service: Service, name: String, detached: Detached) -> Self {
        Self {
            service,
            name,
            process: Process::new(detached.pid),
            url: detached.url,
            log: detached.log,
        }
    }

    pub(super) fn detached(&self) -> Detached {
        Detached { pid: self.process.pid(), url: self.url.clone(), log: self.log.clone() }
    }
}
