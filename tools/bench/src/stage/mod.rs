//! A database, topics and a ledger on the stack of the run.

mod process;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use devstack::TestDatabase;
use reel::inspect::{self, LaneProgress};
use reel::kafka::{KafkaConfig, Topics};
use reel::model::{Event, Partitions};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use sqlx::types::chrono::{DateTime, Utc};

pub use process::Ledger;
pub(crate) use process::memory_mib;

use crate::ledger::{self, LedgerEvent, REQUESTS};
use crate::run::Bench;

/// Partitions of each topic: the default of the services.
pub const PARTITIONS: i32 = 12;
/// Poll interval for progress: short against what takes seconds, and long enough not to disturb
/// the measured process.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Time limit for the next sign of progress.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A database and topics, on which ledgers can run.
pub struct Stage {
    /// Configuration of Kafka clients.
    pub kafka: KafkaConfig,
    /// A pool of connections to the ledger's database.
    pub pool: PgPool,
    database: TestDatabase,
    log: PathBuf,
}

impl Stage {
    /// Creates an empty database with its tables, and empty topics.
    ///
    /// # Errors
    /// If Kafka or Postgres is unreachable or refuses.
    pub async fn new(bench: &Bench) -> Result<Self> {
        let database = TestDatabase::create(bench.stack.postgres.url(), "ledger").await?;
        let pool = PgPoolOptions::new().max_connections(4).connect(database.url()).await?;
        let mut connection = pool.acquire().await?;
        let migrated = reel::runtime::migrate::<ledger::App>(&mut connection).await;
        migrated.context("cannot create the tables")?;

        let prefix = devstack::topics::unique_prefix();
        let kafka = KafkaConfig {
            brokers: bench.stack.kafka.bootstrap().to_owned(),
            group: format!("{prefix}ledger"),
            prefix,
            properties: vec![],
        };
        let topics = Topics::new(kafka.clone())?;
        for topic in [LedgerEvent::TOPIC, REQUESTS] {
            topics.create_journal(topic, PARTITIONS, None).await?;
        }
        let log = bench.logs.path().join(format!("{}.log", kafka.group));
        Ok(Self { kafka, pool, database, log })
    }

    /// The partitions of each topic.
    #[must_use]
    pub fn partitions() -> Partitions {
        Partitions::new(PARTITIONS).expect("12 is more than 0")
    }

    /// Starts a ledger, without waiting until it is ready.
    ///
    /// # Errors
    /// If its process cannot be started.
    pub fn launch(&self, settings: &[(&str, &str)]) -> Result<Ledger> {
        Ledger::launch(self.database.url(), &self.kafka, &self.log, settings)
    }

    /// Starts a ledger and waits until it accepts commands.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start(&self, settings: &[(&str, &str)]) -> Result<Ledger> {
        let mut ledger = self.launch(settings)?;
        ledger.ready().await?;
        Ok(ledger)
    }

    /// Starts a ledger once and kills it, so that the tables know the lanes and the partitions are
    /// opened.
    ///
    /// # Errors
    /// If the ledger does not start.
    pub async fn opened_once(&self) -> Result<()> {
        self.start(&[]).await?.kill().await
    }

    /// The time of the database's clock.
    ///
    /// # Errors
    /// If Postgres is unreachable.
    pub async fn database_time(&self) -> Result<DateTime<Utc>> {
        Ok(sqlx::query_scalar("select clock_timestamp()").fetch_one(&self.pool).await?)
    }

    /// Waits until the relay's cursors show that the broker has acked a number of events.
    ///
    /// # Errors
    /// If the relay makes no progress.
    pub async fn until_published(&self, events: i64) -> Result<()> {
        let (mut last, mut moved_at) = (-1, Instant::now());
        loop {
            let published = self.published_events().await?;
            if published >= events {
                return Ok(());
            }

            if published != last {
                (last, moved_at) = (published, Instant::now());
            }
            anyhow::ensure!(
                moved_at.elapsed() < IDLE_TIMEOUT,
                "{published} of {events} events were published, and none in the last \
                 {IDLE_TIMEOUT:?}{}",
                process::log_tail(&self.log)
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The number of events that the relay's cursors know as acked.
    ///
    /// # Errors
    /// If Postgres is unreachable.
    pub async fn published_events(&self) -> Result<i64> {
        Ok(self.lanes().await?.iter().map(|lane| lane.published).sum())
    }

    /// The number of committed events: the sum of the next sequences.
    ///
    /// # Errors
    /// If Postgres is unreachable.
    pub async fn committed_events(&self) -> Result<i64> {
        Ok(self.lanes().await?.iter().map(|lane| lane.next_sequence).sum())
    }

    /// The progress of every lane.
    ///
    /// # Errors
    /// If Postgres is unreachable.
    pub async fn lanes(&self) -> Result<Vec<LaneProgress>> {
        Ok(inspect::lanes(&mut *self.pool.acquire().await?).await?)
    }

    /// Deletes the topics; the database is dropped with this value. No ledger may still run.
    ///
    /// # Errors
    /// If Kafka is unreachable or refuses.
    pub async fn end(self) -> Result<()> {
        self.pool.close().await;
        devstack::topics::delete_with_prefix(&self.kafka.brokers, &self.kafka.prefix).await?;
        Ok(())
    }
}
