//! A server that one test or one process owns, and that dies with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::launch::Guard;
use super::ports::Port;
use super::{DATA, Kind, LOG, Process, State, ready, take_folder};
use crate::folders;

pub(crate) struct OwnServer<K: Kind> {
    pub(crate) kind: K,
    folder: PathBuf,
    ports: Vec<Port>,
    running: Option<(Process, Guard)>,
    /// The lock on a temporary folder, which is removed with this value.
    temporary: Option<File>,
}

impl<K: Kind> OwnServer<K> {
    pub(crate) async fn temporary(kind: K) -> Result<Self> {
        Self::reserved(kind).await?.started().await
    }

    pub(crate) async fn in_folder(kind: K, folder: &Path) -> Result<Self> {
        Self::take(kind, folder, None).await?.started().await
    }

    /// Reserves a temporary folder and ports without starting the server, for a cluster whose
    /// members must know the ports of all others.
    pub(crate) async fn reserved(kind: K) -> Result<Self> {
        let (folder, lock) = folders::temporary(K::NAME)?;
        Self::take(kind, &folder, Some(lock)).await
    }

    async fn take(kind: K, folder: &Path, temporary: Option<File>) -> Result<Self> {
        let (folder, ports) = take_folder::<K>(folder).await?;
        Ok(Self { kind, folder, ports, running: None, temporary })
    }

    /// Starts a reserved server.
    pub(crate) async fn started(mut self) -> Result<Self> {
        if let Err(error) = self.restart().await {
            self.keep();
            return Err(error);
        }
        Ok(self)
    }

    pub(crate) async fn restart(&mut self) -> Result<()> {
        if self.running.is_some() {
            bail!("{} is already running: stop or kill it first", K::NAME);
        }
        let ports = self.ports();
        let launch = self.kind.prepare(&self.folder, &ports).await?;
        let (process, guard) = launch.owned(&self.folder)?;
        State { pid: process.pid, ports }.write(&self.folder)?;
        self.running = Some((process.clone(), guard));
        ready::<K>(&process, &self.folder, self.port()).await
    }

    pub(crate) async fn stop(&mut self) -> Result<()> {
        let (process, guard) =
            self.running.take().with_context(|| format!("{} is not running", K::NAME))?;
        process.signal_all(Signal::SIGCONT)?;
        process.signal(K::STOP)?;
        process.ended().await?;
        guard.end();
        Ok(())
    }

    pub(crate) async fn kill(&mut self) -> Result<()> {
        let (process, guard) =
            self.running.take().with_context(|| format!("{} is not running", K::NAME))?;
        process.kill_all().await?;
        guard.end();
        Ok(())
    }

    pub(crate) fn pause(&self) -> Result<()> {
        self.process()?.signal_all(Signal::SIGSTOP)
    }

    pub(crate) fn resume(&self) -> Result<()> {
        self.process()?.signal_all(Signal::SIGCONT)
    }

    /// The data folder of a stopped server.
    pub(crate) fn data_at_rest(&self) -> Result<PathBuf> {
        if self.running.is_some() {
            bail!("{} is running: stop or kill it before you use its data", K::NAME);
        }
        Ok(self.folder.join(DATA))
    }

    pub(crate) fn port(&self) -> u16 {
        self.ports[0].number()
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.ports.iter().map(Port::number).collect()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join(LOG)
    }

    fn process(&self) -> Result<&Process> {
        Ok(&self.running.as_ref().with_context(|| format!("{} is not running", K::NAME))?.0)
    }

    /// Keeps a temporary folder, so that somebody can read the log.
    fn keep(&mut self) {
        if self.temporary.take().is_some() {
            let _ = folders::keep(&self.folder);
            crate::progress(&format!("the log of {} is {}", K::NAME, self.log().display()));
        }
    }
}

impl<K: Kind> Drop for OwnServer<K> {
    fn drop(&mut self) {
        if let Some((process, guard)) = self.running.take() {
            guard.end();
            let _ = process.signal_all(Signal::SIGKILL);
        }

        if std::thread::panicking() || std::env::var_os("REEL_KEEP").is_some() {
            self.keep();
        }
        if self.temporary.is_some() && fs::remove_dir_all(&self.folder).is_err() {
            // A child that was just killed may have written into it; by now it is gone.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
