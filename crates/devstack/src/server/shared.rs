//! A server that outlives its starter, and is found by those who come later.

use std::path::Path;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{Kind, Process, State, ready, take_folder};

/// The server that runs in this folder, if one does.
pub(crate) fn running(folder: &Path) -> Option<State> {
    let state = State::read(folder)?;
    Process::new(state.pid, &folder.canonicalize().ok()?).is_alive().then_some(state)
}

/// The server of this folder, started if it does not run. The caller holds a lock, so that only one does this.
pub(crate) async fn start_shared<K: Kind>(kind: K, folder: &Path) -> Result<State> {
    if let Some(state) = running(folder) {
        let process = Process::new(state.pid, &folder.canonicalize()?);
        let answer = ready::<K>(&process, folder, state.ports[0]).await;
        if process.is_alive() {
            return answer.map(|()| state);
        }
        // It was dying when we found it.
    }
    let (folder, ports) = take_folder::<K>(folder).await?;
    let ports: Vec<_> = ports.iter().map(|port| port.number).collect();
    let process = kind.prepare(&folder, &ports).await?.shared(&folder)?;
    let state = State { pid: process.pid, ports };
    state.write(&folder)?;
    ready::<K>(&process, &folder, state.ports[0]).await?;
    Ok(state)
}

/// Stops the server of this folder cleanly, by force if that does not work. Says whether one ran.
pub(crate) async fn stop_shared<K: Kind>(folder: &Path) -> Result<bool> {
    let Some(state) = running(folder) else { return Ok(false) };
    let process = Process::new(state.pid, &folder.canonicalize()?);
    process.signal_all(Signal::SIGCONT)?;
    process.signal(K::STOP)?;
    if process.ended().await.is_err() {
        process.kill_all().await?;
    }
    Ok(true)
}
