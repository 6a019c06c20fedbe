//! A running shop: the three services, a customer with money, and products in stock.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use contracts::{CustomerId, OrderId};
use devstack::{Stack, topics, wait};
use orderctl::system::{Client, Replica, Service, System, SystemOptions};
use reel::inspect::{self, InputProgress, LaneProgress};
use reel::model::{Partition, Partitions};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// Time limit for any one wait, generous because machines are slow at times.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The shop and its processes.
pub struct Shop {
    /// The system.
    pub system: System,
    /// Running processes, `order-1` first; empty until they are started.
    pub replicas: Vec<Replica>,
    /// A client that retries.
    pub client: Client,
}

/// Waits until a condition holds. `what` completes the sentence "waited 60s for ...".
///
/// # Errors
/// If the condition does not hold within [`LIMIT`], or `holds` fails.
pub async fn eventually<F: Future<Output = Result<bool>>>(
    what: &str,
    mut holds: impl FnMut() -> F,
) -> Result<()> {
    wait::until(LIMIT, what, || {
        let holds = holds();
        async move { Ok(holds.await?.then_some(())) }
    })
    .await
}

impl Shop {
    /// Creates databases and topics on the shared stack, and starts no process.
    pub async fn prepared(change: impl FnOnce(&mut SystemOptions)) -> Result<Self> {
        let stack = Stack::shared().await?;
        Self::on(stack.kafka(), stack.postgres(), change).await
    }

    /// Creates databases and topics on the test's own servers, and starts no process.
    pub async fn on(
        kafka: &str,
        postgres: &str,
        change: impl FnOnce(&mut SystemOptions),
    ) -> Result<Self> {
        let mut options = SystemOptions::new(kafka, postgres, &topics::unique_prefix());
        options.partitions = 4;
        options.lease = Duration::from_secs(2);
        change(&mut options);
        let system = System::create(options).await?;
        let client = system.client().within(LIMIT);
        Ok(Self { system, replicas: Vec::new(), client })
    }

    /// Starts two replicas of each service on the shared stack, with money and stock.
    pub async fn open(change: impl FnOnce(&mut SystemOptions)) -> Result<Self> {
        let mut shop = Self::prepared(change).await?;
        shop.replicas = shop.system.start_all(2).await?;
        shop.fill().await?;
        Ok(shop)
    }

    /// Gives money to ann and receives stock.
    pub async fn fill(&self) -> Result<()> {
        self.client.deposit("ann", 1_000_000, "first").await?.created()?;
        self.client.receive("COFFEE", 1_000, "first").await?.created()?;
        Ok(())
    }

    /// Places this many orders for ann, each for one pack of coffee.
    pub async fn order(&self, name: &str, count: usize) -> Result<Vec<OrderId>> {
        let mut orders = Vec::new();
        for nth in 0..count {
            orders.push(
                self.client
                    .place("ann", &[("COFFEE", 1)], &format!("{name}-{nth}"))
                    .await?
                    .order_id()?,
            );
        }
        Ok(orders)
    }

    /// Drops a service's database and creates an empty one in its place.
    ///
    /// # Errors
    /// If Postgres is unreachable or refuses.
    pub async fn drop_database(&self, service: Service) -> Result<()> {
        let url = self.system.database_url(service);
        let (server, name) = url.rsplit_once('/').context("the URL names a database")?;
        let mut admin = PgConnection::connect(&format!("{server}/postgres")).await?;
        for statement in [
            format!("drop database \"{name}\" with (force)"),
            format!("create database \"{name}\""),
        ] {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut admin).await?;
        }
        Ok(())
    }

    /// The mapping from keys to lanes.
    #[must_use]
    pub fn partitions(&self) -> Partitions {
        Partitions::new(4).expect("4 is a valid number of partitions")
    }

    /// An idempotency key with which an order of ann's falls into a lane, and the order's id.
    pub fn key_in(&self, lane: Partition, name: &str) -> (String, OrderId) {
        let partitions = self.partitions();
        let ann: CustomerId = "ann".parse().expect("a name");
        (0..)
            .map(|nth| format!("{name}-{nth}"))
            .map(|key| (key.clone(), OrderId::of_request(&ann, &key)))
            .find(|(_, id)| partitions.of(id.to_string().as_bytes()) == lane)
            .expect("some key falls into every lane")
    }

    /// An order's status.
    pub async fn status(&self, order: OrderId) -> Result<String> {
        let order = self.client.order(order).await?.success()?;
        Ok(order["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until every saga has ended, checks that the audit finds nothing wrong, and returns its
    /// figures.
    pub async fn ends_well(&self) -> Result<orderctl::audit::Figures> {
        self.system.until_quiet(LIMIT).await?;
        let audit = self.system.sources().audit().await?;
        ensure!(audit.figures.ok, "the audit fails: {:#?}\n{:#?}", audit.figures, audit.findings);
        Ok(audit.figures)
    }

    /// Places an order of ann's at one replica, without retries.
    pub async fn ask_once(&self, replica: &Replica, key: &str) -> Result<reqwest::Response> {
        let order =
            serde_json::json!({"customer": "ann", "lines": [{"sku": "COFFEE", "quantity": 1}]});
        let request = reqwest::Client::new()
            .post(format!("{}/orders", replica.url()))
            .header("Idempotency-Key", key)
            .bearer_auth(self.token());
        Ok(request.json(&order).timeout(LIMIT).send().await?)
    }

    /// A token with every scope.
    #[must_use]
    pub fn token(&self) -> String {
        self.system.tokens().staff().expect("a secret signs")
    }

    /// Starts one replica of each service on the test's own servers, with money and stock.
    pub async fn alone_on(
        kafka: &str,
        postgres: &str,
        change: impl FnOnce(&mut SystemOptions),
    ) -> Result<Self> {
        let mut shop = Self::on(kafka, postgres, change).await?;
        shop.replicas = shop.system.start_all(1).await?;
        shop.fill().await?;
        Ok(shop)
    }

    /// The replica with this name.
    #[must_use]
    pub fn replica(&self, name: &str) -> &Replica {
        self.replicas
            .iter()
            .find(|replica| replica.name() == name)
            .expect("a replica with this name")
    }

    /// The JSON body of a replica's `/health/ready`.
    pub async fn health(&self, replica: &Replica) -> Result<Value> {
        let text = reqwest::get(format!("{}/health/ready", replica.url())).await?.text().await?;
        serde_json::from_str(&text).context("health is JSON")
    }

    /// The number that a query returns from a service's database.
    pub async fn count(&self, service: Service, sql: &'static str) -> Result<i64> {
        Ok(sqlx::query_scalar(sql).fetch_one(self.system.pool(service)).await?)
    }

    /// The progress of a service, or of one of its projections, in a topic: a value a partition.
    ///
    /// # Errors
    /// If the service's database is unreachable.
    pub async fn inputs(
        &self,
        service: Service,
        reader: &str,
        topic: Service,
    ) -> Result<Vec<InputProgress>> {
        let mut connection = self.system.pool(service).acquire().await?;
        let mut inputs = inspect::inputs(&mut connection, reader).await?;
        let topic = self.system.topic(topic);
        inputs.retain(|input| input.topic == topic);
        Ok(inputs)
    }

    /// The progress of a service's own topic: a value a lane.
    ///
    /// # Errors
    /// If the service's database is unreachable.
    pub async fn lanes(&self, service: Service) -> Result<Vec<LaneProgress>> {
        let mut connection = self.system.pool(service).acquire().await?;
        Ok(inspect::lanes(&mut connection).await?)
    }

    /// The number of messages that a service has parked.
    ///
    /// # Errors
    /// If the service's database is unreachable or not migrated.
    pub async fn parked(&self, service: Service) -> Result<usize> {
        let mut connection = self.system.pool(service).acquire().await?;
        Ok(inspect::parked(&mut connection).await?.len())
    }

    /// The number of deadlines that a service has set.
    ///
    /// # Errors
    /// If the service's database is unreachable or not migrated.
    pub async fn deadlines(&self, service: Service) -> Result<i64> {
        let mut connection = self.system.pool(service).acquire().await?;
        Ok(inspect::deadline_count(&mut connection, None).await?)
    }

    /// Removes a process from the shop and returns it.
    pub fn take(&mut self, name: &str) -> Replica {
        let index = self
            .replicas
            .iter()
            .position(|replica| replica.name() == name)
            .expect("a replica with this name");
        self.replicas.remove(index)
    }
}
