//! Lanes across processes: shared, handed over, taken over, fenced.

use std::time::Duration;

use anyhow::Result;
use orderctl::system::Service;
use saga_tests::{LIMIT, Shop, eventually};

#[tokio::test]
async fn two_replicas_share_the_lanes() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    for service in Service::ALL {
        eventually("each replica holds half of the lanes", || async {
            let owners: Vec<(Option<String>, i64)> = sqlx::query_as("select owner, count(*) from reel.lanes group by owner order by owner")
                .fetch_all(shop.system.pool(service))
                .await?;
            Ok(owners == [(Some(format!("{service}-1")), 2), (Some(format!("{service}-2")), 2)])
        })
        .await?;
    }
    shop.order("shared", 8).await?;
    assert_eq!(shop.ends_well().await?.confirmed, 8);
    Ok(())
}

#[tokio::test]
async fn one_stops_cleanly_and_the_other_goes_on_although_the_lease_is_ten_minutes() -> Result<()> {
    let mut shop = Shop::open(|options| options.lease = Duration::from_secs(600)).await?;
    for name in ["order-1", "payment-1", "inventory-1"] {
        shop.take(name).stop().await?;
    }
    shop.order("after", 8).await?;
    assert_eq!(shop.ends_well().await?.confirmed, 8);
    Ok(())
}

#[tokio::test]
async fn one_is_killed_and_the_other_goes_on_after_the_lease() -> Result<()> {
    let mut shop = Shop::open(|options| options.lease = Duration::from_secs(1)).await?;
    shop.order("before", 8).await?;
    for name in ["order-2", "payment-2", "inventory-2"] {
        shop.take(name).kill().await?;
    }
    shop.order("after", 8).await?;
    assert_eq!(shop.ends_well().await?.confirmed, 16);
    Ok(())
}

#[tokio::test]
async fn a_replica_that_restarts_under_its_id_takes_its_own_back_at_once() -> Result<()> {
    let mut shop = Shop::open(|options| options.lease = Duration::from_secs(600)).await?;
    for (name, service) in [("order-1", Service::Order), ("payment-1", Service::Payment), ("inventory-1", Service::Inventory)] {
        shop.take(name).kill().await?;
        let mut replica = shop.system.start(service, name).await?;
        replica.wait_ready().await?;
        shop.replicas.push(replica);
    }
    shop.order("after", 8).await?;
    assert_eq!(shop.ends_well().await?.confirmed, 8);
    Ok(())
}

#[tokio::test]
async fn of_two_live_replicas_with_one_id_the_older_exits_with_an_error() -> Result<()> {
    let mut shop = Shop::open(|_| {}).await?;
    let mut older = shop.take("payment-1");
    let mut newer = shop.system.start(Service::Payment, "payment-1").await?;
    let status = older.exited(LIMIT).await?.expect("the older ends");
    assert_eq!(status.code(), Some(1));
    newer.wait_ready().await?;
    shop.order("after", 8).await?;
    assert_eq!(shop.ends_well().await?.confirmed, 8);
    Ok(())
}

#[tokio::test]
async fn a_process_stopped_inside_a_transaction_loses_it_and_commits_nothing_later() -> Result<()> {
    let mut shop = Shop::prepared(|_| {}).await?;
    for service in Service::ALL {
        shop.replicas.push(shop.system.start(service, &format!("{service}-1")).await?);
    }
    for replica in &mut shop.replicas {
        replica.wait_ready().await?;
    }
    shop.fill().await?;
    let database = shop.system.pool(Service::Payment);
    let mut holder = database.begin().await?;
    sqlx::query("select from accounts where customer = 'ann' for update").execute(&mut *holder).await?;
    let order = shop.order("held", 1).await?[0];
    eventually("payment-1 waits for the row inside its transaction", || async {
        Ok(shop
            .count(
                Service::Payment,
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
            )
            .await?
            > 0)
    })
    .await?;
    let mut zombie = shop.take("payment-1");
    zombie.pause()?;
    holder.rollback().await?;
    eventually("the server ends the transaction", || async {
        let sessions = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'payment'
                        and (state like 'idle in transaction%' or wait_event_type = 'Lock')";
        Ok(shop.count(Service::Payment, sessions).await? == 0)
    })
    .await?;
    let mut other = shop.system.start(Service::Payment, "payment-2").await?;
    other.wait_ready().await?;
    eventually("the other replica commits", || async { Ok(shop.status(order).await? == "confirmed") }).await?;
    zombie.resume()?;
    zombie.wait_ready().await?;
    shop.order("after", 8).await?;
    let figures = shop.ends_well().await?;
    assert_eq!(figures.confirmed, 9);
    assert_eq!(shop.count(Service::Payment, "select count(*) from payments").await?, 9);
    Ok(())
}

#[tokio::test]
async fn a_replica_that_was_paused_longer_than_its_lease_does_no_harm() -> Result<()> {
    let mut shop = Shop::open(|options| options.lease = Duration::from_secs(1)).await?;
    shop.order("before", 4).await?;
    // Not order-1: a client that waits for its answer would only slow the test down.
    let mut zombies = vec![shop.take("payment-1"), shop.take("inventory-1")];
    for zombie in &mut zombies {
        zombie.pause()?;
    }
    let during = shop.order("during", 8).await?;
    for order in during {
        eventually("orders are confirmed meanwhile", || async { Ok(shop.status(order).await? == "confirmed") }).await?;
    }
    for zombie in &mut zombies {
        zombie.resume()?;
    }
    shop.order("after", 8).await?;
    assert_eq!(shop.ends_well().await?.confirmed, 20);
    Ok(())
}
