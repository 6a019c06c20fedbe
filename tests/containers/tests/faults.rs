//! Faults of machines, simulated with containers under a steady load of orders. After each fault
//! the audit must be clean.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use container_tests::{Deployment, Load};
use devstack::docker::{docker, kill, stop};
use devstack::print_uncaptured;
use orderctl::system::Service;
use serde_json::Value;

const LANES: i64 = 12;
/// The default of `LEASE`, which the compose file does not change.
const LEASE_SECONDS: f64 = 5.0;
/// Time limit for an answer. A service answers a command within 10 s (`COMMAND_TIMEOUT`), if only
/// with 503.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// Number of acknowledged orders that shows that commands are taken.
const SOME: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    RollingRestart,
    ReplicaKilled,
    ReplicaPaused,
    ReplicaCutOff,
    PostgresKilled,
    PostgresPaused,
    PostgresCutOff,
    KafkaKilled,
    KafkaPaused,
    KafkaCutOff,
}

const FAULTS: [Fault; 10] = [
    Fault::RollingRestart,
    Fault::ReplicaKilled,
    Fault::ReplicaPaused,
    Fault::ReplicaCutOff,
    Fault::PostgresKilled,
    Fault::PostgresPaused,
    Fault::PostgresCutOff,
    Fault::KafkaKilled,
    Fault::KafkaPaused,
    Fault::KafkaCutOff,
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_restarted_killed_paused_or_cut_off_the_audit_is_clean() -> Result<()> {
    let name = "whatever_is_restarted_killed_paused_or_cut_off_the_audit_is_clean";
    Deployment::test(name, &[], every_fault).await
}

async fn every_fault(deployment: &Deployment) -> Result<()> {
    deployment.fill().await?;
    let mut acknowledged = 0;
    for fault in FAULTS {
        // A rolling restart must leave no client without an answer. After the other faults, a
        // client retries.
        let client = deployment.client();
        let client = if fault == Fault::RollingRestart {
            client.failing_after_silence_of(ANSWERED_WITHIN)
        } else {
            client
        };

        let load = Load::start(&client, &format!("{fault:?}"));
        load.wait_for_more(SOME).await?;
        inject(deployment, fault, &load).await.with_context(|| format!("{fault:?}"))?;
        load.wait_for_more(SOME).await?;
        let orders = load.end().await.with_context(|| format!("{fault:?}"))?;

        acknowledged += orders.len() as u64;
        let figures = deployment.ends_well().await.with_context(|| format!("{fault:?}"))?;
        print_uncaptured(&format!(
            "{fault:?}: {} orders were acknowledged meanwhile; audit ok",
            orders.len()
        ));
        ensure!(
            figures.orders == acknowledged && figures.confirmed == acknowledged,
            "{fault:?}: {acknowledged} acknowledged, {figures:?}"
        );
    }

    Ok(())
}

/// Injects a fault, waits until the system has noticed it, and repairs it.
async fn inject(deployment: &Deployment, fault: Fault, load: &Load) -> Result<()> {
    let [order_1, payment_1, inventory_1] =
        ["order-1", "payment-1", "inventory-1"].map(|service| deployment.container(service));
    let [postgres, kafka] = ["postgres", "kafka"].map(|service| deployment.container(service));
    match fault {
        Fault::RollingRestart => {
            for (nth, replica) in [(1, "order-1"), (2, "order-2")] {
                let replica = deployment.container(replica);
                let code = stop(&replica).await?;
                ensure!(code == 0, "{replica} ended with {code}");
                docker(&["start", &replica]).await?.success()?;
                deployment
                    .until_health(Service::ORDER, nth, "the replica to be back", is_ready)
                    .await?;
                load.wait_for_more(SOME).await?;
            }
        }

        Fault::ReplicaKilled => {
            kill(&order_1).await?;
            has_all_lanes(deployment, Service::ORDER, 2).await?;
            load.wait_for_more(SOME).await?;
            docker(&["start", &order_1]).await?.success()?;
            has_lanes_again(deployment, Service::ORDER, 1).await?;
        }

        Fault::ReplicaPaused => {
            docker(&["pause", &payment_1]).await?.success()?;
            // The lease has expired when the other replica has all lanes.
            has_all_lanes(deployment, Service::PAYMENT, 2).await?;
            docker(&["unpause", &payment_1]).await?.success()?;
            has_lanes_again(deployment, Service::PAYMENT, 1).await?;
        }
        Fault::ReplicaCutOff => {
            cut(deployment, &inventory_1).await?;
            has_all_lanes(deployment, Service::INVENTORY, 2).await?;
            join(deployment, &inventory_1, "inventory-1").await?;
            has_lanes_again(deployment, Service::INVENTORY, 1).await?;
        }
        Fault::PostgresKilled => {
            kill(&postgres).await?;
            is_closed_for(deployment, Duration::ZERO).await?;
            docker(&["start", &postgres]).await?.success()?;
            is_open_again(deployment).await?;
        }
        Fault::PostgresPaused => {
            docker(&["pause", &postgres]).await?.success()?;
            is_closed_for(deployment, Duration::from_secs_f64(LEASE_SECONDS)).await?;
            docker(&["unpause", &postgres]).await?.success()?;
            is_open_again(deployment).await?;
        }
        Fault::PostgresCutOff => {
            cut(deployment, &postgres).await?;
            is_closed_for(deployment, Duration::ZERO).await?;
            join(deployment, &postgres, "postgres").await?;
            is_open_again(deployment).await?;
        }
        Fault::KafkaKilled => {
            kill(&kafka).await?;
            commands_are_still_taken(deployment, load, 0.0).await?;
            docker(&["start", &kafka]).await?.success()?;
        }
        Fault::KafkaPaused => {
            docker(&["pause", &kafka]).await?.success()?;
            commands_are_still_taken(deployment, load, LEASE_SECONDS).await?;
            docker(&["unpause", &kafka]).await?.success()?;
        }
        Fault::KafkaCutOff => {
            cut(deployment, &kafka).await?;
            commands_are_still_taken(deployment, load, 0.0).await?;
            join(deployment, &kafka, "kafka").await?;
        }
    }

    Ok(())
}

fn is_ready(health: &Value) -> bool {
    health["ready"] == true
}

fn open_lanes(health: &Value) -> i64 {
    health["lanes"]["open"].as_i64().unwrap_or(0)
}

async fn has_all_lanes(deployment: &Deployment, service: Service, nth: usize) -> Result<()> {
    deployment
        .until_health(service, nth, "the other replica to own all lanes", |health| {
            open_lanes(health) == LANES
        })
        .await
}

async fn has_lanes_again(deployment: &Deployment, service: Service, nth: usize) -> Result<()> {
    deployment
        .until_health(service, nth, "the replica to own lanes again", |health| {
            open_lanes(health) > 0
        })
        .await
}

/// Waits until order is not ready, and at least this long.
async fn is_closed_for(deployment: &Deployment, at_least: Duration) -> Result<()> {
    let begun = Instant::now();
    let closed = |health: &Value| health["ready"] == false && begun.elapsed() >= at_least;
    deployment.until_health(Service::ORDER, 1, "the replica not to be ready", closed).await
}

async fn is_open_again(deployment: &Deployment) -> Result<()> {
    deployment.until_health(Service::ORDER, 1, "the replica to be ready again", is_ready).await
}

/// Waits until an event has waited this many seconds to be published, and then for more orders.
async fn commands_are_still_taken(
    deployment: &Deployment,
    load: &Load,
    seconds: f64,
) -> Result<()> {
    let waiting = |health: &Value| {
        health["backlog"]["events"].as_i64() > Some(0)
            && health["backlog"]["oldest_seconds"].as_f64() >= Some(seconds)
    };
    deployment.until_health(Service::ORDER, 1, "events to wait for publication", waiting).await?;
    load.wait_for_more(SOME).await
}

async fn cut(deployment: &Deployment, container: &str) -> Result<()> {
    docker(&["network", "disconnect", &deployment.compose().network(), container])
        .await?
        .success()
        .map(drop)
}

async fn join(deployment: &Deployment, container: &str, alias: &str) -> Result<()> {
    docker(&["network", "connect", "--alias", alias, &deployment.compose().network(), container])
        .await?
        .success()
        .map(drop)
}
