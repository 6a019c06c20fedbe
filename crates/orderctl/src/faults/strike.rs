//! How each fault is done, and undone.

use std::time::Duration;

use anyhow::{Context, Result};
use devstack::proxy::{Network, Proxy};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::sleep;

use super::published::Published;
use super::repeat::repeat;
use super::schedule::{Fault, Foreign, Server};
use super::stage::Member;
use super::{Run, say};
use crate::system::Service;

/// So long a service cannot reach Kafka before its database goes.
const UNPUBLISHED: Duration = Duration::from_millis(500);

impl Run {
    /// Does a fault and undoes it. Waits until nobody else holds its target, and its target has work in hand.
    pub(super) async fn strike(&self, fault: &Fault) -> Result<()> {
        match fault {
            Fault::Kill { service, nth, down } => self.kill(fault, self.stage.member(*service, *nth), *down).await,
            Fault::Pause { service, nth, hold } => self.pause(fault, self.stage.member(*service, *nth), *hold).await,
            Fault::KillServer { server: Server::Kafka, down } => {
                let mut kafka = self.stage.kafka.lock().await;
                self.begins(fault, None, None).await;
                kafka.kill().await?;
                sleep(*down).await;
                kafka.start_again().await
            }
            Fault::KillServer { server: Server::Postgres, down } => {
                let mut postgres = self.stage.postgres.lock().await;
                self.begins(fault, None, None).await;
                postgres.kill().await?;
                sleep(*down).await;
                postgres.start_again().await
            }
            Fault::Network { service, server, network, hold } => {
                let change = async |proxy: &Proxy| {
                    self.begins(fault, Some(*service), None).await;
                    proxy.set(*network);
                    sleep(*hold).await;
                    proxy.set(Network::Pass);
                };
                self.stage.network(*service, *server, change).await;
                Ok(())
            }
            Fault::Foreign { service, foreign, hold } => self.foreign(fault, *service, *foreign, *hold).await,
            Fault::Repeat { service } => {
                let _kafka = self.stage.kafka.lock().await;
                self.begins(fault, Some(*service), None).await;
                repeat(&self.stage.system, *service).await.map(|_| ())
            }
            Fault::Copy => self.copy(fault).await,
            Fault::PutBack => self.put_back(fault).await,
            Fault::Drop { service } => self.drop_database(fault, *service).await,
        }
    }

    async fn kill(&self, fault: &Fault, member: &Member, down: Duration) -> Result<()> {
        let mut replica = member.replica.lock().await;
        self.stage.bury(&mut replica).await;
        self.begins(fault, Some(member.service), Some(&member.name)).await;
        replica.kill().await?;
        sleep(down).await;
        member.start_again(&self.stage.system, &mut replica).await
    }

    async fn pause(&self, fault: &Fault, member: &Member, hold: Duration) -> Result<()> {
        let mut replica = member.replica.lock().await;
        self.stage.bury(&mut replica).await;
        if !replica.is_running() {
            return member.start_again(&self.stage.system, &mut replica).await;
        }
        self.begins(fault, Some(member.service), Some(&member.name)).await;
        replica.pause()?;
        sleep(hold).await;
        replica.resume()
    }

    /// If the server dies meanwhile, so does the transaction.
    async fn foreign(&self, fault: &Fault, service: Service, foreign: Foreign, hold: Duration) -> Result<()> {
        let url = self.stage.system.database_url(service);
        let connection = {
            let _postgres = self.stage.postgres.lock().await; // it runs
            PgConnection::connect(&url).await
        };
        let mut connection = connection.context("the database cannot be reached for a foreign transaction")?;
        let table = match service {
            Service::Order => "orders",
            Service::Payment => "accounts",
            Service::Inventory => "stock",
        };
        let statements = match foreign {
            Foreign::Locks => format!("begin; set local lock_timeout = '5s'; select count(*) from (select from {table} for update) as t"),
            Foreign::StaysOpen => "begin; select txid_current()".to_owned(),
        };
        self.begins(fault, Some(service), None).await;
        if connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.is_ok() {
            sleep(hold).await;
            let _ = connection.execute("rollback").await;
        }
        Ok(())
    }

    async fn copy(&self, fault: &Fault) -> Result<()> {
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
    async fn put_back(&self, fault: &Fault) -> Result<()> {
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
        let published = Published::when_quiet(&self.stage.system, &Service::ALL).await?;
        self.throw_away(&Service::ALL, &published);
        postgres.restore_from(self.copy_folder()).await?;
        postgres.start_again().await?;
        to_kafka.iter().for_each(|listener| listener.proxy().set(Network::Pass));
        Ok(())
    }

    /// The service is cut off from its database, which is to it as if Postgres were stopped, until there is a new one. Kafka as in
    /// [`Self::put_back`].
    async fn drop_database(&self, fault: &Fault, service: Service) -> Result<()> {
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
            let published = Published::when_quiet(&self.stage.system, &[service]).await?;
            self.throw_away(&[service], &published);
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

    fn throw_away(&self, services: &[Service], published: &Published) {
        let unpublished = self.notes.thrown_away(services, published);
        say(&format!("{unpublished} requests were acknowledged and not published when their database went"));
    }
}
