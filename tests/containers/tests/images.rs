//! The images as such.

use anyhow::{Result, ensure};
use devstack::docker::{docker, engine};
use serde_json::{Value, json};

#[tokio::test]
async fn an_image_runs_its_binary_as_nobody_in_particular_asks_it_for_its_health_and_says_what_it_is() -> Result<()> {
    if !engine("an_image_runs_its_binary_as_nobody_in_particular_asks_it_for_its_health_and_says_what_it_is").await? {
        return Ok(());
    }
    for name in ["order", "payment", "inventory", "orderctl"] {
        let said = docker(&["image", "inspect", "--format", "{{json .Config}}", &format!("reel-{name}")]).await?.success()?;
        let config: Value = serde_json::from_str(&said)?;
        let binary = format!("/usr/local/bin/{name}");
        ensure!(config["Entrypoint"] == json!([binary]), "{name}: a shell is not needed: {config}");
        ensure!(config["User"] == "10001:10001", "{name}: a number, which an orchestrator can check not to be root: {config}");
        ensure!(config["StopSignal"] == "SIGTERM", "{name}: {config}");
        let health = if name == "orderctl" { Value::Null } else { json!(["CMD", binary, "health"]) };
        ensure!(config["Healthcheck"]["Test"] == health, "{name}: {config}");
        let label = |key: &str| config["Labels"][format!("org.opencontainers.image.{key}")].as_str().unwrap_or_default().to_owned();
        ensure!(label("title") == name, "{name}: {config}");
        ensure!(label("version") == env!("CARGO_PKG_VERSION"), "{name}: as the manifest says: {config}");
        ensure!(label("licenses") == "Apache-2.0 OR MIT", "{name}: {config}");
        ensure!(["description", "revision", "base.name"].iter().all(|key| !label(key).is_empty()), "{name}: {config}");
    }
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
