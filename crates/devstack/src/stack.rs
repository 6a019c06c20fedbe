//! A Kafka and a Postgres together: given, shared, or one's own.

use std::path::{Path, PathBuf};
use std::{env, fmt};

use anyhow::{Context, Result, bail};
use sqlx::{Connection, PgConnection};
use tokio::sync::OnceCell;

use crate::docker::{self, Containers};
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
    /// `REEL_KAFKA` and `REEL_POSTGRES` say where it is.
    Environment,
    /// Containers that go with this process.
    Docker,
    /// Processes of this machine, started by us in this folder.
    Local(PathBuf),
}

impl Stack {
    /// The stack of this machine: the one that the environment names; or with `STACK=docker` containers, which go with this process;
    /// or else local processes, which are started if they do not run, and left running for whoever comes next. Within one process
    /// the answer is found once.
    ///
    /// # Errors
    /// If the stack that is given does not answer, or a local one cannot be started.
    pub async fn shared() -> Result<Self> {
        static SHARED: OnceCell<Stack> = OnceCell::const_new();
        static CONTAINERS: OnceCell<Containers> = OnceCell::const_new();
        let find = || async {
            let stack = match Self::given().await? {
                Some(given) => given,
                None if docker::is_wanted()? => Self::of(CONTAINERS.get_or_try_init(Containers::start).await?),
                None => Self::shared_in(&folders::data()?).await?,
            };
            crate::say(&format!("{stack}"));
            anyhow::Ok(stack)
        };
        SHARED.get_or_try_init(find).await.cloned()
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
        // Both are waited for, even if one fails, so that no server runs that is not written down.
        let (kafka, postgres) =
            tokio::join!(start_shared(Kafka::new(vec![]), &kafka), start_shared(Postgres { settings: vec![] }, &postgres));
        let (kafka, postgres) = (kafka?, postgres?);
        Ok(Self::local(folder, kafka.ports[0], postgres.ports[0]))
    }

    /// The stack that the environment names, if it names one; it has answered.
    ///
    /// # Errors
    /// If only one of the two addresses is given, or one does not answer.
    pub async fn given() -> Result<Option<Self>> {
        let [kafka, postgres] = [KAFKA, POSTGRES].map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
        let (kafka, postgres) = match (kafka, postgres) {
            (Some(kafka), Some(postgres)) => (kafka, postgres),
            (None, None) => return Ok(None),
            (Some(_), None) => bail!("{KAFKA} is set and {POSTGRES} is not: set both or neither"),
            (None, Some(_)) => bail!("{POSTGRES} is set and {KAFKA} is not: set both or neither"),
        };
        topics::names(&kafka, "").await.with_context(|| format!("{KAFKA} names a broker that cannot be used"))?;
        let connection = PgConnection::connect(&postgres).await;
        connection.with_context(|| format!("{POSTGRES} names a server that does not answer: {postgres}"))?.close().await?;
        Ok(Some(Self { kafka, postgres, source: Source::Environment }))
    }

    /// The local stack of this data folder, if both of its servers run.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn running_in(data: &Path) -> Result<Option<Self>> {
        let folder = folder(data)?;
        let servers = running(&folder.join("kafka")).zip(running(&folder.join("postgres")));
        Ok(servers.map(|(kafka, postgres)| Self::local(folder, kafka.ports[0], postgres.ports[0])))
    }

    /// Stops the local stack of this data folder; the data stays. Says whether anything ran.
    ///
    /// # Errors
    /// If a server cannot be stopped.
    pub async fn stop_in(data: &Path) -> Result<bool> {
        let folder = folder(data)?;
        let _lock = folders::lock(&folder.join("lock")).await?;
        let (kafka, postgres) = (folder.join("kafka"), folder.join("postgres"));
        let stopped = tokio::try_join!(stop_shared::<Kafka>(&kafka), stop_shared::<Postgres>(&postgres))?;
        Ok(stopped.0 || stopped.1)
    }

    /// What a client takes as `bootstrap.servers`.
    pub fn kafka(&self) -> &str {
        &self.kafka
    }

    /// A Postgres address whose user may create databases.
    pub fn postgres(&self) -> &str {
        &self.postgres
    }

    /// Where the stack comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The environment variables by which other programs find this stack.
    pub fn variables(&self) -> [(&'static str, &str); 2] {
        [(KAFKA, &self.kafka), (POSTGRES, &self.postgres)]
    }

    /// The stack that these containers are.
    pub fn of(containers: &Containers) -> Self {
        Self { kafka: containers.kafka().to_owned(), postgres: containers.postgres().to_owned(), source: Source::Docker }
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
    /// Its broker.
    pub kafka: KafkaServer,
    /// Its database server.
    pub postgres: PostgresServer,
}

impl OwnStack {
    /// Starts both servers at once, in folders of their own.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn start() -> Result<Self> {
        let (kafka, postgres) = tokio::try_join!(KafkaServer::temporary(), PostgresServer::temporary())?;
        Ok(Self { kafka, postgres })
    }

    /// Starts both servers to be measured, Postgres with these settings.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn to_measure(settings: &[(&str, &str)]) -> Result<Self> {
        let (kafka, postgres) = tokio::try_join!(KafkaServer::to_measure(), PostgresServer::temporary_with(settings))?;
        Ok(Self { kafka, postgres })
    }

    /// Its addresses.
    pub fn stack(&self) -> Stack {
        let folder = self.kafka.log().parent().and_then(Path::parent).unwrap_or(Path::new("/")).to_owned();
        Stack::local(folder, self.kafka.port(), self.postgres.port())
    }
}

fn folder(data: &Path) -> Result<PathBuf> {
    let folder = data.join("shared");
    folders::make_ours(&folder)?;
    Ok(folder)
}
