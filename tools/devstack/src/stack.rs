//! A Kafka and a Postgres together: given, shared, or owned by this process.

use std::path::{Path, PathBuf};
use std::{env, fmt};

use anyhow::{Context, Result, bail};
use sqlx::{Connection, PgConnection};
use tokio::sync::OnceCell;

use crate::docker;
#[cfg(feature = "docker")]
use crate::docker::Containers;
use crate::kafka::{Kafka, bootstrap};
use crate::postgres::{Postgres, url};
use crate::server::{running, start_shared, stop_shared};
use crate::{KafkaServer, PostgresServer, folders, topics};

const KAFKA: &str = "REEL_KAFKA";
const POSTGRES: &str = "REEL_POSTGRES";

/// The addresses of a running Kafka and a running Postgres.
#[derive(Clone, Debug)]
pub struct Stack {
    kafka: String,
    postgres: String,
    source: Source,
}

/// Where a stack comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `REEL_KAFKA` and `REEL_POSTGRES` name it.
    Environment,
    /// Containers, which are removed with this process.
    Docker,
    /// Processes of this machine, started by `devstack` in this folder.
    Local(PathBuf),
}

impl Stack {
    /// The shared stack of this machine: the one that the environment names; or with `STACK=docker`
    /// containers, which are removed with this process; or else local processes, which are started
    /// unless they are running, and left running for the next process. It is determined once per
    /// process.
    ///
    /// # Errors
    /// If the given stack is unreachable, or a local one cannot be started.
    pub async fn shared() -> Result<Self> {
        static SHARED: OnceCell<Stack> = OnceCell::const_new();
        let find = || async {
            let stack = match Self::given().await? {
                Some(given) => given,
                None if docker::is_wanted()? => Self::in_containers().await?,
                None => Self::shared_in(&folders::data()?).await?,
            };
            crate::progress(&stack.to_string());
            anyhow::Ok(stack)
        };
        SHARED.get_or_try_init(find).await.cloned()
    }

    /// Containers, which are removed with this process.
    #[cfg(feature = "docker")]
    async fn in_containers() -> Result<Self> {
        static CONTAINERS: OnceCell<Containers> = OnceCell::const_new();
        Ok(Self::from_containers(CONTAINERS.get_or_try_init(Containers::start).await?))
    }

    #[cfg(not(feature = "docker"))]
    async fn in_containers() -> Result<Self> {
        bail!(docker::NOT_BUILT)
    }

    /// The stack that the environment names, or local processes in this data folder.
    ///
    /// # Errors
    /// As [`Self::shared`].
    pub async fn shared_in(data: &Path) -> Result<Self> {
        if let Some(stack) = Self::given().await? {
            return Ok(stack);
        }
        let folder = folder(data)?;
        let _lock = folders::lock(&folder.join("lock")).await?;
        let (kafka, postgres) = (folder.join("kafka"), folder.join("postgres"));

        // Wait for both, even if one fails: otherwise the other could run without a state file.
        let (kafka, postgres) = tokio::join!(
            start_shared(Kafka::new(vec![]), &kafka),
            start_shared(Postgres { settings: vec![] }, &postgres)
        );
        let (kafka, postgres) = (kafka?, postgres?);
        Ok(Self::local(folder, kafka.ports[0], postgres.ports[0]))
    }

    /// The stack that the environment names, if it names one. Both servers have answered.
    ///
    /// # Errors
    /// If only one of the two addresses is given, or a server is unreachable.
    pub async fn given() -> Result<Option<Self>> {
        let [kafka, postgres] =
            [KAFKA, POSTGRES].map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
        let (kafka, postgres) = match (kafka, postgres) {
            (Some(kafka), Some(postgres)) => (kafka, postgres),
            (None, None) => return Ok(None),
            (Some(_), None) => bail!("{KAFKA} is set and {POSTGRES} is not: set both or neither"),
            (None, Some(_)) => bail!("{POSTGRES} is set and {KAFKA} is not: set both or neither"),
        };

        topics::names(&kafka, "")
            .await
            .with_context(|| format!("the broker that {KAFKA} names is unreachable"))?;
        let connection = PgConnection::connect(&postgres).await;
        connection
            .with_context(|| {
                format!("the server that {POSTGRES} names is unreachable: {postgres}")
            })?
            .close()
            .await?;

        Ok(Some(Self { kafka, postgres, source: Source::Environment }))
    }

    /// The local stack of this data folder, if both of its servers are running.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub fn running_in(data: &Path) -> Result<Option<Self>> {
        let folder = folder(data)?;
        let servers = running(&folder.join("kafka")).zip(running(&folder.join("postgres")));
        Ok(servers.map(|(kafka, postgres)| Self::local(folder, kafka.ports[0], postgres.ports[0])))
    }

    /// Stops the local stack of this data folder; its data stays. Returns whether it was running.
    ///
    /// # Errors
    /// If a server cannot be stopped.
    pub async fn stop_in(data: &Path) -> Result<bool> {
        let folder = folder(data)?;
        let _lock = folders::lock(&folder.join("lock")).await?;
        let (kafka, postgres) = (folder.join("kafka"), folder.join("postgres"));
        let stopped =
            tokio::try_join!(stop_shared::<Kafka>(&kafka), stop_shared::<Postgres>(&postgres))?;
        Ok(stopped.0 || stopped.1)
    }

    /// The bootstrap servers, for clients.
    pub fn kafka(&self) -> &str {
        &self.kafka
    }

    /// The URL of a Postgres user who may create databases.
    pub fn postgres(&self) -> &str {
        &self.postgres
    }

    /// Where the stack comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The environment variables that point other programs to this stack.
    pub fn variables(&self) -> [(&'static str, &str); 2] {
        [(KAFKA, &self.kafka), (POSTGRES, &self.postgres)]
    }

    /// The stack in these containers.
    #[cfg(feature = "docker")]
    pub fn from_containers(containers: &Containers) -> Self {
        Self {
            kafka: containers.kafka().to_owned(),
            postgres: containers.postgres().to_owned(),
            source: Source::Docker,
        }
    }

    fn local(folder: PathBuf, kafka: u16, postgres: u16) -> Self {
        Self { kafka: bootstrap(kafka), postgres: url(postgres), source: Source::Local(folder) }
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kafka {}, postgres {} ", self.kafka, self.postgres)?;
        match &self.source {
            Source::Environment => write!(f, "(given by {KAFKA} and {POSTGRES})"),
            Source::Docker => write!(f, "(containers)"),
            Source::Local(folder) => write!(f, "(local processes, {})", folder.display()),
        }
    }
}

/// A stack that belongs to this process and dies with it.
pub struct OwnStack {
    /// The broker.
    pub kafka: KafkaServer,
    /// The database server.
    pub postgres: PostgresServer,
}

impl OwnStack {
    /// Starts both servers at once, in folders of their own.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn start() -> Result<Self> {
        let (kafka, postgres) =
            tokio::try_join!(KafkaServer::temporary(), PostgresServer::temporary())?;
        Ok(Self { kafka, postgres })
    }

    /// Starts both servers for benchmarks, Postgres with these settings.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn for_benchmarks(settings: &[(&str, &str)]) -> Result<Self> {
        let (kafka, postgres) = tokio::try_join!(
            KafkaServer::for_benchmarks(),
            PostgresServer::temporary_with(settings)
        )?;
        Ok(Self { kafka, postgres })
    }

    /// The addresses of the servers.
    pub fn stack(&self) -> Stack {
        let folder =
            self.kafka.log().parent().and_then(Path::parent).unwrap_or(Path::new("/")).to_owned();
        Stack::local(folder, self.kafka.port(), self.postgres.port())
    }
}

fn folder(data: &Path) -> Result<PathBuf> {
    let folder = data.join("shared");
    folders::create_ours(&folder)?;
    Ok(folder)
}
