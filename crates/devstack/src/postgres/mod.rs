//! A Postgres server of one's own.

mod cluster;
mod programs;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

pub(crate) use cluster::{Postgres, SETTINGS};

use crate::folders;
use crate::server::OwnServer;

pub(crate) fn url(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres")
}

/// A Postgres server that belongs to this process: it is killed when this value is dropped or the process dies, however.
pub struct PostgresServer {
    server: OwnServer<Postgres>,
    url: String,
}

impl PostgresServer {
    /// Starts a server in a folder of its own, which is removed at the end (unless the thread panics or `REEL_KEEP` is set).
    ///
    /// # Errors
    /// If there is no Postgres 15 or newer, or the server does not start; the message names its log.
    pub async fn temporary() -> Result<Self> {
        Self::temporary_with(&[]).await
    }

    /// The same with further settings, which win over ours: `&[("wal_level", "logical")]`.
    ///
    /// # Errors
    /// As [`Self::temporary`].
    pub async fn temporary_with(settings: &[(&str, &str)]) -> Result<Self> {
        Ok(Self::new(OwnServer::temporary(kind(settings)).await?))
    }

    /// Starts a server in this folder, on the data and the port that are there from an earlier start, if any. The folder stays.
    ///
    /// # Errors
    /// As [`Self::temporary`]; also if a server already runs there, or if we are root and the unprivileged user that the
    /// server runs as cannot enter the folder.
    pub async fn start(folder: impl AsRef<Path>, settings: &[(&str, &str)]) -> Result<Self> {
        Ok(Self::new(OwnServer::in_folder(kind(settings), folder.as_ref()).await?))
    }

    fn new(server: OwnServer<Postgres>) -> Self {
        let url = url(server.port());
        Self { server, url }
    }

    /// The superuser's address, of the database `postgres`. It stays the same over restarts.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.server.log()
    }

    /// Stops the server cleanly; sessions are cut.
    ///
    /// # Errors
    /// If it does not run, or does not stop in 30 seconds.
    pub async fn stop(&mut self) -> Result<()> {
        self.server.stop().await
    }

    /// Kills the server and all its children by SIGKILL, and returns when they are gone.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.server.kill().await
    }

    /// Starts the stopped or killed server on the same data and the same port.
    ///
    /// # Errors
    /// If it runs, or does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        self.server.start_again().await
    }

    /// Stops all of the server's processes where they are (SIGSTOP); connections stay open and get no answer.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self) -> Result<()> {
        self.server.pause()
    }

    /// Lets a paused server go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self) -> Result<()> {
        self.server.resume()
    }

    /// Copies the data of the stopped server to `path`, which must not exist.
    ///
    /// # Errors
    /// If the server runs, or the copy cannot be written.
    pub async fn copy_to(&self, path: impl AsRef<Path>) -> Result<()> {
        anyhow::ensure!(!path.as_ref().exists(), "{} exists already", path.as_ref().display());
        folders::copy(&self.server.data_at_rest()?, path.as_ref()).await
    }

    /// Puts the stopped server back to what [`Self::copy_to`] has copied; the copy stays.
    ///
    /// # Errors
    /// If the server runs, or the copy cannot be read.
    pub async fn restore_from(&self, path: impl AsRef<Path>) -> Result<()> {
        let data = self.server.data_at_rest()?;
        anyhow::ensure!(path.as_ref().join("PG_VERSION").exists(), "{} is no copy", path.as_ref().display());
        fs::remove_dir_all(&data)?;
        folders::copy(path.as_ref(), &data).await
    }
}

fn kind(settings: &[(&str, &str)]) -> Postgres {
    Postgres { settings: settings.iter().map(|(name, value)| format!("{name}={value}")).collect() }
}
