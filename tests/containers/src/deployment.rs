//! A deployment that a test has for itself.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use devstack::docker::{Compose, docker, engine};
use devstack::wait;
use orderctl::audit::Figures;
use orderctl::system::{Client, Deployed, Service, View};
use serde_json::Value;

use crate::LIMIT;

const ASK_WITHIN: Duration = Duration::from_secs(2);

/// One deployment at a time: each is ten processes.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The system in containers, and what tests ask of it.
pub struct Deployment {
    deployed: Deployed,
}

impl Deployment {
    /// Runs a test on a deployment with these settings of the compose file. Where there is no Docker engine the test is skipped, by
    /// this name. If it fails, the logs' ends are printed; however it ends, nothing is left behind.
    ///
    /// # Errors
    /// Where something does not start or stays, and those of the test; or there is no engine, and `REQUIRE_DOCKER=1`.
    pub async fn test(name: &str, settings: &[(&str, &str)], test: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
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

    /// Money for ann, and stock.
    ///
    /// # Errors
    /// Where no replica takes them.
    pub async fn fill(&self) -> Result<()> {
        let client = self.client();
        client.deposit("ann", 100_000_000, "first").await?.created()?;
        client.receive("COFFEE", 100_000, "first").await?.created()?;
        Ok(())
    }

    /// A client of all replicas, which tries for as long as anything may take.
    #[must_use]
    pub fn client(&self) -> Client {
        self.deployed.view().client().within(LIMIT)
    }

    /// The project of Docker Compose.
    #[must_use]
    pub fn compose(&self) -> &Compose {
        self.deployed.compose()
    }

    /// `order-1` becomes the name of its container.
    #[must_use]
    pub fn container(&self, service: &str) -> String {
        self.compose().container(service)
    }

    /// The containers of all replicas.
    pub fn replicas(&self) -> impl Iterator<Item = String> {
        self.deployed.replicas().map(move |(service, nth)| self.deployed.container(service, nth))
    }

    /// Where a replica listens.
    #[must_use]
    pub fn url(&self, service: Service, nth: usize) -> String {
        self.deployed.url(service, nth)
    }

    /// What can be seen of it from this machine.
    #[must_use]
    pub fn view(&self) -> &View {
        self.deployed.view()
    }

    /// The compose file's services that are brokers.
    pub fn brokers(&self) -> impl Iterator<Item = &'static str> {
        self.deployed.brokers()
    }

    /// Waits until Docker says that a container is healthy.
    ///
    /// # Errors
    /// Where it does not get so in time.
    pub async fn until_healthy(&self, container: &str) -> Result<()> {
        wait::until(LIMIT, &format!("{container} to be healthy"), || async {
            let said = docker(&["inspect", "--format", "{{.State.Health.Status}}", container]).await?.success()?;
            Ok((said.trim() == "healthy").then_some(()))
        })
        .await
    }

    /// What `/health/ready` of a replica says; null where it does not answer.
    pub async fn health(&self, service: Service, nth: usize) -> Value {
        let url = format!("{}/health/ready", self.url(service, nth));
        let ask = async {
            let http = reqwest::Client::builder().timeout(ASK_WITHIN).no_proxy().build()?;
            http.get(url).send().await?.bytes().await
        };
        ask.await.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or(Value::Null)
    }

    /// Waits until a replica's health is as it should be.
    ///
    /// # Errors
    /// Where it does not get so in time.
    pub async fn until_health(&self, service: Service, nth: usize, what: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
        wait::until(LIMIT, what, || async {
            let health = self.health(service, nth).await;
            Ok(is(&health).then_some(()))
        })
        .await
    }

    /// Waits until every saga has ended, and `orderctl audit` in its container finds nothing wrong. Returns its figures.
    ///
    /// # Errors
    /// What the audit finds after the limit.
    pub async fn ends_well(&self) -> Result<Figures> {
        let last = Mutex::new(String::new());
        let ended = wait::until(LIMIT, "every saga to end and the audit to be clean", || async {
            let said = self.compose().run(&["run", "--rm", "--no-deps", "-T", "orderctl", "audit", "--json"]).await?;
            *last.lock().unwrap_or_else(PoisonError::into_inner) = said.text();
            let figures: Option<Figures> = serde_json::from_str(&said.out).ok();
            Ok(figures.filter(|figures| figures.ok && figures.open == 0 && figures.undoing == 0))
        })
        .await;
        ended.with_context(|| format!("the audit said last: {}", last.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
