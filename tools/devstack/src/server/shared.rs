//! A server that outlives the process that started it, and is found by later ones.

use std::path::Path;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{Kind, Process, State, ready, take_folder};

/// The server that is running in this folder, if any.
pub(crate) fn running(folder: &Path) -> Option<State> {
    let state = State::read(folder)?;
    Process::new(state.pid, &folder.canonicalize().ok()?).is_alive().then_some(state)
}

/// The server of this folder, which is started unless it is running. The caller holds a lock, so
/// that only one process starts it.
pub(crate) async fn start_shared<K: Kind>(kind: K, folder: &Path) -> Result<State> {
    if let Some(state) = running(folder) {
        let process = Process::new(state.pid, &folder.canonicalize()?);
        let answer = ready::<K>(&process, folder, state.ports[0]).await;
        if process.is_alive() {
            return answer.map(|()| state);
        }

        // It was already ending when we found it: start another one.
    }

    let (folder, ports) = take_folder::<K>(folder).await?;
    let ports: Vec<_> = ports.iter().map(super::Port::number).collect();
    let process = kind.prepare(&folder, &ports).await?.shared(&folder)?;
    let state = State { pid: process.pid, ports };
    state.write(&folder)?;
    ready::<K>(&process, &folder, state.ports[0]).await?;
    Ok(state)
}

/// Stops the server of this folder cleanly, or kills it if that takes too long. Returns whether it
/// was running.
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
