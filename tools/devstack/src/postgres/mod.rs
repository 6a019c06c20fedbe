//! A Postgres server that one process owns.

mod cluster;
mod programs;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

pub(crate) use cluster::Postgres;
#[cfg(feature = "docker")]
pub(crate) use cluster::SETTINGS;

use crate::folders;
use crate::server::OwnServer;

pub(crate) fn url(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres")
}

/// A Postgres server that this process owns. It is killed when this value is dropped, or when the
/// process dies for any reason.
pub struct PostgresServer {
    server: OwnServer<Postgres>,
    url: String,
}

impl PostgresServer {
    /// Starts a server in a temporary folder, which is removed with this value (unless the thread
    /// panics or `REEL_KEEP` is set).
    ///
    /// # Errors
    /// If there is no Postgres 15 or newer, or the server does not start; the message names its
    /// log.
    pub async fn temporary() -> Result<Self> {
        Self::temporary_with(&[]).await
    }

    /// As [`Self::temporary`], with additional settings that override ours:
    /// `&[("wal_level", "logical")]`.
    ///
    /// # Errors
    /// As [`Self::temporary`].
    pub async fn temporary_with(settings: &[(&str, &str)]) -> Result<Self> {
        Ok(Self::new(OwnServer::temporary(kind(settings)).await?))
    }

    /// Starts a server in this folder, with the data and the port of an earlier start if there was
    /// one. The folder is kept.
    ///
    /// # Errors
    /// As [`Self::temporary`]; also if a server already runs there, or if we are root and the
    /// unprivileged user that the server runs as cannot enter the folder.
    pub async fn start(folder: impl AsRef<Path>, settings: &[(&str, &str)]) -> Result<Self> {
        Ok(Self::new(OwnServer::in_folder(kind(settings), folder.as_ref()).await?))
    }

    fn new(server: OwnServer<Postgres>) -> Self {
        let url = url(server.port());
        Self { server, url }
    }

    /// The URL of the superuser and the database `postgres`. It stays the same across restarts.
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

    /// Stops the server cleanly; its sessions are ended.
    ///
    /// # Errors
    /// If it is not running, or does not stop within 30 seconds.
    pub async fn stop(&mut self) -> Result<()> {
        self.server.stop().await
    }

    /// Kills the server and all its children (SIGKILL), and waits until they are gone.
    ///
    /// # Errors
    /// If it is not running.
    pub async fn kill(&mut self) -> Result<()> {
        self.server.kill().await
    }

    /// Starts the stopped or killed server again, with the same data and port.
    ///
    /// # Errors
    /// If it is running, or does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.server.restart().await
    }

    /// Pauses all processes of the server (SIGSTOP): connections stay open, but get no answer.
    ///
    /// # Errors
    /// If it is not running.
    pub fn pause(&self) -> Result<()> {
        self.server.pause()
    }

    /// Resumes a paused server.
    ///
    /// # Errors
    /// If it is not running.
    pub fn resume(&self) -> Result<()> {
        self.server.resume()
    }

    /// Copies the data of the stopped server to `path`, which must not exist.
    ///
    /// # Errors
    /// If the server is running, or the copy cannot be written.
    pub async fn copy_to(&self, path: impl AsRef<Path>) -> Result<()> {
        anyhow::ensure!(!path.as_ref().exists(), "{} already exists", path.as_ref().display());
        folders::copy(&self.server.data_at_rest()?, path.as_ref()).await
    }

    /// Replaces the data of the stopped server by a copy that [`Self::copy_to`] made; the copy is
    /// kept.
    ///
    /// # Errors
    /// If the server is running, or the copy cannot be read.
    pub async fn restore_from(&self, path: impl AsRef<Path>) -> Result<()> {
        let data = self.server.data_at_rest()?;
        anyhow::ensure!(
            path.as_ref().join("PG_VERSION").exists(),
            "{} is not a copy of a database",
            path.as_ref().display()
        );
        fs::remove_dir_all(&data)?;
        folders::copy(path.as_ref(), &data).await
    }
}

fn kind(settings: &[(&str, &str)]) -> Postgres {
    Postgres { settings: settings.iter().map(|(name, value)| format!("{name}={value}")).collect() }
}
