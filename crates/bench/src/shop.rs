//! The order system with money and stock for any number of orders, and the orders.

use std::time::Duration;

use anyhow::Result;
use contracts::OrderId;
use futures_util::future::try_join_all;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use orderctl::system::{Replica, Service, System, SystemOptions};
use reel::kafka::Kafka;
use serde_json::json;

use crate::run::Bench;
use crate::stage::{PARTITIONS, memory_mib};

/// Orders come from so many, so that few wait for each other's account.
const CUSTOMERS: usize = 1_000;
const DEPOSIT_CENTS: i64 = 100_000_000_000;
const RECEIPT_PIECES: i64 = 1_000_000;
const RECEIPTS: usize = 10;
const PRODUCTS: [&str; 9] = ["TEA-GREEN", "TEA-BLACK", "TEA-OOLONG", "COFFEE", "COCOA", "MUG", "TEAPOT", "GRINDER", "FILTERS"];
const QUIET_WITHIN: Duration = Duration::from_secs(120);

/// The order system, one replica of each service that runs.
pub struct Shop {
    /// Its databases and topics.
    pub system: System,
    replicas: Vec<Replica>,
}

impl Shop {
    /// All three services, with money and stock.
    ///
    /// # Errors
    /// Where they do not start.
    pub async fn open(bench: &Bench) -> Result<Self> {
        let shop = Self::of(bench, &Service::ALL).await?;
        let client = shop.system.client();
        let deposits = (0..CUSTOMERS).map(async |nth| client.deposit(&customer(nth), DEPOSIT_CENTS, "bench").await?.created());
        try_join_all(deposits).await?;
        let receipts = PRODUCTS.into_iter().flat_map(|sku| (0..RECEIPTS).map(move |nth| (sku, nth)));
        let receipts = receipts.map(|(sku, nth)| {
            let client = client.clone();
            async move { client.receive(sku, RECEIPT_PIECES, &format!("bench-{nth}")).await?.created() }
        });
        try_join_all(receipts).await?;
        shop.quiet().await?;
        Ok(shop)
    }

    /// The order service alone: its orders stay open.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn of_orders_alone(bench: &Bench) -> Result<Self> {
        Self::of(bench, &[Service::Order]).await
    }

    async fn of(bench: &Bench, services: &[Service]) -> Result<Self> {
        let (kafka, postgres) = (bench.stack.kafka.bootstrap(), bench.stack.postgres.url());
        let options = SystemOptions { partitions: PARTITIONS, ..SystemOptions::new(kafka, postgres, &devstack::topics::unique_prefix()) };
        let system = System::create(options).await?;
        let mut replicas = Vec::new();
        for service in services {
            replicas.push(system.start(*service, &format!("{service}-1")).await?);
        }
        try_join_all(replicas.iter_mut().map(Replica::wait_ready)).await?;
        Ok(Self { system, replicas })
    }

    /// Where orders are placed.
    #[must_use]
    pub fn url(&self) -> &str {
        self.replicas[0].url()
    }

    /// A token with which they are placed.
    ///
    /// # Errors
    /// Where none can be signed.
    pub fn token(&self) -> Result<String> {
        self.system.tokens().staff()
    }

    /// The topics of the services, and how Kafka is reached by who watches them: in no hurry, as the events themselves tell when they
    /// were recorded, and each fetch would take from the services' time.
    #[must_use]
    pub fn topics(&self, bench: &Bench) -> (Kafka, [String; 3]) {
        let kafka = Kafka {
            brokers: bench.stack.kafka.bootstrap().to_owned(),
            group: "bench".to_owned(),
            prefix: String::new(),
            properties: [("fetch.min.bytes", "1000000"), ("fetch.wait.max.ms", "100")]
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
        };
        (kafka, Service::ALL.map(|service| self.system.topic(service)))
    }

    /// Waits until every order has ended.
    ///
    /// # Errors
    /// Where some do not.
    pub async fn quiet(&self) -> Result<()> {
        self.system.until_quiet(QUIET_WITHIN).await
    }

    /// The most memory that each process has taken, in MiB.
    ///
    /// # Errors
    /// Where one has ended.
    pub fn memory(&self) -> Result<Vec<(Service, f64)>> {
        self.replicas.iter().map(|replica| Ok((replica.service(), memory_mib(replica.pid())?))).collect()
    }

    /// Stops the processes and drops databases and topics.
    ///
    /// # Errors
    /// Where Kafka or Postgres refuse.
    pub async fn close(mut self) -> Result<()> {
        for replica in &mut self.replicas {
            replica.kill().await?;
        }
        self.system.drop_all().await
    }
}

/// The nth order of a series: one piece each of two products.
///
/// # Errors
/// Never: its parts are sound.
pub fn order(token: &str, series: &str, nth: usize) -> Result<Request<Full<Bytes>>> {
    let lines = [PRODUCTS[nth % PRODUCTS.len()], PRODUCTS[(nth + 4) % PRODUCTS.len()]].map(|sku| json!({"sku": sku, "quantity": 1}));
    let body = json!({"customer": customer(nth), "lines": lines});
    let request = Request::post("/orders").header("authorization", format!("Bearer {token}"));
    let request = request.header("content-type", "application/json").header("idempotency-key", key(series, nth));
    Ok(request.body(Full::from(serde_json::to_vec(&body)?))?)
}

/// The id that the nth order of a series gets.
#[must_use]
pub fn order_id(series: &str, nth: usize) -> OrderId {
    OrderId::of_request(&customer(nth), &key(series, nth))
}

fn customer(nth: usize) -> String {
    format!("customer-{}", nth % CUSTOMERS)
}

fn key(series: &str, nth: usize) -> String {
    format!("{series}-{nth}")
}
