//! Topics that somebody has changed: what a service makes of them when it starts.

use anyhow::Result;
use devstack::{Stack, topics};
use orderctl::system::{Replica, Service};
use saga_tests::{LIMIT, Shop};
use serde_json::Value;

/// The warnings in a replica's health.
async fn warnings(shop: &Shop, replica: &Replica) -> Result<String> {
    let health: Value = shop.health(replica).await?;
    Ok(health["warnings"].to_string())
}

#[tokio::test]
async fn partitions_that_a_topic_was_given_later_are_ignored_with_a_warning() -> Result<()> {
    let mut shop = Shop::open(|_| {}).await?;
    shop.order("before", 4).await?;
    shop.ends_well().await?;
    assert_eq!(warnings(&shop, shop.replica("payment-1")).await?, "[]");

    let orders = shop.system.topic(Service::ORDER);
    topics::add_partitions(Stack::shared().await?.kafka(), &orders, 6).await?;
    for name in ["order-1", "order-2", "payment-1", "payment-2"] {
        let mut before = shop.take(name);
        let service = before.service();
        before.stop().await?;
        let mut replica = shop.system.start(service, name).await?;
        replica.wait_ready().await?;
        shop.replicas.push(replica);
    }

    let said = warnings(&shop, shop.replica("payment-1")).await?;
    assert!(said.contains(&orders) && said.contains("has 6 partitions"), "{said}");
    shop.order("after", 8).await?;
    assert_eq!(shop.ends_well().await?.confirmed, 12);
    Ok(())
}

#[tokio::test]
async fn a_service_whose_topic_forgets_does_not_start_and_its_readers_warn() -> Result<()> {
    let shop = Shop::prepared(|_| {}).await?;
    let orders = shop.system.topic(Service::ORDER);
    topics::configure(Stack::shared().await?.kafka(), &orders, "retention.ms", "86400000").await?;

    let mut order = shop.system.start(Service::ORDER, "order-1").await?;
    let status = order.exited(LIMIT).await?.expect("the process exits");
    let said = order.log_text();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&orders) && said.contains("retention.ms=86400000"), "{said}");

    let mut payment = shop.system.start(Service::PAYMENT, "payment-1").await?;
    payment.wait_ready().await?;
    let said = warnings(&shop, &payment).await?;
    assert!(said.contains(&orders) && said.contains("retention.ms=86400000"), "{said}");
    Ok(())
}
