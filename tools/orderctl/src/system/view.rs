//! A running system as it is seen from outside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::time::{Instant, sleep};

use super::{Client, PerService, Progress, Service};
use crate::audit::Sources;

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A running system as its users and its auditor see it: by HTTP, by its databases and by its
/// topics.
pub struct View {
    client: Client,
    sources: Sources,
    pools: PerService<PgPool>,
}

impl View {
    /// Returns a view, which connects to databases when they are first read.
    ///
    /// # Errors
    /// If the address of a database is invalid.
    pub fn new(client: Client, sources: Sources) -> Result<Self> {
        let pool = |service| {
            let pool =
                PgPoolOptions::new().max_connections(3).acquire_timeout(Duration::from_secs(10));
            pool.connect_lazy(&sources.databases[service])
        };
        let pools = PerService::try_new(pool).context("the address of postgres is wrong")?;
        Ok(Self { client, sources, pools })
    }

    /// Returns a client of all replicas that run.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Returns where the audit finds the system.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Returns a pool of connections to a service's database.
    #[must_use]
    pub fn pool(&self, service: Service) -> &PgPool {
        &self.pools[service]
    }

    pub(super) async fn close(&self) {
        futures_util::future::join_all(Service::all().map(|service| self.pools[service].close()))
            .await;
    }

    /// Reads the progress of the sagas from the databases.
    ///
    /// # Errors
    /// If a database cannot be read.
    pub async fn progress(&self) -> Result<Progress> {
        Ok(Progress::read(&self.pools, |service| self.sources.kafka.topic(service.topic())).await?)
    }

    /// Waits until every order has ended, every cancelled one is compensated, and every event has
    /// been published and consumed.
    ///
    /// # Errors
    /// If the system is not quiet within the limit; with what is left.
    pub async fn until_quiet(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let progress = self.progress().await?;
            if progress.is_quiet() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "waited {limit:?} and {progress}");
            sleep(POLL_INTERVAL).await;
        }
    }
}
