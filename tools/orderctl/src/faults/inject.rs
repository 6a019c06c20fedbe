//! How each fault is injected and undone.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use devstack::proxy::{Network, Proxy};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::sleep;

use super::Run;
use super::repeat::repeat;
use super::schedule::{Fault, Foreign, Server};
use super::stage::Member;
use crate::system::{Replica, Service};

/// Tries of a foreign transaction, whose server may be killed while it begins.
const FOREIGN_TRIES: u32 = 5;

impl Run {
    /// Injects a fault and undoes it. First waits until no other fault holds its target, and for
    /// its target to have work in hand.
    pub(super) async fn inject(&self, fault: &Fault) -> Result<()> {
        match fault {
            Fault::Kill { service, nth, down } => {
                self.kill(fault, self.stage.member(*service, *nth), *down).await
            }
            Fault::Pause { service, nth, hold } => {
                self.pause(fault, self.stage.member(*service, *nth), *hold).await
            }
            Fault::KillServer { server: Server::Kafka, down } => {
                let mut kafka = self.stage.kafka.lock().await;
                self.begin_fault(fault, None, None).await;
                kafka.kill().await?;
                sleep(*down).await;
                kafka.restart().await
            }

            Fault::KillServer { server: Server::Postgres, down } => {
                let mut postgres = self.stage.postgres.lock().await;
                self.begin_fault(fault, None, None).await;
                postgres.kill().await?;
                sleep(*down).await;
                postgres.restart().await
            }

            Fault::Network { service, server, network, hold } => {
                let change = async |proxy: &Proxy| {
                    self.begin_fault(fault, Some(*service), None).await;
                    proxy.set(*network);
                    sleep(*hold).await;
                    proxy.set(Network::Pass);
                };
                self.stage.network(*service, *server, change).await;
                Ok(())
            }
            Fault::Forget { service, server } => {
                let change = async |proxy: &Proxy| {
                    self.begin_fault(fault, Some(*service), None).await;
                    proxy.forget();
                };
                self.stage.network(*service, *server, change).await;
                Ok(())
            }
            Fault::Foreign { service, foreign, hold } => {
                self.foreign(fault, *service, *foreign, *hold).await
            }
            Fault::Repeat { service } => {
                let _kafka = self.stage.kafka.lock().await;
                self.begin_fault(fault, Some(*service), None).await;
                repeat(&self.stage.system, *service).await.map(|_| ())
            }
            Fault::Copy => self.copy(fault).await,
            Fault::PutBack => self.put_back(fault).await,
            Fault::Drop { service } => self.drop_database(fault, *service).await,
        }
    }

    async fn kill(&self, fault: &Fault, member: &Member, down: Duration) -> Result<()> {
        let mut replica = member.replica.lock().await;
        self.revive(member, &mut replica).await?;
        self.begin_fault(fault, Some(member.service), Some(&member.name)).await;
        replica.kill().await?;
        sleep(down).await;
        member.restart(&self.stage.system, &mut replica).await
    }

    async fn pause(&self, fault: &Fault, member: &Member, hold: Duration) -> Result<()> {
        let mut replica = member.replica.lock().await;
        self.revive(member, &mut replica).await?;
        self.begin_fault(fault, Some(member.service), Some(&member.name)).await;
        replica.pause()?;
        sleep(hold).await;
        replica.resume()
    }

    /// Starts a replica that has ended by itself, and notes its death, so that the fault meets a
    /// process.
    async fn revive(&self, member: &Member, replica: &mut Replica) -> Result<()> {
        self.stage.note_death(replica).await;
        if !replica.is_running() {
            member.restart(&self.stage.system, replica).await?;
        }
        Ok(())
    }

    /// Opens a transaction of a stranger and rolls it back. If Postgres is killed before it has
    /// done anything, there is another try; if Postgres is killed later, it ends with Postgres.
    async fn foreign(
        &self,
        fault: &Fault,
        service: Service,
        foreign: Foreign,
        hold: Duration,
    ) -> Result<()> {
        let table = match service {
            Service::ORDER => "orders",
            Service::PAYMENT => "accounts",
            Service::INVENTORY => "stock",
            _ => "reel.cursors", // every service has one row per lane
        };
        let statements = match foreign {
            Foreign::Locks => format!(
                "begin; set local lock_timeout = '5s'; \
                 select count(*) from (select from {table} for update) as t"
            ),
            Foreign::StaysOpen => "begin; select txid_current()".to_owned(),
        };

        let url = self.stage.system.database_url(service);
        for _ in 0..FOREIGN_TRIES {
            let connection = {
                // Held, so that Postgres runs.
                let _postgres = self.stage.postgres.lock().await;
                PgConnection::connect(&url).await
            };
            let mut connection =
                connection.context("the database cannot be reached for a foreign transaction")?;
            let had_work = self.has_work(fault, Some(service), None).await;
            if connection.execute(sqlx::raw_sql(AssertSqlSafe(statements.clone()))).await.is_ok() {
                self.count(fault, had_work).await;
                sleep(hold).await;
                let _ = connection.execute("rollback").await;
                return Ok(());
            }
        }

        bail!("none of {FOREIGN_TRIES} foreign transactions could begin")
    }
}
