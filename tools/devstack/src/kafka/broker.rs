//! A node in the folder of a server: broker and controller (KRaft), alone or one of several, with a
//! data folder that is copied from a formatted template.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tokio::process::Command;

use super::programs::{Jit, Programs};
use crate::server::{DATA, Kind, Launch, OwnServer};
use crate::{folders, progress, topics};

/// Properties of a node that is alone. The voters are configured and not part of the data, so that
/// a formatted folder fits any port.
const SINGLE_NODE: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
";

/// Properties of all nodes. The default of `log.cleaner.dedupe.buffer.size` is 128 MB of heap. The
/// session is short, because a killed broker cannot come back before it has ended.
pub(crate) const TUNING: &str = "\
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=4194304
log.index.size.max.bytes=1048576
log.segment.delete.delay.ms=1000
";

/// Overrides for a cluster: all topics are on three nodes, and a write is acked once it is on two.
const CLUSTER: &str = "\
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
";

/// The cluster id in the template; each copy gets its own.
const TEMPLATE_ID: &str = "AAAAAAAAQACAAAAAAAAAAQ";

/// The place of a node in its cluster. All nodes know each other before any of them is started.
pub(crate) struct Member {
    pub(crate) cluster_id: String,
    pub(crate) node_id: usize,
    /// The ports of all controllers, by node id. Node ids count from 1.
    pub(crate) controllers: Vec<u16>,
}

pub(crate) struct Kafka {
    /// Additional properties, as `name=value`.
    pub(crate) properties: Vec<String>,
    /// Additional listeners behind proxies: name, port, and the advertised port.
    pub(crate) proxied_listeners: Vec<(String, u16, u16)>,
    /// The file to which the broker writes a class archive when it stops, if it is started for
    /// that.
    pub(super) archive_to: Option<PathBuf>,
    pub(super) jit: Jit,
    /// Its place in a cluster, if it is not alone.
    pub(crate) member: Option<Member>,
}

impl Kafka {
    pub(crate) fn new(properties: Vec<String>) -> Self {
        Self {
            properties,
            proxied_listeners: vec![],
            archive_to: None,
            jit: Jit::Quick,
            member: None,
        }
    }

    async fn archive_flag(&self, programs: &Programs) -> Result<String> {
        if let Some(archive) = &self.archive_to {
            return Ok(format!("-XX:ArchiveClassesAtExit={}", archive.display()));
        }

        // Boxed, because making the archive starts a broker, which calls this function again.
        Box::pin(folders::once(&programs.archive, make_archive)).await?;
        Ok(programs.use_archive())
    }

    /// The content of `server.properties`.
    fn server_properties(&self, folder: &Path, ports: &[u16]) -> String {
        let [clients, controller] = [ports[0], ports[1]];
        let data = folder.join(DATA);
        let (mut overrides, mut voters) = (String::new(), format!("1@127.0.0.1:{controller}"));
        if let Some(Member { node_id, controllers, .. }) = &self.member {
            overrides = format!("node.id={node_id}\n{CLUSTER}");
            voters = controllers
                .iter()
                .zip(1..)
                .map(|(port, id)| format!("{id}@127.0.0.1:{port}"))
                .collect::<Vec<_>>()
                .join(",");
        }

        let (mut protocols, mut listeners, mut advertised) =
            (String::new(), String::new(), String::new());
        for (name, port, proxy) in &self.proxied_listeners {
            let _ = write!(protocols, ",{name}:PLAINTEXT");
            let _ = write!(listeners, ",{name}://127.0.0.1:{port}");
            let _ = write!(advertised, ",{name}://127.0.0.1:{proxy}");
        }

        format!(
            "{SINGLE_NODE}{TUNING}{overrides}log.dirs={}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}\n\
             listeners=PLAINTEXT://127.0.0.1:{clients},\
             CONTROLLER://127.0.0.1:{controller}{listeners}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{clients}{advertised}\n\
             controller.quorum.voters={voters}\n{}\n",
            data.display(),
            self.properties.join("\n"),
        )
    }

    /// The content of `meta.properties`: the owner of a data folder. No two nodes of a cluster may
    /// have the same directory id.
    fn meta_properties(&self) -> String {
        let (cluster, node) = self
            .member
            .as_ref()
            .map_or((random_id(), 1), |member| (member.cluster_id.clone(), member.node_id));
        format!("version=1\ncluster.id={cluster}\nnode.id={node}\ndirectory.id={}\n", random_id())
    }
}

impl Kind for Kafka {
    const NAME: &'static str = "kafka";
    /// One port for clients, and one for the controller.
    const PORTS: usize = 2;
    const STOP: Signal = Signal::SIGTERM;

    async fn prepare(&self, folder: &Path, ports: &[u16]) -> Result<Launch> {
        let programs = Programs::find().await?;
        let data = folder.join(DATA);
        let formatted = formatted(&programs).await?;
        if !data.join("meta.properties").exists() {
            let _ = fs::remove_dir_all(&data); // of an interrupted copy
            folders::copy(&formatted, &data).await?;
            fs::write(data.join("meta.properties"), self.meta_properties())?;
        }

        let properties = folder.join("server.properties");
        fs::write(&properties, self.server_properties(folder, ports))?;
        let mut args = programs.args(self.jit, self.archive_flag(&programs).await?, "kafka.Kafka");
        args.push(properties.into());
        Ok(Launch { program: programs.java, args, user: None, end_signal: Signal::SIGKILL })
    }

    async fn probe(port: u16) -> Result<()> {
        topics::could_be_created(&super::bootstrap(port)).await
    }
}

/// Makes a class archive by starting a broker and stopping it.
async fn make_archive(archive: PathBuf) -> Result<()> {
    progress("making Kafka's class archive (once)");
    let kafka = Kafka { archive_to: Some(archive.clone()), ..Kafka::new(vec![]) };
    let mut server = OwnServer::temporary(kafka).await?;
    server.stop().await?;
    let log = server.log();
    fs::metadata(&archive)
        .map(drop)
        .with_context(|| format!("kafka has not written a class archive (log: {})", log.display()))
}

/// A formatted, empty data folder, made once per version.
async fn formatted(programs: &Programs) -> Result<PathBuf> {
    let cached = programs.jars.with_file_name("formatted");
    folders::once(&cached, |partial: PathBuf| async move {
        let properties = partial.with_extension("properties");
        let roles = SINGLE_NODE
            .replace("broker,controller", "controller")
            .replace("inter.broker.listener.name=PLAINTEXT\n", "");
        let controller = format!(
            "log.dirs={}\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT\n\
             listeners=CONTROLLER://127.0.0.1:1\n\
             controller.quorum.voters=1@127.0.0.1:1\n",
            partial.display()
        );
        fs::write(&properties, roles + &controller)?;

        let mut java = Command::new(&programs.java);
        let class = "kafka.tools.StorageTool";
        java.args(programs.args(Jit::Quick, "-Xshare:auto".to_owned(), class));
        java.args(["format", "-t", TEMPLATE_ID, "-c"]).arg(&properties);
        let output = java.output().await?;
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            bail!("kafka cannot format its data folder: {}", String::from_utf8_lossy(&text).trim());
        }

        Ok(fs::remove_file(properties)?)
    })
    .await?;
    Ok(cached)
}

/// A random id as Kafka expects it: 16 bytes in base64url. The last of the 22 characters has only
/// two bits.
pub(crate) fn random_id() -> String {
    (0..21).map(|_| fastrand::alphanumeric()).chain(['A']).collect()
}
