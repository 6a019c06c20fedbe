//! A Kafka broker of one's own, or a cluster of three.

mod broker;
mod cluster;
mod programs;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub(crate) use broker::{Kafka, TUNING};
pub use cluster::KafkaCluster;

use crate::proxy::Proxy;
use crate::server::{OwnServer, Port};

pub(crate) fn bootstrap(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A further listener of a broker, for clients that come by a proxy: they are told the proxy's port and not the listener's.
pub struct Listener {
    name: String,
    port: Port,
    proxy: Proxy,
}

impl Listener {
    /// A listener with a proxy before it; `name` is of letters.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn new(name: &str) -> Result<Self> {
        let port = Port::reserve(None)?;
        let proxy = Proxy::to(port.number).await?;
        Ok(Self { name: name.to_uppercase(), port, proxy })
    }

    /// Where its clients connect.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}

/// A Kafka broker that belongs to this process: it is killed when this value is dropped or the process dies, however.
///
/// A killed broker takes about 4 seconds to start again: its controller first waits for the session of the dead one to end.
pub struct KafkaServer {
    server: OwnServer<Kafka>,
    bootstrap: String,
}

impl KafkaServer {
    /// Starts a broker in a folder of its own, which is removed at the end (unless the thread panics or `REEL_KEEP` is set).
    ///
    /// # Errors
    /// If there is no Java 17 or Maven, or the broker does not start; the message names its log.
    pub async fn temporary() -> Result<Self> {
        Self::temporary_with(&[]).await
    }

    /// The same with further properties, which win over ours: `&[("message.max.bytes", "2000000")]`.
    ///
    /// # Errors
    /// As [`Self::temporary`].
    pub async fn temporary_with(properties: &[(&str, &str)]) -> Result<Self> {
        Ok(Self::new(OwnServer::temporary(kind(properties)).await?))
    }

    /// Starts a broker in a folder of its own whose speed is looked at: Java compiles it as well as it can, where others start quickly.
    ///
    /// # Errors
    /// As [`Self::temporary`].
    pub async fn to_measure() -> Result<Self> {
        Ok(Self::new(OwnServer::temporary(Kafka { compiled: programs::Compiled::Well, ..kind(&[]) }).await?))
    }

    /// Starts a broker in this folder, on the data and the ports that are there from an earlier start, if any. The folder stays.
    ///
    /// # Errors
    /// As [`Self::temporary`]; also if a broker already runs there.
    pub async fn start(folder: impl AsRef<Path>, properties: &[(&str, &str)]) -> Result<Self> {
        Ok(Self::new(OwnServer::in_folder(kind(properties), folder.as_ref()).await?))
    }

    /// The same with a listener for each of some groups of clients.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_behind(folder: impl AsRef<Path>, listeners: &[&Listener]) -> Result<Self> {
        let ports = listeners.iter().map(|listener| (listener.name.clone(), listener.port.number, listener.proxy.port()));
        let mut kind = kind(&[]);
        kind.behind = ports.collect();
        Ok(Self::new(OwnServer::in_folder(kind, folder.as_ref()).await?))
    }

    fn new(server: OwnServer<Kafka>) -> Self {
        let bootstrap = bootstrap(server.port());
        Self { server, bootstrap }
    }

    /// What a client takes as `bootstrap.servers`. It stays the same over restarts.
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
    /// If it does not run, or does not stop in 30 seconds.
    pub async fn stop(&mut self) -> Result<()> {
        self.server.stop().await
    }

    /// Kills the broker by SIGKILL, and returns when it is gone.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.server.kill().await
    }

    /// Starts the stopped or killed broker on the same data and the same ports.
    ///
    /// # Errors
    /// If it runs, or does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        self.server.start_again().await
    }

    /// Where the log of a partition lies, for who wants to damage it while the broker is stopped.
    ///
    /// # Errors
    /// If the broker runs.
    pub fn partition_at_rest(&self, topic: &str, partition: i32) -> Result<PathBuf> {
        Ok(self.server.data_at_rest()?.join(format!("{topic}-{partition}")))
    }

    /// Adds or removes access rules by Kafka's own `AclCommand`: `["--add", "--topic", "orders", ...]`. The broker must have been
    /// started with an authorizer.
    ///
    /// # Errors
    /// What the command says if it fails.
    pub async fn acls(&self, args: &[&str]) -> Result<()> {
        let programs = programs::Programs::find().await?;
        let class = "org.apache.kafka.tools.AclCommand";
        let mut java = tokio::process::Command::new(&programs.java);
        java.args(programs.args(programs::Compiled::Quickly, "-Xshare:auto".to_owned(), class))
            .args(["--bootstrap-server", self.bootstrap(), "--force"])
            .args(args);
        let output = java.output().await?;
        let said = [output.stdout, output.stderr].concat();
        anyhow::ensure!(output.status.success(), "{class} {args:?}: {}", String::from_utf8_lossy(&said).trim());
        Ok(())
    }

    /// Stops the broker where it is (SIGSTOP); connections stay open and get no answer.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self) -> Result<()> {
        self.server.pause()
    }

    /// Lets a paused broker go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self) -> Result<()> {
        self.server.resume()
    }
}

fn kind(properties: &[(&str, &str)]) -> Kafka {
    Kafka::new(properties.iter().map(|(name, value)| format!("{name}={value}")).collect())
}
