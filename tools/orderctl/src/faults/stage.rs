//! The stage of a fault run: its own servers, and two replicas of each service behind proxies.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use devstack::proxy::Proxy;
use devstack::{KafkaServer, Listener, PostgresServer};
use tokio::sync::Mutex;

use super::schedule::{REPLICAS, Server};
use crate::system::{PerService, Replica, Service, System, SystemOptions};

/// Lease of the lanes: a dead replica keeps them for this long.
pub(super) const LEASE: Duration = Duration::from_secs(1);
/// Deadline of an order.
pub(super) const SETTLE_WITHIN: Duration = Duration::from_secs(25);
const PARTITIONS: i32 = 6;

/// The servers and the replicas. One fault at a time holds each of them.
pub(super) struct Stage {
    pub(super) system: System,
    members: Vec<Member>,
    pub(super) kafka: Mutex<KafkaServer>,
    pub(super) postgres: Mutex<PostgresServer>,
    /// The proxies; a fault that changes one holds it.
    pub(super) to_kafka: PerService<Mutex<Listener>>,
    pub(super) to_postgres: PerService<Mutex<Proxy>>,
    /// Processes that ended by themselves, with the ends of their logs.
    pub(super) deaths: Mutex<Vec<String>>,
}

/// A replica, dead or alive.
pub(super) struct Member {
    pub(super) service: Service,
    pub(super) name: String,
    pub(super) replica: Mutex<Replica>,
    pid: AtomicU32,
    environment: Vec<(&'static str, String)>,
}

impl Stage {
    /// Starts everything and waits until it is ready. Data and logs are in `folder`.
    pub(super) async fn start(folder: &Path) -> Result<Self> {
        // Before Kafka starts, which advertises their ports to its clients.
        let listeners = PerService::new(Service::name);
        let mut to_kafka = Vec::new();
        for (_, name) in listeners.iter() {
            to_kafka.push(Listener::new(name).await?);
        }
        let behind: Vec<&Listener> = to_kafka.iter().collect();
        let (kafka, postgres) = tokio::try_join!(
            KafkaServer::start_behind(folder.join("kafka"), &behind),
            PostgresServer::start(folder.join("postgres"), &[("max_wal_size", "256MB")])
        )?;
        let log = std::env::var("RUST_LOG")
            .unwrap_or_else(|_| "info,reel=debug,librdkafka=off".to_owned());
        let options = SystemOptions {
            partitions: PARTITIONS,
            lease: LEASE,
            settle_within: SETTLE_WITHIN,
            env: vec![("RUST_LOG".to_owned(), log)],
            folder: Some(folder.join("logs")),
            ..SystemOptions::new(kafka.bootstrap(), postgres.url(), "faults-")
        };
        let urls = PerService::new(|service| options.database_url(service));
        let system = System::create(options).await?;
        system.keep(); // its servers end with this process, and its databases with them

        let (mut members, mut to_postgres) = (Vec::new(), Vec::new());
        for ((service, url), kafka) in urls.iter().zip(&to_kafka) {
            let (proxy, url) = Proxy::to_url(url).await?;
            to_postgres.push(proxy);
            let environment = vec![
                ("DATABASE_URL", url),
                ("KAFKA_BROKERS", format!("127.0.0.1:{}", kafka.proxy().port())),
            ];
            for nth in 1..=REPLICAS {
                members.push(
                    Member::start(
                        &system,
                        service,
                        format!("{service}-{nth}"),
                        environment.clone(),
                    )
                    .await?,
                );
            }
        }

        let mut to_kafka = to_kafka.into_iter().map(Mutex::new);
        let mut to_postgres = to_postgres.into_iter().map(Mutex::new);
        let stage = Self {
            system,
            members,
            kafka: Mutex::new(kafka),
            postgres: Mutex::new(postgres),
            to_kafka: PerService::try_new(|_| to_kafka.next().context("a listener for each"))?,
            to_postgres: PerService::try_new(|_| to_postgres.next().context("a proxy for each"))?,
            deaths: Mutex::default(),
        };
        stage.ready().await?;
        Ok(stage)
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn member(&self, service: Service, nth: usize) -> &Member {
        &self.members[service.index() * REPLICAS + nth]
    }

    /// Waits until every replica takes commands. One that has ended by itself is noted and started
    /// again.
    pub(super) async fn ready(&self) -> Result<()> {
        for member in &self.members {
            let mut replica = member.replica.lock().await;
            self.note_death(&mut replica).await;
            if !replica.is_running() {
                member.restart(&self.system, &mut replica).await?;
            }
            replica.wait_ready().await?;
        }
        Ok(())
    }

    /// Notes a replica that has ended by itself.
    pub(super) async fn note_death(&self, replica: &mut Replica) {
        if !replica.is_running() {
            self.deaths.lock().await.push(format!(
                "{} ended by itself{}",
                replica.name(),
                replica.last_words()
            ));
        }
    }

    /// Calls `change` with the proxy between a service and a server, one call at a time.
    pub(super) async fn network<T>(
        &self,
        service: Service,
        server: Server,
        change: impl AsyncFnOnce(&Proxy) -> T,
    ) -> T {
        match server {
            Server::Kafka => change(self.to_kafka[service].lock().await.proxy()).await,
            Server::Postgres => change(&*self.to_postgres[service].lock().await).await,
        }
    }
}

impl Member {
    async fn start(
        system: &System,
        service: Service,
        name: String,
        environment: Vec<(&'static str, String)>,
    ) -> Result<Self> {
        let replica = launch(system, service, &name, &environment).await?;
        Ok(Self {
            service,
            name,
            pid: AtomicU32::new(replica.pid()),
            replica: Mutex::new(replica),
            environment,
        })
    }

    /// Starts it again under its instance id.
    pub(super) async fn restart(&self, system: &System, replica: &mut Replica) -> Result<()> {
        *replica = launch(system, self.service, &self.name, &self.environment).await?;
        self.pid.store(replica.pid(), Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }
}

async fn launch(
    system: &System,
    service: Service,
    name: &str,
    environment: &[(&'static str, String)],
) -> Result<Replica> {
    let extra: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    system.start_with(service, name, &extra).await
}
