//! The broker in a server's folder: a node that is broker and controller (KRaft), alone or one of several, formatted from a template.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tokio::process::Command;

use super::programs::{Compiled, Programs};
use crate::server::{DATA, Kind, Launch, OwnServer};
use crate::{folders, say, topics};

/// Alone, and broker and controller. Voters are named here and not in the data, so that a formatted folder fits any port.
const PLACE: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
";

/// `log.cleaner.dedupe.buffer.size` is 128 MB of heap otherwise. A killed broker cannot come back before its session has
/// ended, hence the short one.
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

/// What is different where there are several nodes: Kafka's own topics are on three, and a write that counts is on two.
const AMONG_OTHERS: &str = "\
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
";

/// The cluster's id in the template; each copy gets its own.
const TEMPLATE_ID: &str = "AAAAAAAAQACAAAAAAAAAAQ";

/// A node's place among those of its cluster, which know each other before any of them runs.
pub(crate) struct Member {
    pub(crate) cluster_id: String,
    pub(crate) node_id: usize,
    /// The ports of all controllers, in the order of the node ids, which count from 1.
    pub(crate) controllers: Vec<u16>,
}

pub(crate) struct Kafka {
    /// Further properties, as `name=value`.
    pub(crate) properties: Vec<String>,
    /// Further listeners: the name, its port, and the port that clients are told.
    pub(crate) behind: Vec<(String, u16, u16)>,
    /// Where the broker writes a class archive when it stops, if it is the one that is started for that.
    pub(super) archive_to: Option<PathBuf>,
    pub(super) compiled: Compiled,
    /// Its place, if it is not alone.
    pub(crate) member: Option<Member>,
}

impl Kafka {
    pub(crate) fn new(properties: Vec<String>) -> Self {
        Self { properties, behind: vec![], archive_to: None, compiled: Compiled::Quickly, member: None }
    }

    async fn archive_flag(&self, programs: &Programs) -> Result<String> {
        if let Some(archive) = &self.archive_to {
            return Ok(format!("-XX:ArchiveClassesAtExit={}", archive.display()));
        }
        // Boxed, because making the archive starts a broker, which comes back here.
        Box::pin(folders::once(&programs.archive, make_archive)).await?;
        Ok(programs.use_archive())
    }

    fn text(&self, folder: &Path, ports: &[u16]) -> String {
        let [clients, controller] = [ports[0], ports[1]];
        let data = folder.join(DATA);
        let (mut place, mut voters) = (String::new(), format!("1@127.0.0.1:{controller}"));
        if let Some(Member { node_id, controllers, .. }) = &self.member {
            place = format!("node.id={node_id}\n{AMONG_OTHERS}");
            voters = controllers.iter().zip(1..).map(|(port, id)| format!("{id}@127.0.0.1:{port}")).collect::<Vec<_>>().join(",");
        }
        let (mut protocols, mut listen, mut told) = (String::new(), String::new(), String::new());
        for (name, port, proxy) in &self.behind {
            let _ = write!(protocols, ",{name}:PLAINTEXT");
            let _ = write!(listen, ",{name}://127.0.0.1:{port}");
            let _ = write!(told, ",{name}://127.0.0.1:{proxy}");
        }
        format!(
            "{PLACE}{TUNING}{place}log.dirs={}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}\n\
             listeners=PLAINTEXT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}{listen}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{clients}{told}\n\
             controller.quorum.voters={voters}\n{}\n",
            data.display(),
            self.properties.join("\n"),
        )
    }

    /// What `meta.properties` says of a folder: whose it is. No two nodes of a cluster may have a folder of the same id.
    fn identity(&self) -> String {
        let (cluster, node) = self.member.as_ref().map_or((random_id(), 1), |member| (member.cluster_id.clone(), member.node_id));
        format!("version=1\ncluster.id={cluster}\nnode.id={node}\ndirectory.id={}\n", random_id())
    }
}

impl Kind for Kafka {
    const NAME: &'static str = "kafka";
    /// For clients, and for the controller.
    const PORTS: usize = 2;
    const STOP: Signal = Signal::SIGTERM;

    async fn prepare(&self, folder: &Path, ports: &[u16]) -> Result<Launch> {
        let programs = Programs::find().await?;
        let data = folder.join(DATA);
        let formatted = formatted(&programs).await?;
        if !data.join("meta.properties").exists() {
            let _ = fs::remove_dir_all(&data); // of a copy that was cut short
            folders::copy(&formatted, &data).await?;
            fs::write(data.join("meta.properties"), self.identity())?;
        }
        let properties = folder.join("server.properties");
        fs::write(&properties, self.text(folder, ports))?;
        let mut args = programs.args(self.compiled, self.archive_flag(&programs).await?, "kafka.Kafka");
        args.push(properties.into());
        Ok(Launch { program: programs.java, args, user: None, end_signal: Signal::SIGKILL })
    }

    async fn ask(port: u16) -> Result<()> {
        topics::could_be_created(&super::bootstrap(port)).await
    }
}

async fn make_archive(archive: PathBuf) -> Result<()> {
    say("making Kafka's class archive (once)");
    let kafka = Kafka { archive_to: Some(archive.clone()), ..Kafka::new(vec![]) };
    let mut server = OwnServer::temporary(kafka).await?;
    server.stop().await?;
    let log = server.log();
    fs::metadata(&archive).map(drop).with_context(|| format!("no class archive was made (log: {})", log.display()))
}

/// An empty, formatted folder.
async fn formatted(programs: &Programs) -> Result<PathBuf> {
    let cached = programs.jars.with_file_name("formatted");
    folders::once(&cached, |partial: PathBuf| async move {
        let properties = partial.with_extension("properties");
        let controller = "log.dirs={}\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT\nlisteners=CONTROLLER://127.0.0.1:1\ncontroller.quorum.voters=1@127.0.0.1:1\n";
        let roles = PLACE.replace("broker,controller", "controller").replace("inter.broker.listener.name=PLAINTEXT\n", "");
        fs::write(&properties, roles + &controller.replace("{}", &partial.display().to_string()))?;
        let mut java = Command::new(&programs.java);
        java.args(programs.args(Compiled::Quickly, "-Xshare:auto".to_owned(), "kafka.tools.StorageTool"));
        java.args(["format", "-t", TEMPLATE_ID, "-c"]).arg(&properties);
        let output = java.output().await?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("kafka could not format its folder: {}", String::from_utf8_lossy(&said).trim());
        }
        Ok(fs::remove_file(properties)?)
    })
    .await?;
    Ok(cached)
}

/// 16 bytes in base64url, as Kafka wants them; the last of the 22 characters has but two bits.
pub(crate) fn random_id() -> String {
    (0..21).map(|_| fastrand::alphanumeric()).chain(['A']).collect()
}
