//! A Kafka and a Postgres in containers.

use std::path::Path;
use std::time::Duration;
use std::{fs, process};

use anyhow::{Context, Result};
use testcontainers_modules::kafka::apache::{KAFKA_PORT, Kafka};
use testcontainers_modules::postgres::Postgres;
use testcontainers_modules::testcontainers::core::IntoContainerPort;
use testcontainers_modules::testcontainers::core::logs::LogFrame;
use testcontainers_modules::testcontainers::runners::AsyncRunner;
use testcontainers_modules::testcontainers::{ContainerAsync, ContainerRequest, Image, ImageExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::command::docker;
use super::guard::Guard;
use crate::kafka::{TUNING, bootstrap};
use crate::{postgres, topics};

const KAFKA_TAG: &str = "4.3.1";
const POSTGRES_TAG: &str = "18";
/// The label with the owner of a container: the process that created it, and a suffix that makes
/// the owner unique even if the process id is reused.
const OWNER: &str = "reel.owner";
/// Lists for the guard what is left. The argument is the label.
const LIST: &str = r#"docker ps --all --quiet --filter "$1""#;
/// Removes for the guard what is left.
const REMOVE: &str = "docker rm --force --volumes $left";

/// Time limit for reading the log of a container that does not start. The log ends when the
/// container is removed, which has already happened by then.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);
const LOG_LINES: usize = 15;

/// A Kafka and a Postgres in containers, on ports that the engine has chosen.
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
    /// If there is no engine, an image cannot be pulled, or a server does not start (the error has
    /// the end of its log).
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// As [`Self::start`], with additional settings of Postgres, as `name=value`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(settings: &[&str]) -> Result<Self> {
        let owner = format!("{}-{}", process::id(), topics::unique_prefix().trim_end_matches('-'));
        let guard = Guard::new(LIST, REMOVE, &[format!("label={OWNER}={owner}").as_ref()])?;
        let variable = |line: &str| {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            (format!("KAFKA_{}", name.replace('.', "_").to_uppercase()), value.to_owned())
        };

        let kafka = Kafka::default()
            .with_jvm_image()
            .with_tag(KAFKA_TAG)
            .with_env_var("KAFKA_HEAP_OPTS", "-Xms64m -Xmx512m");
        let kafka = TUNING
            .lines()
            .map(variable)
            .fold(kafka, |kafka, (name, value)| kafka.with_env_var(name, value));

        let settings =
            postgres::SETTINGS.iter().chain(settings).flat_map(|setting| ["-c", setting]);
        let postgres = Postgres::default()
            .with_tag(POSTGRES_TAG)
            .with_cmd(["postgres"].into_iter().chain(settings));
        let (kafka, postgres) = tokio::try_join!(start(kafka, &owner), start(postgres, &owner))?;
        let addresses = (
            bootstrap(kafka.get_host_port_ipv4(KAFKA_PORT).await?),
            format!(
                "postgres://postgres:postgres@127.0.0.1:{}/postgres",
                postgres.get_host_port_ipv4(5432.tcp()).await?
            ),
        );

        Ok(Self { kafka, postgres, addresses, _guard: guard })
    }

    /// The names of all containers that the process with this id has created here, running or not.
    ///
    /// # Errors
    /// If there is no engine.
    pub async fn of_process(id: u32) -> Result<Vec<String>> {
        let (filter, format) =
            (format!("label={OWNER}"), format!("{{{{.Label \"{OWNER}\"}}}} {{{{.Names}}}}"));
        let all =
            docker(&["ps", "--all", "--filter", &filter, "--format", &format]).await?.success()?;
        let owner = format!("{id}-");
        Ok(all
            .lines()
            .filter(|line| line.starts_with(&owner))
            .filter_map(|line| Some(line.split_once(' ')?.1.to_owned()))
            .collect())
    }

    /// The bootstrap servers, for clients.
    pub fn kafka(&self) -> &str {
        &self.addresses.0
    }

    /// The URL of the superuser.
    pub fn postgres(&self) -> &str {
        &self.addresses.1
    }

    /// Writes the logs of the servers to `kafka.log` and `postgres.log`.
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

/// Starts a container. Follows its log from the beginning, because a container that does not become
/// ready is removed at once.
async fn start<I: Image>(
    container: impl Into<ContainerRequest<I>>,
    owner: &str,
) -> Result<ContainerAsync<I>> {
    let (frames, mut followed) = mpsc::unbounded_channel();

    // Sending fails once the container is ready, because nobody reads the log any more.
    let follow = move |frame: &LogFrame| drop(frames.send(frame.bytes().clone()));
    let request = container.into().with_label(OWNER, owner).with_log_consumer(follow);
    let image = request.descriptor();
    let error = match request.start().await {
        Ok(container) => return Ok(container),
        Err(error) => error,
    };

    let mut log = Vec::<u8>::new();
    let to_its_end = async {
        while let Some(frame) = followed.recv().await {
            log.extend_from_slice(&frame);
        }
    };
    let _ = timeout(LOG_TIMEOUT, to_its_end).await;
    Err(error).with_context(|| {
        format!("a container of {image} does not start; its log ends:\n{}\n", end_of(&log))
    })
}

fn end_of(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

async fn log<I: Image>(container: &ContainerAsync<I>) -> Result<Vec<u8>> {
    let (out, err) = tokio::try_join!(container.stdout_to_vec(), container.stderr_to_vec())?;
    Ok([out, err].concat())
}
