//! The images themselves.

use anyhow::{Result, ensure};
use devstack::docker::{docker, engine};
use orderctl::system::Service;
use serde_json::{Value, json};

#[tokio::test]
async fn an_image_runs_its_binary_without_root_has_a_health_check_and_labels() -> Result<()> {
    if !engine("an_image_runs_its_binary_without_root_has_a_health_check_and_labels").await? {
        return Ok(());
    }
    for name in Service::all().map(Service::name).chain(["orderctl"]) {
        let inspected =
            docker(&["image", "inspect", "--format", "{{json .Config}}", &format!("reel-{name}")])
                .await?
                .success()?;
        let config: Value = serde_json::from_str(&inspected)?;
        let binary = format!("/usr/local/bin/{name}");
        ensure!(
            config["Entrypoint"] == json!([binary]),
            "{name}: the entry point must be the binary, without a shell: {config}"
        );
        ensure!(
            config["User"] == "10001:10001",
            "{name}: the user must be a number, which an orchestrator can check not to be root: \
             {config}"
        );
        ensure!(config["StopSignal"] == "SIGTERM", "{name}: {config}");
        let health =
            if name == "orderctl" { Value::Null } else { json!(["CMD", binary, "health"]) };
        ensure!(config["Healthcheck"]["Test"] == health, "{name}: {config}");

        let label = |key: &str| {
            config["Labels"][format!("org.opencontainers.image.{key}")]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        ensure!(label("title") == name, "{name}: {config}");
        ensure!(
            label("version") == env!("CARGO_PKG_VERSION"),
            "{name}: the version must be that of the manifest: {config}"
        );
        ensure!(label("licenses") == "Apache-2.0 OR MIT", "{name}: {config}");
        ensure!(
            ["description", "revision", "base.name"].iter().all(|key| !label(key).is_empty()),
            "{name}: {config}"
        );
    }

    Ok(())
}

#[tokio::test]
async fn an_invalid_setting_ends_the_container_with_exit_code_2_and_one_line() -> Result<()> {
    if !engine("an_invalid_setting_ends_the_container_with_exit_code_2_and_one_line").await? {
        return Ok(());
    }
    for (image, setting) in [
        ("reel-order", "LEASE=soon"),
        ("reel-payment", "BATCH=0"),
        ("reel-inventory", "DATABASE_URL_FILE=/nowhere"),
    ] {
        let output = docker(&[
            "run",
            "--rm",
            "-e",
            "KAFKA_BROKERS=kafka:9092",
            "-e",
            "DATABASE_URL_FILE=/dev/null",
            "-e",
            setting,
            image,
        ])
        .await?;
        ensure!(
            output.code == 2,
            "{image} with {setting} exited with {}: {}",
            output.code,
            output.text()
        );
        ensure!(
            output.text().lines().count() == 1,
            "{image} with {setting} printed: {}",
            output.text()
        );
    }

    Ok(())
}
