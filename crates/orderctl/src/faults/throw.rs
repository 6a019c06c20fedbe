//! Databases that go back in time or are dropped, and what was told of them before.

use std::time::Duration;

use anyhow::{Context, Result};
use devstack::proxy::{Network, Proxy};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::{Instant, sleep, sleep_until};

use super::published::Published;
use super::schedule::{Fault, Server};
use super::told::Thrown;
use super::{Run, say};
use crate::system::{Client, Service};

/// So long a service cannot reach Kafka before its database goes.
const UNPUBLISHED: Duration = Duration::from_millis(500);
/// When Postgres was stopped so long ago, every try that was sent before has its reply or was given up.
const ANSWERED: Duration = Client::TRY.saturating_add(Duration::from_millis(500));

impl Run {
    pub(super) async fn copy(&self, fault: &Fault) -> Result<()> {
        let mut postgres = self.stage.postgres.lock().await;
        self.begins(fault, None, None).await;
        postgres.stop().await?;
        let copy = self.copy_folder();
        if copy.exists() {
            std::fs::remove_dir_all(&copy)?;
        }
        postgres.copy_to(&copy).await?;
        postgres.start_again().await
    }

    /// Postgres goes while the services cannot reach Kafka, so that something is acknowledged and not published. What their relays
    /// hold in memory reaches Kafka when Postgres is back.
    pub(super) async fn put_back(&self, fault: &Fault) -> Result<()> {
        let _kafka = self.stage.kafka.lock().await; // it runs: the topics are read meanwhile
        let mut postgres = self.stage.postgres.lock().await;
        let mut to_kafka = Vec::new();
        for service in Service::ALL {
            to_kafka.push(self.stage.to_kafka[service].lock().await);
        }
        self.begins(fault, None, None).await;
        to_kafka.iter().for_each(|listener| listener.proxy().set(Network::BlackHole));
        sleep(UNPUBLISHED).await;
        postgres.stop().await?;
        self.throw_away(&Service::ALL).await?;
        postgres.restore_from(self.copy_folder()).await?;
        postgres.start_again().await?;
        to_kafka.iter().for_each(|listener| listener.proxy().set(Network::Pass));
        Ok(())
    }

    /// The service is cut off from its database, which is to it as if Postgres were stopped, until there is a new one. Kafka as in
    /// [`Self::put_back`].
    pub(super) async fn drop_database(&self, fault: &Fault, service: Service) -> Result<()> {
        let _kafka = self.stage.kafka.lock().await;
        let postgres = self.stage.postgres.lock().await;
        let to_kafka = self.stage.to_kafka[service].lock().await;
        let url = self.stage.system.database_url(service);
        let name = url.rsplit('/').next().context("the address of a database ends with its name")?;
        let mut admin = PgConnection::connect(postgres.url()).await?;
        let change = async |proxy: &Proxy| {
            self.begins(fault, Some(service), None).await;
            to_kafka.proxy().set(Network::BlackHole);
            sleep(UNPUBLISHED).await;
            proxy.set(Network::Cut);
            sqlx::query("select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where datname = $1")
                .bind(name)
                .execute(&mut admin)
                .await?;
            self.throw_away(&[service]).await?;
            for statement in [format!("drop database \"{name}\" with (force)"), format!("create database \"{name}\"")] {
                admin.execute(sqlx::query(AssertSqlSafe(statement))).await?;
            }
            let migrated = self.stage.system.run(service, "migrate").await;
            proxy.set(Network::Pass);
            to_kafka.proxy().set(Network::Pass);
            migrated
        };
        self.stage.network(service, Server::Postgres, change).await
    }

    /// The databases of these services have just stopped for good: notes what was told of them and does not stand in their topics.
    async fn throw_away(&self, services: &[Service]) -> Result<()> {
        let stopped_at = Instant::now();
        let published = Published::when_quiet(&self.stage.system, services).await?;
        sleep_until(stopped_at + ANSWERED).await;
        let thrown = Thrown { stopped_at, replaced_at: Instant::now() };
        let unpublished = self.notes.thrown_away(services, &published, thrown);
        say(&format!("{unpublished} requests were acknowledged and not published when their database went"));
        Ok(())
    }
}
