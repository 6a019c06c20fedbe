//! Lanes across processes: rebalance, handover, takeover and fencing.

use std::time::Duration;

use anyhow::Result;
use orderctl::system::Service;
use reel::inspect;
use saga_tests::{LIMIT, Shop, eventually};

#[tokio::test]
async fn two_replicas_share_the_lanes() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    for service in Service::all() {
        eventually("each replica to own half of the lanes", || async {
            let mut connection = shop.system.pool(service).acquire().await?;
            let owners = inspect::owners(&mut connection).await?;
            let halves = ["1", "2"].iter().all(|nth| {
                let replica = Some(format!("{service}-{nth}"));
                owners.iter().filter(|(_, owner)| *owner == replica).count() == 2
            });
            Ok(owners.len() == 4 && halves)
        })
        .await?;
    }
    shop.order("shared", 8).await?;
    assert_eq!(shop.ends_well().await?.confirmed, 8);
    Ok(())
}

#[tokio::test]
async fn after_a_clean_stop_the_other_replica_takes_over_without_waiting_for_the_lease()
-> Result<()> {
    let mut shop = Shop::open(|options| options.lease = Duration::from_secs(600)).await?;
    for name in ["order-1", "payment-1", "inventory-1"] {
        shop.take(name).stop().await?;
    }
    shop.order("after", 8).await?;
    assert_eq!(shop.ends_well().await?.confirmed, 8);
    Ok(())
}

#[tokio::test]
async fn after_a_kill_the_other_replica_takes_over_when_the_lease_expires() -> Result<()> {
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
async fn a_replica_that_restarts_under_its_id_gets_its_lanes_back_at_once() -> Result<()> {
    let mut shop = Shop::open(|options| options.lease = Duration::from_secs(600)).await?;
    for (name, service) in [
        ("order-1", Service::ORDER),
        ("payment-1", Service::PAYMENT),
        ("inventory-1", Service::INVENTORY),
    ] {
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
    let mut newer = shop.system.start(Service::PAYMENT, "payment-1").await?;
    let status = older.exited(LIMIT).await?.expect("the older replica exits");
    assert_eq!(status.code(), Some(1));
    newer.wait_ready().await?;
    shop.order("after", 8).await?;
    assert_eq!(shop.ends_well().await?.confirmed, 8);
    Ok(())
}

#[tokio::test]
async fn a_process_stopped_inside_a_transaction_loses_it_and_commits_nothing_later() -> Result<()> {
    let mut shop = Shop::prepared(|_| {}).await?;
    for service in Service::all() {
        shop.replicas.push(shop.system.start(service, &format!("{service}-1")).await?);
    }
    for replica in &mut shop.replicas {
        replica.wait_ready().await?;
    }
    shop.fill().await?;

    let database = shop.system.pool(Service::PAYMENT);
    let mut holder = database.begin().await?;
    sqlx::query("select from accounts where customer = 'ann' for update")
        .execute(&mut *holder)
        .await?;
    let order = shop.order("held", 1).await?[0];
    let blocked = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    eventually("payment-1 to wait for the row inside its transaction", || async {
        Ok(shop.count(Service::PAYMENT, blocked).await? > 0)
    })
    .await?;

    let mut zombie = shop.take("payment-1");
    zombie.pause()?;
    holder.rollback().await?;
    eventually("the server to end the transaction", || async {
        let sessions = "select count(*) from pg_stat_activity
            where datname = current_database() and application_name = 'payment'
                and (state like 'idle in transaction%' or wait_event_type = 'Lock')";
        Ok(shop.count(Service::PAYMENT, sessions).await? == 0)
    })
    .await?;

    let mut other = shop.system.start(Service::PAYMENT, "payment-2").await?;
    other.wait_ready().await?;
    eventually("the other replica to commit", || async {
        Ok(shop.status(order).await? == "confirmed")
    })
    .await?;

    zombie.resume()?;
    zombie.wait_ready().await?;
    shop.order("after", 8).await?;
    let figures = shop.ends_well().await?;
    assert_eq!(figures.confirmed, 9);
    assert_eq!(shop.count(Service::PAYMENT, "select count(*) from payments").await?, 9);
    Ok(())
}

#[tokio::test]
async fn a_replica_that_was_paused_longer_than_its_lease_does_no_harm() -> Result<()> {
    let mut shop = Shop::open(|options| options.lease = Duration::from_secs(1)).await?;
    shop.order("before", 4).await?;

    // Order's replicas keep running: a client that waits for a paused one only slows the test down.
    let mut zombies = vec![shop.take("payment-1"), shop.take("inventory-1")];
    for zombie in &mut zombies {
        zombie.pause()?;
    }

    let during = shop.order("during", 8).await?;
    for order in during {
        eventually("orders to be confirmed meanwhile", || async {
            Ok(shop.status(order).await? == "confirmed")
        })
        .await?;
    }

    for zombie in &mut zombies {
        zombie.resume()?;
    }
    shop.order("after", 8).await?;
    assert_eq!(shop.ends_well().await?.confirmed, 20);
    Ok(())
}
