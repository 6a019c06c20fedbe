//! Faults that lose a database: Postgres is put back to a copy, or a database is dropped. What was
//! acknowledged before is noted.

use std::time::Duration;

use anyhow::{Context, Result};
use devstack::proxy::{Network, Proxy};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::{Instant, sleep, sleep_until};

use super::acknowledgements::DatabaseLoss;
use super::published::Published;
use super::schedule::{Fault, Server};
use super::{Run, log};
use crate::system::{Client, Service};

/// Time for which a service cannot reach Kafka before its database is lost.
const UNPUBLISHED: Duration = Duration::from_millis(500);
/// Time from the stop of Postgres until every try that was sent before has its reply or was given
/// up.
const ANSWERED: Duration = Client::TRY.saturating_add(Duration::from_millis(500));

impl Run {
    /// Stops Postgres, copies its data and starts it again.
    pub(super) async fn copy(&self, fault: &Fault) -> Result<()> {
        let mut postgres = self.stage.postgres.lock().await;
        self.begin_fault(fault, None, None).await;

        postgres.stop().await?;
        let copy = self.copy_folder();
        if copy.exists() {
            std::fs::remove_dir_all(&copy)?;
        }
        postgres.copy_to(&copy).await?;
        postgres.restart().await
    }

    /// Stops Postgres while the services cannot reach Kafka, so that something is acknowledged and
    /// not published, and starts it from the last copy. What the relays hold in memory reaches
    /// Kafka when Postgres is back.
    pub(super) async fn put_back(&self, fault: &Fault) -> Result<()> {
        // Held, so that Kafka runs: the topics are read meanwhile.
        let _kafka = self.stage.kafka.lock().await;
        let mut postgres = self.stage.postgres.lock().await;
        let mut to_kafka = Vec::new();
        for service in Service::all() {
            to_kafka.push(self.stage.to_kafka[service].lock().await);
        }
        self.begin_fault(fault, None, None).await;

        to_kafka.iter().for_each(|listener| listener.proxy().set(Network::BlackHole));
        sleep(UNPUBLISHED).await;
        postgres.stop().await?;
        self.note_losses(&Service::SAGA).await?;

        postgres.restore_from(self.copy_folder()).await?;
        postgres.restart().await?;
        to_kafka.iter().for_each(|listener| listener.proxy().set(Network::Pass));
        Ok(())
    }

    /// Drops the database of a service and creates it again. Until then the service is cut off from
    /// it, which is to the service as if Postgres were stopped. Kafka is cut off as in
    /// [`Self::put_back`].
    pub(super) async fn drop_database(&self, fault: &Fault, service: Service) -> Result<()> {
        let _kafka = self.stage.kafka.lock().await;
        let postgres = self.stage.postgres.lock().await;
        let to_kafka = self.stage.to_kafka[service].lock().await;
        let url = self.stage.system.database_url(service);
        let name =
            url.rsplit('/').next().context("the address of a database ends with its name")?;

        let mut admin = PgConnection::connect(postgres.url()).await?;
        let change = async |proxy: &Proxy| {
            self.begin_fault(fault, Some(service), None).await;
            to_kafka.proxy().set(Network::BlackHole);
            sleep(UNPUBLISHED).await;
            proxy.set(Network::Cut);
            sqlx::query(
                "select count(pg_terminate_backend(pid, 5000))
                 from pg_stat_activity where datname = $1",
            )
            .bind(name)
            .execute(&mut admin)
            .await?;
            self.note_losses(&[service]).await?;

            for statement in [
                format!("drop database \"{name}\" with (force)"),
                format!("create database \"{name}\""),
            ] {
                admin.execute(sqlx::query(AssertSqlSafe(statement))).await?;
            }

            let migrated = self.stage.system.run(service, "migrate").await;
            proxy.set(Network::Pass);
            to_kafka.proxy().set(Network::Pass);
            migrated
        };
        self.stage.network(service, Server::Postgres, change).await
    }

    /// Notes what was acknowledged from the databases of these services and is not in their topics.
    /// The databases have just stopped for good.
    async fn note_losses(&self, services: &[Service]) -> Result<()> {
        let stopped_at = Instant::now();
        let published = Published::when_quiet(&self.stage.system, services).await?;
        sleep_until(stopped_at + ANSWERED).await;

        let loss = DatabaseLoss { stopped_at, replaced_at: Instant::now() };
        let unpublished = self.notes.databases_lost(services, &published, loss);
        log(&format!(
            "{unpublished} requests were acknowledged and not published \
             when their database was lost"
        ));
        Ok(())
    }
}
