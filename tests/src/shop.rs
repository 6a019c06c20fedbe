//! A running shop: the three services with a customer who has money and products that are in stock.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use contracts::{CustomerId, OrderId};
use devstack::{Stack, topics, wait};
use orderctl::system::{Client, Replica, Service, System, SystemOptions};
use reel::model::{Partition, Partitions};
use serde_json::Value;

/// How long anything may take: far more than it does, for machines are slow at times.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The shop and its processes.
pub struct Shop {
    /// The system.
    pub system: System,
    /// Its processes, `order-1` first; empty until they are started.
    pub replicas: Vec<Replica>,
    /// A client that tries again.
    pub client: Client,
}

/// Waits until something holds.
///
/// # Errors
/// Where it does not within [`LIMIT`].
pub async fn eventually<F: Future<Output = Result<bool>>>(what: &str, mut holds: impl FnMut() -> F) -> Result<()> {
    wait::until(LIMIT, what, || {
        let holds = holds();
        async move { Ok(holds.await?.then_some(())) }
    })
    .await
}

impl Shop {
    /// Databases and topics on the shared stack; no process runs.
    pub async fn prepared(change: impl FnOnce(&mut SystemOptions)) -> Result<Self> {
        let stack = Stack::shared().await?;
        Self::on(stack.kafka(), stack.postgres(), change).await
    }

    /// Databases and topics on servers of the test's own.
    pub async fn on(kafka: &str, postgres: &str, change: impl FnOnce(&mut SystemOptions)) -> Result<Self> {
        let mut options = SystemOptions::new(kafka, postgres, &topics::unique_prefix());
        options.partitions = 4;
        options.lease = Duration::from_secs(2);
        change(&mut options);
        let system = System::create(options).await?;
        let client = system.client().within(LIMIT);
        Ok(Self { system, replicas: Vec::new(), client })
    }

    /// Two replicas of each service on the shared stack, with money and stock.
    pub async fn open(change: impl FnOnce(&mut SystemOptions)) -> Result<Self> {
        let mut shop = Self::prepared(change).await?;
        shop.replicas = shop.system.start_all(2).await?;
        shop.fill().await?;
        Ok(shop)
    }

    /// Money for ann, and stock.
    pub async fn fill(&self) -> Result<()> {
        self.client.deposit("ann", 1_000_000, "first").await?.created()?;
        self.client.receive("COFFEE", 1_000, "first").await?.created()?;
        Ok(())
    }

    /// Places so many orders of ann's for one pack of coffee each.
    pub async fn order(&self, name: &str, count: usize) -> Result<Vec<OrderId>> {
        let mut orders = Vec::new();
        for nth in 0..count {
            orders.push(self.client.place("ann", &[("COFFEE", 1)], &format!("{name}-{nth}")).await?.order_id()?);
        }
        Ok(orders)
    }

    /// How keys fall into lanes.
    #[must_use]
    pub fn partitions(&self) -> Partitions {
        Partitions::new(4).expect("the partitions of `on`")
    }

    /// The key under which an order of ann's falls into a lane.
    pub fn key_in(&self, lane: Partition, name: &str) -> (String, OrderId) {
        let partitions = self.partitions();
        let ann: CustomerId = "ann".parse().expect("a name");
        (0..)
            .map(|nth| format!("{name}-{nth}"))
            .map(|key| (key.clone(), OrderId::of_request(&ann, &key)))
            .find(|(_, id)| partitions.of(id.to_string().as_bytes()) == lane)
            .expect("some key falls into every lane")
    }

    /// What an order's status is.
    pub async fn status(&self, order: OrderId) -> Result<String> {
        let order = self.client.order(order).await?.success()?;
        Ok(order["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Every saga ends, and the audit finds nothing wrong. Returns its figures.
    pub async fn ends_well(&self) -> Result<orderctl::audit::Figures> {
        self.system.until_quiet(LIMIT).await?;
        let audit = self.system.places().audit().await?;
        ensure!(audit.figures.ok, "the audit fails: {:#?}\n{:#?}", audit.figures, audit.findings);
        Ok(audit.figures)
    }

    /// Asks a replica once for an order of ann's, as a client that does not try again.
    pub async fn ask_once(&self, replica: &Replica, key: &str) -> Result<reqwest::Response> {
        let order = serde_json::json!({"customer": "ann", "lines": [{"sku": "COFFEE", "quantity": 1}]});
        let request =
            reqwest::Client::new().post(format!("{}/orders", replica.url())).header("Idempotency-Key", key).bearer_auth(self.token());
        Ok(request.json(&order).timeout(LIMIT).send().await?)
    }

    /// A token that may do everything.
    #[must_use]
    pub fn token(&self) -> String {
        self.system.tokens().staff().expect("a secret signs")
    }

    /// One replica of each service on servers of the test's own, with money and stock.
    pub async fn alone_on(kafka: &str, postgres: &str, change: impl FnOnce(&mut SystemOptions)) -> Result<Self> {
        let mut shop = Self::on(kafka, postgres, change).await?;
        shop.replicas = shop.system.start_all(1).await?;
        shop.fill().await?;
        Ok(shop)
    }

    /// The replica of this name.
    #[must_use]
    pub fn replica(&self, name: &str) -> &Replica {
        self.replicas.iter().find(|replica| replica.name() == name).expect("a replica of this name")
    }

    /// What `/health/ready` of a replica says.
    pub async fn health(&self, replica: &Replica) -> Result<Value> {
        let text = reqwest::get(format!("{}/health/ready", replica.url())).await?.text().await?;
        serde_json::from_str(&text).context("health is JSON")
    }

    /// A number out of a service's database.
    pub async fn count(&self, service: Service, sql: &'static str) -> Result<i64> {
        Ok(sqlx::query_scalar(sql).fetch_one(self.system.pool(service)).await?)
    }

    /// Takes a process out of the shop.
    pub fn take(&mut self, name: &str) -> Replica {
        let place = self.replicas.iter().position(|replica| replica.name() == name).expect("a replica of this name");
        self.replicas.remove(place)
    }
}
