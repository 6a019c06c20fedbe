//! A database, topics and a ledger on the stack of the run.

mod process;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use devstack::TestDatabase;
use reel::kafka::{Kafka, Topics};
use reel::model::{Event, Partitions};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use sqlx::types::chrono::{DateTime, Utc};

pub use process::Ledger;
pub(crate) use process::memory_mib;

use crate::ledger::{LedgerEvent, REQUESTS, TABLES};
use crate::run::Bench;

/// As many as services have unless told otherwise.
pub const PARTITIONS: i32 = 12;
/// How often it is looked how far something has come: often for what takes seconds, and rarely for who is measured.
const LOOK: Duration = Duration::from_millis(10);
/// How long nothing at all may happen.
const IDLE_AT_MOST: Duration = Duration::from_secs(60);

/// A database, topics, and a ledger that may run on them.
pub struct Stage {
    /// How Kafka is reached.
    pub kafka: Kafka,
    /// A pool of connections to the ledger's database.
    pub pool: PgPool,
    database: TestDatabase,
    log: PathBuf,
}

impl Stage {
    /// An empty database with its tables, and empty topics.
    ///
    /// # Errors
    /// Where Kafka or Postgres refuse.
    pub async fn new(bench: &Bench) -> Result<Self> {
        let database = TestDatabase::create(bench.stack.postgres.url(), "ledger").await?;
        let pool = PgPoolOptions::new().max_connections(4).connect(database.url()).await?;
        for tables in TABLES {
            sqlx::raw_sql(tables).execute(&pool).await.context("the tables cannot be made")?;
        }
        let prefix = devstack::topics::unique_prefix();
        let kafka =
            Kafka { brokers: bench.stack.kafka.bootstrap().to_owned(), group: format!("{prefix}ledger"), prefix, properties: vec![] };
        let topics = Topics::new(kafka.clone())?;
        for topic in [LedgerEvent::TOPIC, REQUESTS] {
            topics.create_journal(topic, PARTITIONS, None).await?;
        }
        let log = bench.logs.path().join(format!("{}.log", kafka.group));
        Ok(Self { kafka, pool, database, log })
    }

    /// How many partitions each topic has.
    #[must_use]
    pub fn partitions() -> Partitions {
        Partitions::new(PARTITIONS).expect("twelve are more than none")
    }

    /// Starts the ledger, and does not wait until it is ready.
    ///
    /// # Errors
    /// Where its process cannot be started.
    pub fn launch(&self, settings: &[(&str, &str)]) -> Result<Ledger> {
        Ledger::launch(self.database.url(), &self.kafka, &self.log, settings)
    }

    /// Starts the ledger and waits until it takes commands.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn start(&self, settings: &[(&str, &str)]) -> Result<Ledger> {
        let mut ledger = self.launch(settings)?;
        ledger.ready().await?;
        Ok(ledger)
    }

    /// The ledger's tables as its first start leaves them, though no ledger runs: its lanes are known, and its partitions opened.
    ///
    /// # Errors
    /// Where the ledger does not start.
    pub async fn opened_once(&self) -> Result<()> {
        self.start(&[]).await?.kill().await
    }

    /// The database's clock.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn database_time(&self) -> Result<DateTime<Utc>> {
        Ok(sqlx::query_scalar("select clock_timestamp()").fetch_one(&self.pool).await?)
    }

    /// Waits until the broker has acked so many events, as the relay's cursors say.
    ///
    /// # Errors
    /// Where the relay makes no progress.
    pub async fn until_published(&self, events: i64) -> Result<()> {
        let (mut last, mut moved_at) = (-1, Instant::now());
        loop {
            let published: i64 = sqlx::query_scalar("select coalesce(sum(seq), 0)::bigint from reel.cursors").fetch_one(&self.pool).await?;
            if published >= events {
                return Ok(());
            }
            if published != last {
                (last, moved_at) = (published, Instant::now());
            }
            anyhow::ensure!(
                moved_at.elapsed() < IDLE_AT_MOST,
                "{published} of {events} events were published, and for {IDLE_AT_MOST:?} no more{}",
                process::last_words(&self.log)
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many events were numbered.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn numbered(&self) -> Result<i64> {
        Ok(sqlx::query_scalar("select coalesce(sum(next_seq), 0)::bigint from reel.heads").fetch_one(&self.pool).await?)
    }

    /// Deletes the topics; the database is dropped with this value. The ledger should be gone.
    ///
    /// # Errors
    /// Where Kafka refuses.
    pub async fn end(self) -> Result<()> {
        self.pool.close().await;
        devstack::topics::delete_with_prefix(&self.kafka.brokers, &self.kafka.prefix).await?;
        Ok(())
    }
}
