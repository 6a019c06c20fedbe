//! What can be seen of a system that runs, from outside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::time::{Instant, sleep};

use super::{Client, PerService, Progress, Service};
use crate::audit::Places;

const LOOK: Duration = Duration::from_millis(50);

/// A running system as its users and its auditor see it: by HTTP, by its databases and by its topics.
pub struct View {
    client: Client,
    places: Places,
    pools: PerService<PgPool>,
}

impl View {
    /// Connects when it is first asked.
    ///
    /// # Errors
    /// Where the address of a database is wrong.
    pub fn new(client: Client, places: Places) -> Result<Self> {
        let pool = |service| {
            let pool = PgPoolOptions::new().max_connections(3).acquire_timeout(Duration::from_secs(10));
            pool.connect_lazy(&places.databases[service])
        };
        let pools = PerService::try_new(pool).context("the address of postgres is wrong")?;
        Ok(Self { client, places, pools })
    }

    /// A client of all replicas that run.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// What the audit reads.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// A pool of connections to a service's database.
    #[must_use]
    pub fn pool(&self, service: Service) -> &PgPool {
        &self.pools[service]
    }

    pub(super) async fn close(&self) {
        futures_util::future::join_all(Service::ALL.map(|service| self.pools[service].close())).await;
    }

    /// How far the sagas have come, by the databases.
    ///
    /// # Errors
    /// Where a database does not answer.
    pub async fn progress(&self) -> Result<Progress> {
        Ok(Progress::read(&self.pools, |service| self.places.kafka.topic(service.topic())).await?)
    }

    /// Waits until every order has ended, every cancelled one is undone, and everything that was published has been consumed.
    ///
    /// # Errors
    /// What is left after the limit.
    pub async fn until_quiet(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let progress = self.progress().await?;
            if progress.is_quiet() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "waited {limit:?} and {progress}");
            sleep(LOOK).await;
        }
    }
}
