//! Crashes at every point where a process can leave work half done: nothing is lost or done twice.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orderctl::system::Service;
use reel::failpoints::{
    ALL, DEADLINE_BEFORE_COMMIT, DEADLINE_DUE, LANE_HANDED_OVER, RELAY_ROWS_READ,
};
use saga_tests::{LIMIT, Shop};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const AT_ONCE: usize = 3;
const ORDERS: usize = 6;
const SIGABRT: i32 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_aborts_at_any_point_and_starts_again_loses_nothing_and_does_nothing_twice()
-> Result<()> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut runs = JoinSet::new();
    for point in ALL {
        let turns = turns.clone();
        runs.spawn(async move {
            let _turn = turns.acquire().await?;
            abort_at(point).await.with_context(|| format!("failpoint {point}"))
        });
    }
    while let Some(run) = runs.join_next().await {
        run??;
    }
    Ok(())
}

async fn abort_at(point: &'static str) -> Result<()> {
    let by_deadline = [DEADLINE_DUE, DEADLINE_BEFORE_COMMIT].contains(&point);
    let settle_within = Duration::from_secs(if by_deadline { 2 } else { 900 });
    let mut shop = Shop::prepared(|options| {
        options.lease = Duration::from_secs(1);
        options.settle_within = settle_within;
    })
    .await?;

    for service in [Service::PAYMENT, Service::INVENTORY] {
        let mut replica = shop.system.start(service, &format!("{service}-1")).await?;
        replica.wait_ready().await?;
        shop.replicas.push(replica);
    }

    shop.fill().await?;
    if by_deadline {
        // Nobody takes the stock, so orders miss their deadline.
        shop.take("inventory-1").stop().await?;
    }

    let mut dying =
        shop.system.start_with(Service::ORDER, "order-1", &[("REEL_FAILPOINT", point)]).await?;
    let mut second = None;

    // A second replica is handed lanes. It also takes commands, whose events the first replica's
    // relay reads from the table.
    if [LANE_HANDED_OVER, RELAY_ROWS_READ].contains(&point) {
        dying.wait_ready().await?;
        second = Some(shop.system.start(Service::ORDER, "order-2").await?);
    }

    let died = AtomicBool::new(false);
    let dies = async {
        let status = dying.exited(LIMIT).await;
        died.store(true, Ordering::Relaxed);
        let status = status?
            .with_context(|| format!("the point was never reached{}", dying.last_words()))?;
        ensure!(
            status.signal() == Some(SIGABRT),
            "the process ended with {status}{}",
            dying.last_words()
        );

        let mut again = shop.system.start(Service::ORDER, "order-1").await?;
        again.wait_ready().await?;
        Ok(again)
    };

    // The client retries with the same key until it has an answer. Orders keep coming until the
    // process has died, because chance decides which replica takes a command and when the relay
    // finds its event in the table.
    let orders = async {
        let mut placed = shop.order("order", ORDERS).await?;
        while !by_deadline && !died.load(Ordering::Relaxed) {
            placed.extend(shop.order(&format!("more-{}", placed.len()), 1).await?);
        }
        Ok::<_, anyhow::Error>(placed)
    };
    let (again, orders) = tokio::join!(dies, orders);
    let (again, orders) = (again?, orders?.len() as u64);

    shop.replicas.push(again);
    shop.replicas.extend(second);
    if by_deadline {
        let mut inventory = shop.system.start(Service::INVENTORY, "inventory-1").await?;
        inventory.wait_ready().await?;
        shop.replicas.push(inventory);
    }

    let figures = shop.ends_well().await?;
    ensure!(figures.orders == orders, "{figures:?}");
    ensure!(by_deadline || figures.confirmed == orders, "{figures:?}");
    Ok(())
}
