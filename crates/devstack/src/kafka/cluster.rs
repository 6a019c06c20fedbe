//! Three Kafka nodes of one's own, each broker and controller: where one dies, the others go on without it.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::metadata::{Metadata, MetadataTopic};

use super::bootstrap;
use super::broker::{Kafka, Member, random_id};
use crate::server::OwnServer;
use crate::{topics, wait};

const NODES: usize = 3;
const LIMIT: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A Kafka of three nodes that belongs to this process: they are killed when this value is dropped or the process dies, however.
///
/// Nodes count from 0. One that is killed or paused is out of the cluster after 3 seconds, when its session ends, and its partitions
/// then have other leaders. While two are dead, the third acks nothing that must be on two. The nodes take 150 MB each.
pub struct KafkaCluster {
    nodes: [OwnServer<Kafka>; NODES],
    bootstrap: String,
}

impl KafkaCluster {
    /// Starts the nodes in folders of their own, which are removed at the end (unless the thread panics or `REEL_KEEP` is set).
    /// Unless a topic is made otherwise, it is on all three, and its `min.insync.replicas` is 2.
    ///
    /// # Errors
    /// If there is no Java 17 or Maven, or a node does not start; the message names its log.
    pub async fn temporary() -> Result<Self> {
        let reserved = || OwnServer::reserved(Kafka::new(vec![]));
        let mut nodes = [reserved().await?, reserved().await?, reserved().await?];
        let controllers: Vec<u16> = nodes.iter().map(|node| node.ports()[1]).collect();
        let cluster_id = random_id();
        for (node, node_id) in nodes.iter_mut().zip(1..) {
            node.kind.member = Some(Member { cluster_id: cluster_id.clone(), node_id, controllers: controllers.clone() });
        }
        // All at once: one alone has no quorum and would not get ready.
        let [first, second, third] = nodes;
        let (first, second, third) = tokio::try_join!(first.started(), second.started(), third.started())?;
        let nodes = [first, second, third];
        let bootstrap = nodes.each_ref().map(|node| bootstrap(node.port())).join(",");
        Ok(Self { nodes, bootstrap })
    }

    /// What a client takes as `bootstrap.servers`: all nodes. It stays the same over restarts.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// How many nodes there are.
    pub fn size(&self) -> usize {
        NODES
    }

    /// Kills a node by SIGKILL, and returns when it is gone.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self, node: usize) -> Result<()> {
        self.nodes[node].kill().await
    }

    /// Starts a killed node on the same data and the same ports, and returns when it answers. See [`Self::until_in_sync`].
    ///
    /// # Errors
    /// If it runs, or does not start; alone it does not get ready.
    pub async fn start_again(&mut self, node: usize) -> Result<()> {
        self.nodes[node].start_again().await
    }

    /// Stops a node where it is (SIGSTOP): its connections stay open and get no answer, as those of a machine that is gone.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.nodes[node].pause()
    }

    /// Lets a paused node go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self, node: usize) -> Result<()> {
        self.nodes[node].resume()
    }

    /// The node that leads a partition, by what the cluster says: for 3 seconds, a dead one may still be named.
    ///
    /// # Errors
    /// If no node answers in a minute, or there is no such partition.
    pub async fn leader_of(&self, topic: &str, partition: i32) -> Result<Option<usize>> {
        let answer = wait::until(LIMIT, "an answer of kafka", || async { Ok(metadata(&self.bootstrap).await.ok()) });
        let metadata = answer.await?;
        let topic = metadata.topics().iter().find(|found| found.name() == topic).context("there is no such topic")?;
        let partition = topic.partitions().iter().find(|found| found.id() == partition).context("there is no such partition")?;
        Ok(usize::try_from(partition.leader()).ok().and_then(|id| id.checked_sub(1)))
    }

    /// Waits until each node says that all are there and every replica of every partition is in sync. A single one might say so
    /// because it does not know better.
    ///
    /// # Errors
    /// If that does not come about in a minute.
    pub async fn until_in_sync(&self) -> Result<()> {
        for node in &self.nodes {
            wait::until(LIMIT, "all nodes to be in sync", || async {
                let said = metadata(&bootstrap(node.port())).await;
                Ok(said.is_ok_and(|said| is_in_sync(&said)).then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

fn is_in_sync(metadata: &Metadata) -> bool {
    let mut partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
    metadata.brokers().len() == NODES && partitions.all(|partition| partition.isr().len() == partition.replicas().len())
}

/// What the node there says; of several, one of those that answer.
async fn metadata(bootstrap: &str) -> Result<Metadata> {
    let admin = topics::admin(bootstrap)?;
    Ok(tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(None, ANSWER_WITHIN)).await??)
}
