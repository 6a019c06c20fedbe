//! A test's own deployment.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use devstack::docker::{Compose, docker, engine};
use devstack::wait;
use orderctl::audit::Figures;
use orderctl::system::{Client, Deployed, Service, View};
use serde_json::Value;

use crate::LIMIT;

const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Allows one deployment at a time, because each runs ten processes.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The system in containers.
pub struct Deployment {
    deployed: Deployed,
}

impl Deployment {
    /// Runs a test on a deployment with these settings of the compose file. Without a Docker engine
    /// it reports the test as skipped, by this name. If the test fails, it prints the ends of the
    /// logs. It always removes the deployment.
    ///
    /// # Errors
    /// If the deployment cannot be started or removed, if the test fails, or if there is no engine
    /// and `REQUIRE_DOCKER=1`.
    pub async fn test(
        name: &str,
        settings: &[(&str, &str)],
        test: impl AsyncFnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        if !engine(name).await? {
            return Ok(());
        }

        let _turn = TURN.lock().await;
        let deployment = Self { deployed: Deployed::up(settings).await? };
        let tested = test(&deployment).await;
        if tested.is_err() {
            deployment.compose().show_logs().await;
        }
        tested.and(deployment.deployed.down().await)
    }

    /// Gives money to ann and receives stock.
    ///
    /// # Errors
    /// If a command is refused, or no replica takes it in time.
    pub async fn fill(&self) -> Result<()> {
        let client = self.client();
        client.deposit("ann", 100_000_000, "first").await?.created()?;
        client.receive("COFFEE", 100_000, "first").await?.created()?;
        Ok(())
    }

    /// A client of all replicas, which retries within [`LIMIT`].
    #[must_use]
    pub fn client(&self) -> Client {
        self.deployed.view().client().within(LIMIT)
    }

    /// The deployment's Compose project.
    #[must_use]
    pub fn compose(&self) -> &Compose {
        self.deployed.compose()
    }

    /// The name of a Compose service's container, such as that of `order-1`.
    #[must_use]
    pub fn container(&self, service: &str) -> String {
        self.compose().container(service)
    }

    /// The containers of all replicas.
    pub fn replicas(&self) -> impl Iterator<Item = String> {
        self.deployed.replicas().map(move |(service, nth)| self.deployed.container(service, nth))
    }

    /// The URL of a replica.
    #[must_use]
    pub fn url(&self, service: Service, nth: usize) -> String {
        self.deployed.url(service, nth)
    }

    /// The system as it is reachable from this machine.
    #[must_use]
    pub fn view(&self) -> &View {
        self.deployed.view()
    }

    /// The names of the Compose services that are brokers.
    pub fn brokers(&self) -> impl Iterator<Item = &'static str> {
        self.deployed.brokers()
    }

    /// Waits until Docker reports a container as healthy.
    ///
    /// # Errors
    /// If it is not healthy in time, or Docker fails.
    pub async fn until_healthy(&self, container: &str) -> Result<()> {
        wait::until(LIMIT, &format!("{container} to be healthy"), || async {
            let status = docker(&["inspect", "--format", "{{.State.Health.Status}}", container])
                .await?
                .success()?;
            Ok((status.trim() == "healthy").then_some(()))
        })
        .await
    }

    /// The JSON body of a replica's `/health/ready`, or null if the replica does not answer.
    pub async fn health(&self, service: Service, nth: usize) -> Value {
        let url = format!("{}/health/ready", self.url(service, nth));
        let answer = async {
            let http = reqwest::Client::builder().timeout(HEALTH_TIMEOUT).no_proxy().build()?;
            http.get(url).send().await?.bytes().await
        };
        answer.await.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or(Value::Null)
    }

    /// Waits until a replica's health meets a condition.
    ///
    /// # Errors
    /// If it does not in time.
    pub async fn until_health(
        &self,
        service: Service,
        nth: usize,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        wait::until(LIMIT, what, || async {
            let health = self.health(service, nth).await;
            Ok(holds(&health).then_some(()))
        })
        .await
    }

    /// Waits until every saga has ended, and `orderctl audit` in its container finds nothing wrong.
    /// Returns its figures.
    ///
    /// # Errors
    /// If that is not so in time, with the output of the last audit.
    pub async fn ends_well(&self) -> Result<Figures> {
        let last = Mutex::new(String::new());
        let ended = wait::until(LIMIT, "every saga to end and the audit to be clean", || async {
            let output = self
                .compose()
                .run(&["run", "--rm", "--no-deps", "-T", "orderctl", "audit", "--json"])
                .await?;
            *last.lock().unwrap_or_else(PoisonError::into_inner) = output.text();
            let figures: Option<Figures> = serde_json::from_str(&output.out).ok();
            Ok(figures
                .filter(|figures| figures.ok && figures.open == 0 && figures.compensating == 0))
        })
        .await;
        ended.with_context(|| {
            format!(
                "the last audit printed: {}",
                last.lock().unwrap_or_else(PoisonError::into_inner)
            )
        })
    }
}
