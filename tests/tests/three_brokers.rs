//! Three brokers: no order is lost when the leader of its lane dies or falls silent, or when two of
//! the three die.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use contracts::OrderId;
use devstack::{KafkaCluster, Stack, print_uncaptured};
use orderctl::system::{Client, Service};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigSource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use reel::model::Partition;
use saga_tests::{Shop, eventually};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

/// The lane whose leaders die.
const LANE: Partition = Partition(1);
/// Interval between two orders.
const ORDER_EVERY: Duration = Duration::from_millis(40);
/// Number of orders of the lane that must be confirmed after a fault.
const CONFIRMED: i64 = 10;

/// A client that keeps placing orders, and retries each with its key until it is acknowledged.
struct SteadyLoad {
    end: oneshot::Sender<()>,
    orders: JoinHandle<Result<Vec<OrderId>>>,
}

/// Outcome of the lane's orders that were placed after some moment.
struct Since {
    confirmed: i64,
    /// Time from that moment to the first confirmation, in seconds.
    first: f64,
    /// Longest time from an order to its confirmation, in seconds.
    longest: f64,
}

reel::from_row!(Since { confirmed: "confirmed", first: "first", longest: "longest" });

#[tokio::test]
async fn a_leader_dies_then_one_falls_silent_then_two_of_three_die_and_no_order_is_lost()
-> Result<()> {
    let mut cluster = KafkaCluster::temporary().await?;
    let stack = Stack::shared().await?;
    let mut shop =
        Shop::on(cluster.bootstrap(), stack.postgres(), |options| options.replication = 3).await?;
    shop.replicas = shop.system.start_all(2).await?;
    shop.client.deposit("ann", 100_000_000, "first").await?.created()?;
    shop.client.receive("COFFEE", 100_000, "first").await?.created()?;

    let load = SteadyLoad::start(shop.client.clone());
    until_confirmed_since(&shop, 0.0).await?;
    assert_eq!(
        own_property(&cluster, &shop, "min.insync.replicas").await?.as_deref(),
        Some("2"),
        "`order topics` must set it"
    );

    kill_a_leader(&mut cluster, &shop).await?;
    silence_a_leader(&cluster, &shop).await?;
    kill_two_of_three(&mut cluster, &shop).await?;

    let acknowledged = load.end().await?;
    let figures = shop.ends_well().await?;
    print_uncaptured(&format!("{figures:?}"));
    let count = u64::try_from(acknowledged.len())?;
    assert_eq!((figures.orders, figures.confirmed), (count, count));

    let ids: Vec<Uuid> = acknowledged.iter().map(|order| order.uuid()).collect();
    let confirmed: i64 = sqlx::query_scalar(
        "select count(*) from orders where order_id = any($1) and status = 'confirmed'",
    )
    .bind(ids)
    .fetch_one(shop.system.pool(Service::ORDER))
    .await?;
    assert_eq!(u64::try_from(confirmed)?, count, "every acknowledged order must be confirmed");

    for replica in &shop.replicas {
        let lanes = &shop.health(replica).await?["lanes"];
        assert_eq!(
            (&lanes["stopped"], &lanes["waiting"]),
            (&json!({}), &json!({})),
            "{}",
            replica.name()
        );
    }

    shop.replicas.clear();
    Ok(())
}

async fn kill_a_leader(cluster: &mut KafkaCluster, shop: &Shop) -> Result<()> {
    cluster.until_in_sync().await?;
    let leader = leader(cluster, shop).await?;
    cluster.kill(leader).await?;
    let since = until_confirmed_since(shop, now(shop).await?).await?;
    print_uncaptured(&format!("a leader killed: {since}"));
    cluster.restart(leader).await
}

/// Pauses the leader. It comes back when another broker leads, and still believes itself leader.
async fn silence_a_leader(cluster: &KafkaCluster, shop: &Shop) -> Result<()> {
    cluster.until_in_sync().await?;
    let leader = leader(cluster, shop).await?;
    cluster.pause(leader)?;
    let since = until_confirmed_since(shop, now(shop).await?).await?;
    print_uncaptured(&format!("a leader silent: {since}"));
    cluster.resume(leader)
}

/// Kills both followers. The leader stays, but alone it may not acknowledge any record.
async fn kill_two_of_three(cluster: &mut KafkaCluster, shop: &Shop) -> Result<()> {
    cluster.until_in_sync().await?;
    let leader = leader(cluster, shop).await?;
    let others: Vec<usize> = (0..cluster.size()).filter(|node| *node != leader).collect();
    for node in &others {
        cluster.kill(*node).await?;
    }

    let killed_at = now(shop).await?;
    eventually("health to show waiting events", || async {
        let health = shop.health(shop.replica("order-1")).await?;
        ensure!(health["ready"] == true, "not ready: {health}");
        Ok(health["backlog"]["events"].as_i64() >= Some(50)
            && health["backlog"]["oldest_seconds"].as_f64() > Some(5.0))
    })
    .await?;
    assert_eq!(
        Since::of(shop, killed_at).await?.confirmed,
        0,
        "no event may be published that only one broker has"
    );

    cluster.restart(others[0]).await?;
    let back_at = now(shop).await?;
    let since = until_confirmed_since(shop, killed_at).await?;
    print_uncaptured(&format!(
        "two of three killed: {since}; one of them was back after {:.1} s",
        back_at - killed_at
    ));
    cluster.restart(others[1]).await
}

impl SteadyLoad {
    fn start(client: Client) -> Self {
        let (end, mut ends) = oneshot::channel();
        let orders = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            let mut arrivals = interval(ORDER_EVERY);
            arrivals.set_missed_tick_behavior(MissedTickBehavior::Skip);
            while ends.try_recv().is_err() {
                arrivals.tick().await;
                let key = format!("regular-{}", acknowledged.len());
                acknowledged.push(client.place("ann", &[("COFFEE", 1)], &key).await?.order_id()?);
            }
            Ok(acknowledged)
        });
        Self { end, orders }
    }

    /// Ends the load, and returns the orders that were acknowledged.
    async fn end(self) -> Result<Vec<OrderId>> {
        let _ = self.end.send(());
        self.orders.await?
    }
}

impl Since {
    /// Computes the outcome from the order service's own events. An order is confirmed when all
    /// three services have published and read.
    async fn of(shop: &Shop, moment: f64) -> Result<Self> {
        let sql = "select count(*) as confirmed,
                coalesce(extract(epoch from min(confirmed.recorded_at)) - $2, 0)::float8
                    as first,
                coalesce(
                    extract(epoch from max(confirmed.recorded_at - created.recorded_at)), 0
                )::float8 as longest
            from reel.outbox as created join reel.outbox as confirmed using (partition, key)
            where created.type = 'OrderCreated' and confirmed.type = 'OrderConfirmed'
                and partition = $1 and created.recorded_at > to_timestamp($2)";
        Ok(sqlx::query_as(sql)
            .bind(LANE.0)
            .bind(moment)
            .fetch_one(shop.system.pool(Service::ORDER))
            .await?)
    }
}

impl std::fmt::Display for Since {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "first confirmation after {:.1} s, longest wait of an order {:.1} s",
            self.first, self.longest
        )
    }
}

/// Waits until orders of the lane that were placed after this moment are confirmed.
async fn until_confirmed_since(shop: &Shop, moment: f64) -> Result<Since> {
    eventually("orders of the lane to be confirmed", || async {
        Ok(Since::of(shop, moment).await?.confirmed >= CONFIRMED)
    })
    .await?;
    Since::of(shop, moment).await
}

/// Seconds since 1970 by the database's clock, which stamps the events.
async fn now(shop: &Shop) -> Result<f64> {
    let sql = "select extract(epoch from clock_timestamp())::float8";
    Ok(sqlx::query_scalar(sql).fetch_one(shop.system.pool(Service::ORDER)).await?)
}

/// The node that leads the lane's partition of the orders.
async fn leader(cluster: &KafkaCluster, shop: &Shop) -> Result<usize> {
    cluster
        .leader_of(&shop.system.topic(Service::ORDER), LANE.0)
        .await?
        .context("the lane's partition has no leader")
}

/// The value of a property that is set on the topic of the orders itself, not on the broker.
async fn own_property(cluster: &KafkaCluster, shop: &Shop, name: &str) -> Result<Option<String>> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap()).create()?;
    let topic = shop.system.topic(Service::ORDER);
    let described =
        admin.describe_configs([&ResourceSpecifier::Topic(&topic)], &AdminOptions::new()).await?;
    let config = described
        .into_iter()
        .next()
        .context("the broker does not describe the topic")?
        .map_err(|code| anyhow::anyhow!("the broker refuses to describe the topic: {code}"))?;
    Ok(config
        .get(name)
        .filter(|entry| entry.source == ConfigSource::DynamicTopic)
        .and_then(|entry| entry.value.clone()))
}
