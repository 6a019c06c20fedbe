//! A Kafka broker, or a cluster of three, that one process owns.

mod broker;
mod cluster;
mod programs;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub(crate) use broker::Kafka;
#[cfg(feature = "docker")]
pub(crate) use broker::TUNING;
pub use cluster::KafkaCluster;

use crate::proxy::Proxy;
use crate::server::{OwnServer, Port};

pub(crate) fn bootstrap(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// An additional listener of a broker, for clients that connect through a proxy: the advertised
/// port is that of the proxy.
pub struct Listener {
    name: String,
    port: Port,
    proxy: Proxy,
}

impl Listener {
    /// A listener behind a proxy. `name` may only have letters.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn new(name: &str) -> Result<Self> {
        let port = Port::reserve(None)?;
        let proxy = Proxy::to(port.number()).await?;
        Ok(Self { name: name.to_uppercase(), port, proxy })
    }

    /// The proxy, to which clients connect.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}

/// A Kafka broker that this process owns. It is killed when this value is dropped, or when the
/// process dies for any reason.
///
/// A killed broker takes about 4 seconds to start again, because its controller first waits until
/// the session of the dead broker ends.
pub struct KafkaServer {
    server: OwnServer<Kafka>,
    bootstrap: String,
}

impl KafkaServer {
    /// Starts a broker in a temporary folder, which is removed with this value (unless the thread
    /// panics or `REEL_KEEP` is set).
    ///
    /// # Errors
    /// If there is no Java 17 or Maven, or the broker does not start; the message names its log.
    pub async fn temporary() -> Result<Self> {
        Self::temporary_with(&[]).await
    }

    /// As [`Self::temporary`], with additional properties that override ours:
    /// `&[("message.max.bytes", "2000000")]`.
    ///
    /// # Errors
    /// As [`Self::temporary`].
    pub async fn temporary_with(properties: &[(&str, &str)]) -> Result<Self> {
        Ok(Self::new(OwnServer::temporary(kind(properties)).await?))
    }

    /// As [`Self::temporary`], for benchmarks: with Java's full compiler, which makes the broker
    /// faster and its start slower.
    ///
    /// # Errors
    /// As [`Self::temporary`].
    pub async fn for_benchmarks() -> Result<Self> {
        Ok(Self::new(OwnServer::temporary(Kafka { jit: programs::Jit::Full, ..kind(&[]) }).await?))
    }

    /// Starts a broker in this folder, with the data and the ports of an earlier start if there was
    /// one. The folder is kept.
    ///
    /// # Errors
    /// As [`Self::temporary`]; also if a broker is already running there.
    pub async fn start(folder: impl AsRef<Path>, properties: &[(&str, &str)]) -> Result<Self> {
        Ok(Self::new(OwnServer::in_folder(kind(properties), folder.as_ref()).await?))
    }

    /// As [`Self::start`], with additional listeners, one for each group of clients.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_behind(folder: impl AsRef<Path>, listeners: &[&Listener]) -> Result<Self> {
        let ports = listeners
            .iter()
            .map(|listener| (listener.name.clone(), listener.port.number(), listener.proxy.port()));
        let mut kind = kind(&[]);
        kind.proxied_listeners = ports.collect();
        Ok(Self::new(OwnServer::in_folder(kind, folder.as_ref()).await?))
    }

    fn new(server: OwnServer<Kafka>) -> Self {
        let bootstrap = bootstrap(server.port());
        Self { server, bootstrap }
    }

    /// The bootstrap servers, for clients. They stay the same across restarts.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The broker's log.
    pub fn log(&self) -> PathBuf {
        self.server.log()
    }

    /// Stops the broker cleanly.
    ///
    /// # Errors
    /// If it is not running, or does not stop within 30 seconds.
    pub async fn stop(&mut self) -> Result<()> {
        self.server.stop().await
    }

    /// Kills the broker (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// If it is not running.
    pub async fn kill(&mut self) -> Result<()> {
        self.server.kill().await
    }

    /// Starts the stopped or killed broker again, with the same data and ports.
    ///
    /// # Errors
    /// If it is running, or does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.server.restart().await
    }

    /// The folder of the log of a partition, for tests that damage it while the broker is stopped.
    ///
    /// # Errors
    /// If the broker is running.
    pub fn partition_at_rest(&self, topic: &str, partition: i32) -> Result<PathBuf> {
        Ok(self.server.data_at_rest()?.join(format!("{topic}-{partition}")))
    }

    /// Adds or removes ACLs by Kafka's `AclCommand`, with arguments such as
    /// `["--add", "--topic", "orders", ...]`. The broker must have an authorizer.
    ///
    /// # Errors
    /// If the command fails, with its output.
    pub async fn acls(&self, args: &[&str]) -> Result<()> {
        let programs = programs::Programs::find().await?;
        let class = "org.apache.kafka.tools.AclCommand";
        let mut java = tokio::process::Command::new(&programs.java);
        java.args(programs.args(programs::Jit::Quick, "-Xshare:auto".to_owned(), class))
            .args(["--bootstrap-server", self.bootstrap(), "--force"])
            .args(args);

        let output = java.output().await?;
        let text = [output.stdout, output.stderr].concat();
        anyhow::ensure!(
            output.status.success(),
            "{class} {args:?} failed: {}",
            String::from_utf8_lossy(&text).trim()
        );
        Ok(())
    }

    /// Pauses the broker (SIGSTOP): connections stay open, but get no answer.
    ///
    /// # Errors
    /// If it is not running.
    pub fn pause(&self) -> Result<()> {
        self.server.pause()
    }

    /// Resumes a paused broker.
    ///
    /// # Errors
    /// If it is not running.
    pub fn resume(&self) -> Result<()> {
        self.server.resume()
    }
}

fn kind(properties: &[(&str, &str)]) -> Kafka {
    Kafka::new(properties.iter().map(|(name, value)| format!("{name}={value}")).collect())
}
