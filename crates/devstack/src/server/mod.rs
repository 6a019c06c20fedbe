//! What Kafka and Postgres have in common as servers: a folder, ports, a process, and a life.
//!
//! A server's folder holds `data/`, `server.log` and `server.json` (process id and ports, for those who come later).

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
pub(crate) use ports::Port;
pub(crate) use process::Process;
pub(crate) use shared::{running, start_shared, stop_shared};

use crate::wait;

pub(crate) const LOG: &str = "server.log";
pub(crate) const DATA: &str = "data";
const STATE: &str = "server.json";
const READY_WITHIN: Duration = Duration::from_secs(90);

/// What differs between the kinds of servers.
pub(crate) trait Kind {
    const NAME: &'static str;
    /// How many ports it needs; clients use the first.
    const PORTS: usize;
    /// Asks the server to stop cleanly.
    const STOP: Signal;

    /// Makes the folder ready for a start, whatever an earlier run has left there.
    async fn prepare(&self, folder: &Path, ports: &[u16]) -> Result<Launch>;

    /// Asks the server something as a client does.
    async fn ask(port: u16) -> Result<()>;
}

/// What `server.json` says.
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

/// Makes the server's folder, checks that no server runs in it, and gives it the ports that it had before if they are free.
async fn take_folder<K: Kind>(folder: &Path) -> Result<(PathBuf, Vec<ports::Port>)> {
    crate::folders::make_ours(folder)?;
    let folder = folder.canonicalize()?;
    let before = State::read(&folder).unwrap_or_default();
    let last = Process::new(before.pid, &folder);
    // A guard whose owner was killed a moment ago may be at work on it.
    let gone = wait::until(Duration::from_secs(5), "", || async { Ok((!last.is_alive()).then_some(())) }).await;
    if gone.is_err() {
        bail!("{} of process {} already runs in {}", K::NAME, before.pid, folder.display());
    }
    last.kill_all().await?; // orphans of a killed Postgres hold on to its data
    let ports = (0..K::PORTS).map(|i| ports::Port::reserve(before.ports.get(i).copied())).collect::<Result<_>>()?;
    Ok((folder, ports))
}

/// Returns when a client gets an answer.
async fn ready<K: Kind>(process: &Process, folder: &Path, port: u16) -> Result<()> {
    let log = folder.join(LOG);
    let last_error = Mutex::new(None);
    let answer = wait::until(READY_WITHIN, "an answer", || async {
        if !process.runs() {
            bail!("{} ended while it started:\n{}", K::NAME, tail(&log));
        }
        if !ports::accepts(port).await {
            return Ok(None);
        }
        let error = K::ask(port).await.err();
        let answered = error.is_none().then_some(());
        *last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        Ok(answered)
    });
    answer.await.with_context(|| {
        let last_error = last_error.into_inner().unwrap_or_else(PoisonError::into_inner);
        let error = last_error.map(|error| format!(": {error:#}")).unwrap_or_default();
        format!("{} does not answer at port {port}{error} (log: {})", K::NAME, log.display())
    })
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(8).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
