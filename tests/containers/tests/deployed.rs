//! The whole system in containers: sagas, restarts, and containers that are killed, paused and cut off.

use anyhow::{Context, Result, ensure};
use container_tests::{Deployment, Load};
use devstack::docker::{docker, engine, kill};
use orderctl::system::Service;
use serde_json::Value;

const LANES: i64 = 12;

async fn filled(deployment: &Deployment) -> Result<()> {
    let client = deployment.client();
    client.deposit("ann", 100_000_000, "first").await?.created()?;
    client.receive("COFFEE", 100_000, "first").await?.created()?;
    Ok(())
}

fn open_lanes(health: &Value) -> i64 {
    health["lanes"]["open"].as_i64().unwrap_or(0)
}

fn is_ready(health: &Value) -> bool {
    health["ready"] == true
}

/// Health shows a backlog of a moment at most, while orders arrive.
fn is_published(health: &Value) -> bool {
    is_ready(health) && health["backlog"]["oldest_seconds"].as_f64().unwrap_or(0.0) < 1.0
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_end_in_every_way_and_the_audit_is_clean() -> Result<()> {
    Deployment::test("orders_end_in_every_way_and_the_audit_is_clean", &[], every_way).await
}

async fn every_way(deployment: &Deployment) -> Result<()> {
    filled(deployment).await?;
    let client = deployment.client();
    client.place("ann", &[("COFFEE", 2)], "confirmed").await?.order_id()?;
    client.place("nobody", &[("COFFEE", 1)], "no account").await?.order_id()?;
    client.place("ann", &[("MUG", 1)], "no stock").await?.order_id()?;
    let figures = deployment.ends_well().await?;
    ensure!(figures.orders == 3 && figures.confirmed == 1, "{figures:?}");
    ensure!(figures.cancelled.keys().map(String::as_str).eq(["out_of_stock", "payment_failed"]), "{figures:?}");
    Ok(())
}

/// Docker does to a container what happens to machines; orders arrive all the time.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_restarted_killed_paused_or_cut_off_the_audit_is_clean() -> Result<()> {
    let name = "whatever_is_restarted_killed_paused_or_cut_off_the_audit_is_clean";
    Deployment::test(name, &[], every_fault).await
}

async fn every_fault(deployment: &Deployment) -> Result<()> {
    filled(deployment).await?;
    let mut acknowledged = 0;
    for fault in ["restart", "kill", "pause", "replica cut off", "postgres cut off", "kafka cut off"] {
        let load = Load::start(deployment.client(), fault);
        load.goes_on(5).await?;
        strike(deployment, fault, &load).await.with_context(|| fault)?;
        load.goes_on(5).await?;
        let orders = load.end().await?;
        acknowledged += orders.len() as u64;
        let figures = deployment.ends_well().await?;
        println!("{fault}: {} orders were acknowledged meanwhile; audit ok", orders.len());
        ensure!(figures.orders == acknowledged && figures.confirmed == acknowledged, "{fault}: {acknowledged} acknowledged, {figures:?}");
    }
    Ok(())
}

async fn strike(deployment: &Deployment, fault: &str, load: &Load) -> Result<()> {
    let (order_1, payment_1, inventory_1) =
        (deployment.container("order-1"), deployment.container("payment-1"), deployment.container("inventory-1"));
    match fault {
        "restart" => {
            for (nth, replica) in [(1, "order-1"), (2, "order-2")] {
                docker(&["restart", &deployment.container(replica)]).await?.success()?;
                deployment.until_health(Service::Order, nth, "the replica is back", is_ready).await?;
                load.goes_on(5).await?;
            }
        }
        "kill" => {
            kill(&order_1).await?;
            deployment.until_health(Service::Order, 2, "the other has all lanes", |health| open_lanes(health) == LANES).await?;
            load.goes_on(5).await?;
            docker(&["start", &order_1]).await?.success()?;
            deployment.until_health(Service::Order, 1, "the replica is back", |health| open_lanes(health) > 0).await?;
        }
        "pause" => {
            docker(&["pause", &payment_1]).await?.success()?;
            deployment.until_health(Service::Payment, 2, "the lease has passed", |health| open_lanes(health) == LANES).await?;
            docker(&["unpause", &payment_1]).await?.success()?;
            deployment.until_health(Service::Payment, 1, "the replica is back", |health| open_lanes(health) > 0).await?;
        }
        "replica cut off" => {
            cut(deployment, &inventory_1).await?;
            deployment.until_health(Service::Inventory, 2, "the other has all lanes", |health| open_lanes(health) == LANES).await?;
            join(deployment, &inventory_1, "inventory-1").await?;
            deployment.until_health(Service::Inventory, 1, "the replica is back", |health| open_lanes(health) > 0).await?;
        }
        "postgres cut off" => {
            cut(deployment, &deployment.container("postgres")).await?;
            deployment.until_health(Service::Order, 1, "the replica is not ready", |health| health["ready"] == false).await?;
            join(deployment, &deployment.container("postgres"), "postgres").await?;
            deployment.until_health(Service::Order, 1, "the replica is ready again", is_ready).await?;
        }
        _ => {
            cut(deployment, &deployment.container("kafka")).await?;
            let waiting = |health: &Value| health["backlog"]["events"].as_i64() > Some(0);
            deployment.until_health(Service::Order, 1, "events wait to be published", waiting).await?;
            load.goes_on(5).await?; // commands are taken all the same
            join(deployment, &deployment.container("kafka"), "kafka").await?;
        }
    }
    Ok(())
}

async fn cut(deployment: &Deployment, container: &str) -> Result<()> {
    docker(&["network", "disconnect", &deployment.compose().network(), container]).await?.success().map(drop)
}

async fn join(deployment: &Deployment, container: &str, alias: &str) -> Result<()> {
    docker(&["network", "connect", "--alias", alias, &deployment.compose().network(), container]).await?.success().map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_without_passwords_and_tls_works_too() -> Result<()> {
    Deployment::test("a_deployment_without_passwords_and_tls_works_too", &[("SECURE", "0")], every_way).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_three_brokers_any_one_may_be_killed() -> Result<()> {
    Deployment::test("with_three_brokers_any_one_may_be_killed", &[("COMPOSE_PROFILES", "three")], one_broker_after_the_other).await
}

async fn one_broker_after_the_other(deployment: &Deployment) -> Result<()> {
    filled(deployment).await?;
    let load = Load::start(deployment.client(), "three brokers");
    for broker in deployment.brokers() {
        let container = deployment.container(broker);
        kill(&container).await?;
        load.goes_on(5).await?;
        for nth in [1, 2] {
            deployment.until_health(Service::Order, nth, "what was decided meanwhile is published", is_published).await?;
        }
        docker(&["start", &container]).await?.success()?;
        deployment.until_healthy(&container).await?;
    }
    let orders = load.end().await?;
    let figures = deployment.ends_well().await?;
    ensure!(figures.confirmed == orders.len() as u64, "{} acknowledged, {figures:?}", orders.len());
    Ok(())
}

#[tokio::test]
async fn a_wrong_setting_ends_the_container_with_2_and_one_line() -> Result<()> {
    if !engine("a_wrong_setting_ends_the_container_with_2_and_one_line").await? {
        return Ok(());
    }
    for (image, setting) in [("reel-order", "LEASE=soon"), ("reel-payment", "BATCH=0"), ("reel-inventory", "DATABASE_URL_FILE=/nowhere")] {
        let said =
            docker(&["run", "--rm", "-e", "KAFKA_BROKERS=kafka:9092", "-e", "DATABASE_URL_FILE=/dev/null", "-e", setting, image]).await?;
        ensure!(said.code == 2, "{image} with {setting} ended with {}: {}", said.code, said.text());
        ensure!(said.text().lines().count() == 1, "{image} with {setting} said: {}", said.text());
    }
    Ok(())
}
