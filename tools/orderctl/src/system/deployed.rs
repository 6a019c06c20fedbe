//! The order system in containers.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result};
use devstack::docker::{Compose, docker};
use devstack::{Port, wait};
use reel::kafka::KafkaConfig;
use reqwest::StatusCode;
use tempfile::TempDir;

use super::launch::url;
use super::{Client, PerService, Service, View};
use crate::audit::Sources;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../compose/compose.yaml");
const REPLICAS: usize = 2;
const READY_WITHIN: Duration = Duration::from_secs(120);
const ASK_WITHIN: Duration = Duration::from_secs(2);
const AUDITOR: &str = "auditor";
const BROKER: &[&str] = &["kafka"];
const BROKERS_OF_THREE: &[&str] = &["kafka-1", "kafka-2", "kafka-3"];

/// The order system as `compose/compose.yaml` deploys it, on free ports of this machine.
/// Containers, network and volumes are removed when this value is dropped or this process ends,
/// however it ends.
pub struct Deployed {
    compose: Compose,
    ports: Ports,
    view: View,
    /// The folder of the CA certificate that the servers are verified with.
    _folder: TempDir,
}

impl Deployed {
    /// Starts everything, and returns when all replicas are ready. The compose file's settings are
    /// `environment` and, for the others, the environment of this process.
    ///
    /// # Errors
    /// If something does not start; the end of all logs is written to stderr then.
    pub async fn up(environment: &[(&str, &str)]) -> Result<Self> {
        let mut settings: HashMap<String, String> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let setting = |name: &str| {
            settings.get(name).cloned().or_else(|| env::var(name).ok()).unwrap_or_default()
        };
        let [secure, tls] = [setting("SECURE") != "0", setting("POSTGRES_TLS") != "off"];
        let brokers =
            if setting("COMPOSE_PROFILES") == "three" { BROKERS_OF_THREE } else { BROKER };
        let ports = Ports::free(brokers)?;
        settings.extend(ports.settings());

        let compose = Compose::up(Path::new(FILE), settings)
            .await
            .context("the deployment does not start (`make images` builds)")?;
        let folder = tempfile::tempdir()?;
        let access =
            Access { compose: &compose, ports: &ports, folder: folder.path(), secure, tls };
        let seen = access.view().await;
        if seen.is_err() {
            compose.show_logs().await;
        }
        let deployed = Self { view: seen?, compose, ports, _folder: folder };
        for (service, nth) in deployed.replicas() {
            if let Err(error) = deployed.until_ready(service, nth).await {
                deployed.compose.show_logs().await;
                return Err(error);
            }
        }

        Ok(deployed)
    }

    /// Returns the compose file's services that are brokers: `kafka`, or `kafka-1` to `kafka-3`.
    pub fn brokers(&self) -> impl Iterator<Item = &'static str> {
        self.ports.brokers.iter().map(|(name, _)| *name)
    }

    /// Returns the system as it is seen from outside; databases and topics are read as the auditor.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Returns the project of Docker Compose.
    #[must_use]
    pub fn compose(&self) -> &Compose {
        &self.compose
    }

    /// Returns all replicas: the service, and 1 or 2.
    pub fn replicas(&self) -> impl Iterator<Item = (Service, usize)> + use<> {
        Service::all().flat_map(|service| (1..=REPLICAS).map(move |nth| (service, nth)))
    }

    /// Returns the container of a replica.
    #[must_use]
    pub fn container(&self, service: Service, nth: usize) -> String {
        self.compose.container(&format!("{service}-{nth}"))
    }

    /// Returns the address of a replica.
    #[must_use]
    pub fn url(&self, service: Service, nth: usize) -> String {
        url(&self.ports.services[service][nth - 1])
    }

    /// Waits until a replica is ready.
    ///
    /// # Errors
    /// If it is not ready within two minutes.
    pub async fn until_ready(&self, service: Service, nth: usize) -> Result<()> {
        let http = reqwest::Client::builder().timeout(ASK_WITHIN).no_proxy().build()?;
        let url = format!("{}/health/ready", self.url(service, nth));
        wait::until(READY_WITHIN, &format!("{service}-{nth} to be ready"), || async {
            let answer = http.get(&url).send().await;
            Ok(answer.is_ok_and(|answer| answer.status() == StatusCode::OK).then_some(()))
        })
        .await
    }

    /// Stops and removes everything.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub async fn down(self) -> Result<()> {
        self.compose.down().await
    }
}

/// Ports of this machine. They are chosen here, because ports that Docker chooses change when a
/// container is started again.
struct Ports {
    brokers: Vec<(&'static str, Port)>,
    postgres: Port,
    services: PerService<Vec<Port>>,
}

impl Ports {
    fn free(brokers: &[&'static str]) -> Result<Self> {
        let take = || Port::reserve(None);
        Ok(Self {
            brokers: brokers.iter().map(|name| Ok((*name, take()?))).collect::<Result<_>>()?,
            postgres: take()?,
            services: PerService::try_new(|_| (0..REPLICAS).map(|_| take()).collect())?,
        })
    }

    /// Returns the ports as settings of the compose file, such as `ORDER_1_PORT`.
    fn settings(&self) -> impl Iterator<Item = (String, String)> {
        let brokers = self.brokers.iter().map(|(name, port)| ((*name).to_owned(), port));
        let services = self.services.iter().flat_map(|(service, ports)| {
            (1..).zip(ports).map(move |(nth, port)| (format!("{service}-{nth}"), port))
        });
        let all = brokers.chain([("postgres".to_owned(), &self.postgres)]).chain(services);
        all.map(|(name, port)| {
            let setting = format!("{}_PORT", name.replace('-', "_").to_uppercase());
            (setting, port.number().to_string())
        })
    }
}

/// Access to databases and topics from this machine.
struct Access<'a> {
    compose: &'a Compose,
    ports: &'a Ports,
    folder: &'a Path,
    secure: bool,
    tls: bool,
}

impl Access<'_> {
    async fn view(&self) -> Result<View> {
        let users = self.secret("users").await?;
        let password = users
            .lines()
            .find_map(|line| line.strip_prefix(AUDITOR)?.strip_prefix(' '))
            .context("the deployment has no user `auditor`")?;
        let ca = self.folder.join("ca.pem");
        fs::write(&ca, self.secret("ca.pem").await?)?;
        let ca = ca.to_string_lossy();
        let tls = if self.secure && self.tls {
            format!("sslmode=verify-full&sslrootcert={ca}")
        } else {
            "sslmode=disable".to_owned()
        };

        let properties: &[(&str, &str)] = &[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", AUDITOR),
            ("sasl.password", password),
            ("ssl.ca.location", &ca),
        ];
        let properties = if self.secure { properties } else { &[] };
        let kafka = KafkaConfig {
            brokers: self
                .ports
                .brokers
                .iter()
                .map(|(_, port)| format!("127.0.0.1:{}", port.number()))
                .collect::<Vec<_>>()
                .join(","),
            group: "orderctl".to_owned(),
            prefix: String::new(),
            properties: properties
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };

        let postgres = self.ports.postgres.number();
        let databases = PerService::new(|service| {
            format!("postgres://{AUDITOR}:{password}@127.0.0.1:{postgres}/{service}?{tls}")
        });
        let urls =
            PerService::new(|service| self.ports.services[service].iter().map(url).collect());

        let token = self
            .compose
            .run(&["run", "--rm", "--no-deps", "-T", "orderctl", "token"])
            .await?
            .success()?;
        View::new(Client::of(&urls, token.trim().to_owned()), Sources { kafka, databases })
    }

    async fn secret(&self, name: &str) -> Result<String> {
        let path = format!("/etc/kafka/secrets/{name}");
        docker(&["exec", &self.compose.container(self.ports.brokers[0].0), "cat", &path])
            .await?
            .success()
    }
}
