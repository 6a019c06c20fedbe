//! Silence: connections that die and close nothing, of one replica or all, while the servers live.

use anyhow::Result;
use devstack::proxy::{Network, Proxy};
use devstack::{KafkaServer, Listener, Stack};
use orderctl::system::Service;
use reel::inspect;
use reqwest::StatusCode;
use saga_tests::{LIMIT, Shop, eventually};

/// A firewall forgets all connections of a service to Postgres, and passes new ones.
#[tokio::test]
async fn connections_to_postgres_that_are_forgotten_are_replaced_within_seconds() -> Result<()> {
    let mut shop = Shop::prepared(|_| {}).await?;
    let (proxy, url) = Proxy::to_url(&shop.system.database_url(Service::ORDER)).await?;
    for service in Service::all() {
        let through = [("DATABASE_URL", url.as_str())];
        let environment = if service == Service::ORDER { &through[..] } else { &[] };
        let name = format!("{service}-1");
        shop.replicas.push(shop.system.start_with(service, &name, environment).await?);
    }
    for replica in &mut shop.replicas {
        replica.wait_ready().await?;
    }
    shop.fill().await?;
    let before = shop.order("before", 4).await?;
    shop.ends_well().await?;

    proxy.forget();

    // Each of these would wait for the kernel to give up, which takes a quarter of an hour.
    let order = format!("{}/orders/{}", shop.replica("order-1").url(), before[0]);
    eventually("queries to be answered", || async {
        let request = reqwest::Client::new().get(&order).bearer_auth(shop.token());
        Ok(request.timeout(LIMIT).send().await?.status() == StatusCode::OK)
    })
    .await?;
    shop.order("after", 4).await?;
    let figures = shop.ends_well().await?;
    assert_eq!((figures.orders, figures.confirmed), (8, 8));
    for replica in &mut shop.replicas {
        assert!(replica.is_running(), "{} has died", replica.name());
    }
    Ok(())
}

/// One of two replicas no longer reaches Kafka, although both reach Postgres.
#[tokio::test]
async fn a_replica_that_is_cut_off_from_kafka_gives_its_lanes_to_one_that_is_not() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let listener = Listener::new("cutoff").await?;
    let kafka = KafkaServer::start_behind(folder.path(), &[&listener]).await?;
    let stack = Stack::shared().await?;
    let mut shop = Shop::alone_on(kafka.bootstrap(), stack.postgres(), |_| {}).await?;
    let through = format!("127.0.0.1:{}", listener.proxy().port());
    let environment = [("KAFKA_BROKERS", through.as_str())];
    let mut second = shop.system.start_with(Service::PAYMENT, "payment-2", &environment).await?;
    second.wait_ready().await?;
    shop.replicas.push(second);
    owned_by_second(&shop, 2).await?;

    listener.proxy().set(Network::BlackHole);
    owned_by_second(&shop, 0).await?;
    eventually("health to report why", || async {
        let health = shop.health(shop.replica("payment-2")).await?;
        let says = |reason: &str| reason.contains("kafka answers other replicas");
        Ok(health["ready"] == false && health["reason"].as_str().is_some_and(says))
    })
    .await?;
    assert_eq!(shop.health(shop.replica("payment-1")).await?["ready"], true);
    shop.order("without", 8).await?;
    assert_eq!(shop.ends_well().await?.confirmed, 8);

    listener.proxy().set(Network::Pass);
    owned_by_second(&shop, 2).await?;
    shop.order("with", 8).await?;
    assert_eq!(shop.ends_well().await?.confirmed, 16);
    shop.replicas.clear();
    Ok(())
}

/// Waits until `payment-2` owns this many of the four lanes, and `payment-1` the others.
async fn owned_by_second(shop: &Shop, wanted: usize) -> Result<()> {
    eventually("the lanes to be where they should", || async {
        let mut connection = shop.system.pool(Service::PAYMENT).acquire().await?;
        let owners = inspect::owners(&mut connection).await?;
        let count =
            |name: &str| owners.iter().filter(|(_, owner)| owner.as_deref() == Some(name)).count();
        Ok((count("payment-1"), count("payment-2")) == (4 - wanted, wanted))
    })
    .await
}
