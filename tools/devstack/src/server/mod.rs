//! What Kafka and Postgres have in common as servers: a folder, ports, and a process that is
//! started and stopped.
//!
//! The folder of a server has `data/`, `server.log` and `server.json` (its process id and ports,
//! for later processes).

mod launch;
mod own;
mod ports;
mod process;
mod shared;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

pub(crate) use launch::Launch;
pub(crate) use own::OwnServer;
pub use ports::Port;
pub(crate) use process::Process;
pub(crate) use shared::{running, start_shared, stop_shared};

use crate::wait;

pub(crate) const LOG: &str = "server.log";
pub(crate) const DATA: &str = "data";
const STATE: &str = "server.json";
const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// A kind of server: what differs between Kafka and Postgres.
pub(crate) trait Kind {
    const NAME: &'static str;
    /// Number of ports; clients use the first.
    const PORTS: usize;
    /// The signal for a clean stop.
    const STOP: Signal;

    /// Prepares the folder for a start, whatever an earlier run left there.
    async fn prepare(&self, folder: &Path, ports: &[u16]) -> Result<Launch>;

    /// Sends the server a request, as a client would.
    async fn probe(port: u16) -> Result<()>;
}

/// The content of `server.json`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct State {
    pub(crate) pid: i32,
    pub(crate) ports: Vec<u16>,
}

impl State {
    fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(STATE)).ok()?).ok()
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let partial = folder.join("server.json.partial");
        fs::write(&partial, serde_json::to_vec(self)?)?;
        Ok(fs::rename(partial, folder.join(STATE))?)
    }
}

/// Creates the folder of a server, checks that no server is running in it, and reserves the ports
/// that it had before if they are free.
async fn take_folder<K: Kind>(folder: &Path) -> Result<(PathBuf, Vec<ports::Port>)> {
    crate::folders::create_ours(folder)?;
    let folder = folder.canonicalize()?;
    let before = State::read(&folder).unwrap_or_default();
    let last = Process::new(before.pid, &folder);

    // The guard of an owner that was just killed may still be ending the server.
    let gone =
        wait::until(Duration::from_secs(5), "", || async { Ok((!last.is_alive()).then_some(())) })
            .await;
    if gone.is_err() {
        bail!("{} is already running in {} as process {}", K::NAME, folder.display(), before.pid);
    }
    last.kill_all().await?; // orphans of a killed Postgres still use its data

    let ports = (0..K::PORTS)
        .map(|i| ports::Port::reserve(before.ports.get(i).copied()))
        .collect::<Result<_>>()?;

    Ok((folder, ports))
}

/// Waits until the server answers clients.
async fn ready<K: Kind>(process: &Process, folder: &Path, port: u16) -> Result<()> {
    let log = folder.join(LOG);
    let last_error = Mutex::new(None);
    let answer = wait::until(READY_TIMEOUT, "an answer", || async {
        if !process.runs() {
            bail!("{} exited while it was starting:\n{}", K::NAME, tail(&log));
        }
        if !ports::accepts(port).await {
            return Ok(None);
        }
        let error = K::probe(port).await.err();
        let answered = error.is_none().then_some(());
        *last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        Ok(answered)
    });

    answer.await.with_context(|| {
        let last_error = last_error.into_inner().unwrap_or_else(PoisonError::into_inner);
        let error = last_error.map(|error| format!(": {error:#}")).unwrap_or_default();
        format!("{} does not answer on port {port}{error} (log: {})", K::NAME, log.display())
    })
}

fn tail(log: &Path) -> String {
    let text =
        fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(8).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
