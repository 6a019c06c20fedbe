//! The whole system in containers, in each variant of the compose file.

use anyhow::{Result, ensure};
use container_tests::{Deployment, Load};
use devstack::docker::{docker, kill, stop};
use orderctl::system::Service;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn orders_end_in_every_way_in_healthy_confined_containers_that_stop_cleanly() -> Result<()> {
    let name = "orders_end_in_every_way_in_healthy_confined_containers_that_stop_cleanly";
    Deployment::test(name, &[], containers_and_orders).await
}

async fn containers_and_orders(deployment: &Deployment) -> Result<()> {
    for replica in deployment.replicas() {
        deployment.until_healthy(&replica).await?;
    }

    all_are_confined(deployment).await?;
    orders_end_in_every_way(deployment).await?;

    let [order, payment, inventory] =
        ["order-1", "payment-1", "inventory-1"].map(|replica| deployment.container(replica));
    let codes = tokio::try_join!(stop(&order), stop(&payment), stop(&inventory))?;
    ensure!(
        codes == (0, 0, 0),
        "they exited with {codes:?}; 137 means that a container had to be killed"
    );
    Ok(())
}

/// Checks that every container, also of a one-shot job, has limits and no privileges.
async fn all_are_confined(deployment: &Deployment) -> Result<()> {
    let ids = deployment.compose().run(&["ps", "--all", "--quiet"]).await?.success()?;
    let inspected =
        docker(&["inspect"].into_iter().chain(ids.lines()).collect::<Vec<_>>()).await?.success()?;
    let containers: Vec<Value> = serde_json::from_str(&inspected)?;
    ensure!(
        containers.len() == 16,
        "expected six replicas with six jobs, two servers and two jobs for these, found {}",
        containers.len()
    );

    for container in containers {
        let (name, host) = (&container["Name"], &container["HostConfig"]);
        let is_broker = container["Config"]["Labels"]["com.docker.compose.service"] == "kafka";
        ensure!(
            host["Memory"].as_i64() > Some(0) && host["NanoCpus"].as_i64() > Some(0),
            "{name} has no limit of memory or CPUs"
        );
        ensure!(host["CapDrop"] == json!(["ALL"]), "{name} has capabilities");
        ensure!(
            host["SecurityOpt"] == json!(["no-new-privileges:true"]),
            "{name} may gain privileges"
        );
        ensure!(
            host["ReadonlyRootfs"] == true || is_broker,
            "{name} has a writable root file system"
        );
    }

    Ok(())
}

async fn orders_end_in_every_way(deployment: &Deployment) -> Result<()> {
    deployment.fill().await?;
    let client = deployment.client();
    client.place("ann", &[("COFFEE", 2)], "confirmed").await?.order_id()?;
    client.place("nobody", &[("COFFEE", 1)], "no account").await?.order_id()?;
    client.place("ann", &[("MUG", 1)], "no stock").await?.order_id()?;
    let figures = deployment.ends_well().await?;
    ensure!(figures.orders == 3 && figures.confirmed == 1, "{figures:?}");
    ensure!(
        figures.cancelled.keys().map(String::as_str).eq(["out_of_stock", "payment_failed"]),
        "{figures:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_without_passwords_and_tls_works_too() -> Result<()> {
    Deployment::test(
        "a_deployment_without_passwords_and_tls_works_too",
        &[("SECURE", "0")],
        orders_end_in_every_way,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_three_brokers_any_one_may_be_killed() -> Result<()> {
    Deployment::test(
        "with_three_brokers_any_one_may_be_killed",
        &[("COMPOSE_PROFILES", "three")],
        one_broker_after_the_other,
    )
    .await
}

async fn one_broker_after_the_other(deployment: &Deployment) -> Result<()> {
    deployment.fill().await?;
    let load = Load::start(&deployment.client(), "three brokers");
    for broker in deployment.brokers() {
        let container = deployment.container(broker);
        kill(&container).await?;
        load.wait_for_more(20).await?;
        for nth in [1, 2] {
            deployment
                .until_health(
                    Service::ORDER,
                    nth,
                    "the events of the meantime to be published",
                    is_published,
                )
                .await?;
        }

        docker(&["start", &container]).await?.success()?;
        deployment.until_healthy(&container).await?;
    }

    let orders = load.end().await?;
    let figures = deployment.ends_well().await?;
    ensure!(figures.confirmed == orders.len() as u64, "{} acknowledged, {figures:?}", orders.len());
    Ok(())
}

/// Whether a replica's oldest unpublished event is less than a second old.
fn is_published(health: &Value) -> bool {
    health["ready"] == true && health["backlog"]["oldest_seconds"].as_f64().unwrap_or(0.0) < 1.0
}
