//! A Kafka and a Postgres in containers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use testcontainers_modules::kafka::apache::{KAFKA_PORT, Kafka};
use testcontainers_modules::postgres::Postgres;
use testcontainers_modules::testcontainers::core::IntoContainerPort;
use testcontainers_modules::testcontainers::runners::AsyncRunner;
use testcontainers_modules::testcontainers::{ContainerAsync, ContainerRequest, Image, ImageExt};

use super::guard::Guard;
use crate::kafka::{TUNING, bootstrap};
use crate::{postgres, topics};

const KAFKA_TAG: &str = "4.3.1";
const POSTGRES_TAG: &str = "18";
const OWNER: &str = "reel.owner";

/// A Kafka and a Postgres in containers of their own, with ports that the engine chose.
pub struct Containers {
    kafka: ContainerAsync<Kafka>,
    postgres: ContainerAsync<Postgres>,
    addresses: (String, String),
    _guard: Guard,
}

impl Containers {
    /// Starts both at once.
    ///
    /// # Errors
    /// If there is no engine, or an image cannot be had, or a server does not start; then with the end of its log.
    pub async fn start() -> Result<Self> {
        let owner = topics::unique_prefix();
        let remove = r#"containers=$(docker ps --all --quiet --filter "label=$1") && docker rm --force --volumes $containers"#;
        let guard = Guard::new(remove, &[format!("{OWNER}={owner}").as_ref()])?;
        let variable = |line: &str| {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            (format!("KAFKA_{}", name.replace('.', "_").to_uppercase()), value.to_owned())
        };
        let kafka = Kafka::default().with_jvm_image().with_tag(KAFKA_TAG).with_env_var("KAFKA_HEAP_OPTS", "-Xms64m -Xmx512m");
        let kafka = TUNING.lines().map(variable).fold(kafka, |kafka, (name, value)| kafka.with_env_var(name, value));
        let settings = postgres::SETTINGS.iter().flat_map(|setting| ["-c", setting]);
        let postgres = Postgres::default().with_tag(POSTGRES_TAG).with_cmd(["postgres"].into_iter().chain(settings));
        let (kafka, postgres) = tokio::try_join!(started(kafka, &owner), started(postgres, &owner))?;
        let addresses = (
            bootstrap(kafka.get_host_port_ipv4(KAFKA_PORT).await?),
            format!("postgres://postgres:postgres@127.0.0.1:{}/postgres", postgres.get_host_port_ipv4(5432.tcp()).await?),
        );
        Ok(Self { kafka, postgres, addresses, _guard: guard })
    }

    /// What a client takes as `bootstrap.servers`.
    pub fn kafka(&self) -> &str {
        &self.addresses.0
    }

    /// The superuser's address.
    pub fn postgres(&self) -> &str {
        &self.addresses.1
    }

    /// Writes what the servers have logged to `kafka.log` and `postgres.log`.
    ///
    /// # Errors
    /// If the engine does not answer, or a file cannot be written.
    pub async fn write_logs(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("kafka.log"), log(&self.kafka).await?)?;
        fs::write(folder.join("postgres.log"), log(&self.postgres).await?)?;
        Ok(())
    }
}

async fn started<I: Image>(container: impl Into<ContainerRequest<I>>, owner: &str) -> Result<ContainerAsync<I>> {
    let request = container.into().with_label(OWNER, owner);
    let image = request.descriptor();
    request.start().await.with_context(|| format!("a container of {image} does not start"))
}

async fn log<I: Image>(container: &ContainerAsync<I>) -> Result<Vec<u8>> {
    let (out, err) = tokio::try_join!(container.stdout_to_vec(), container.stderr_to_vec())?;
    Ok([out, err].concat())
}
