//! A cluster that a test owns: one of its nodes is killed and comes back.

use std::time::Duration;

use anyhow::{Context, Result};
use devstack::{KafkaCluster, topics, wait};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_killed_leader_is_replaced_and_comes_back_in_sync() -> Result<()> {
    let mut cluster = KafkaCluster::temporary().await?;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap()).create()?;
    let topic = NewTopic::new("orders", 1, TopicReplication::Fixed(3));
    for result in admin.create_topics([&topic], &AdminOptions::new()).await? {
        result.map_err(|(_, code)| code)?;
    }
    cluster.until_in_sync().await?;
    let leader = cluster.leader_of("orders", 0).await?.context("a leader")?;

    cluster.kill(leader).await?;
    wait::until(LIMIT, "another leader", || async {
        Ok(cluster.leader_of("orders", 0).await?.filter(|next| *next != leader))
    })
    .await?;
    assert_eq!(topics::names(cluster.bootstrap(), "").await?, ["orders"]);

    cluster.restart(leader).await?;
    cluster.until_in_sync().await
}
