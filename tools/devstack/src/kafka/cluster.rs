//! A cluster of three Kafka nodes that one process owns, each broker and controller: if one dies,
//! the others go on without it.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::metadata::{Metadata, MetadataTopic};

use super::bootstrap;
use super::broker::{Kafka, Member, random_id};
use crate::server::OwnServer;
use crate::{topics, wait};

const NODES: usize = 3;
/// Time limit for changes of the cluster.
const LIMIT: Duration = Duration::from_secs(60);
/// Time limit of a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A Kafka of three nodes that this process owns. They are killed when this value is dropped, or
/// when the process dies for any reason.
///
/// Nodes count from 0. A killed or paused node leaves the cluster after 3 seconds, when its session
/// ends; its partitions then get other leaders. While two nodes are dead, the third acks nothing
/// that must be on two. Each node takes 150 MB.
pub struct KafkaCluster {
    nodes: [OwnServer<Kafka>; NODES],
    bootstrap: String,
}

impl KafkaCluster {
    /// Starts the nodes in temporary folders, which are removed with this value (unless the thread
    /// panics or `REEL_KEEP` is set). By default, topics are on all three nodes, with a
    /// `min.insync.replicas` of 2.
    ///
    /// # Errors
    /// If there is no Java 17 or Maven, or a node does not start; the message names its log.
    pub async fn temporary() -> Result<Self> {
        let reserved = || OwnServer::reserved(Kafka::new(vec![]));
        let mut nodes = [reserved().await?, reserved().await?, reserved().await?];
        let controllers: Vec<u16> = nodes.iter().map(|node| node.ports()[1]).collect();
        let cluster_id = random_id();
        for (node, node_id) in nodes.iter_mut().zip(1..) {
            node.kind.member = Some(Member {
                cluster_id: cluster_id.clone(),
                node_id,
                controllers: controllers.clone(),
            });
        }

        // All at once: a single node has no quorum and would not become ready.
        let [first, second, third] = nodes;
        let (first, second, third) =
            tokio::try_join!(first.started(), second.started(), third.started())?;
        let nodes = [first, second, third];
        let bootstrap = nodes.each_ref().map(|node| bootstrap(node.port())).join(",");
        Ok(Self { nodes, bootstrap })
    }

    /// The bootstrap servers, for clients: all nodes. They stay the same across restarts.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The number of nodes.
    pub fn size(&self) -> usize {
        NODES
    }

    /// Kills a node (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// If it is not running.
    pub async fn kill(&mut self, node: usize) -> Result<()> {
        self.nodes[node].kill().await
    }

    /// Starts a killed node again, with the same data and ports, and waits until it answers. It may
    /// still lag behind: see [`Self::until_in_sync`].
    ///
    /// # Errors
    /// If it is running, or does not start; without a second node it does not become ready.
    pub async fn restart(&mut self, node: usize) -> Result<()> {
        self.nodes[node].restart().await
    }

    /// Pauses a node (SIGSTOP): its connections stay open, but get no answer, as if its machine
    /// were gone.
    ///
    /// # Errors
    /// If it is not running.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.nodes[node].pause()
    }

    /// Resumes a paused node.
    ///
    /// # Errors
    /// If it is not running.
    pub fn resume(&self, node: usize) -> Result<()> {
        self.nodes[node].resume()
    }

    /// The node that leads a partition, according to the cluster: it may name a dead leader for 3
    /// seconds. `None` if there is no leader.
    ///
    /// # Errors
    /// If no node answers within a minute, or the partition does not exist.
    pub async fn leader_of(&self, topic: &str, partition: i32) -> Result<Option<usize>> {
        let answer = wait::until(LIMIT, "an answer from kafka", || async {
            Ok(metadata(&self.bootstrap).await.ok())
        });
        let metadata = answer.await?;
        let topic = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic)
            .context("the topic does not exist")?;
        let partition = topic
            .partitions()
            .iter()
            .find(|found| found.id() == partition)
            .context("the partition does not exist")?;
        Ok(usize::try_from(partition.leader()).ok().and_then(|id| id.checked_sub(1)))
    }

    /// Waits until each node reports that all nodes are there and all replicas of all partitions
    /// are in sync. A single node may report that from outdated metadata.
    ///
    /// # Errors
    /// If that takes more than a minute.
    pub async fn until_in_sync(&self) -> Result<()> {
        for node in &self.nodes {
            wait::until(LIMIT, "all nodes to be in sync", || async {
                let metadata = metadata(&bootstrap(node.port())).await;
                Ok(metadata.is_ok_and(|metadata| is_in_sync(&metadata)).then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

fn is_in_sync(metadata: &Metadata) -> bool {
    let mut partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
    metadata.brokers().len() == NODES
        && partitions.all(|partition| partition.isr().len() == partition.replicas().len())
}

/// The metadata from the first node that answers.
async fn metadata(bootstrap: &str) -> Result<Metadata> {
    let admin = topics::admin(bootstrap)?;
    Ok(tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(None, ANSWER_TIMEOUT))
        .await??)
}
