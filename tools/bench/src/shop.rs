//! The order system, with money and stock for any number of orders, and its orders.

use std::time::Duration;

use anyhow::Result;
use contracts::OrderId;
use futures_util::future::try_join_all;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use orderctl::system::{Replica, Service, System, SystemOptions, Tokens};
use reel::kafka::KafkaConfig;
use serde_json::json;

use crate::run::Bench;
use crate::stage::{PARTITIONS, memory_mib};

/// Number of customers: enough that few orders wait for the same account.
const CUSTOMERS: usize = 1_000;
const DEPOSIT_CENTS: i64 = 100_000_000_000;
const RECEIPT_PIECES: i64 = 1_000_000;
const RECEIPTS: usize = 10;
const PRODUCTS: [&str; 9] = [
    "TEA-GREEN",
    "TEA-BLACK",
    "TEA-OOLONG",
    "COFFEE",
    "COCOA",
    "MUG",
    "TEAPOT",
    "GRINDER",
    "FILTERS",
];
const QUIET_TIMEOUT: Duration = Duration::from_secs(120);
/// Longer than any part takes.
const TOKENS_FOR: Duration = Duration::from_hours(12);

/// The order system, with one replica of each running service.
pub struct Shop {
    /// The databases and topics.
    pub system: System,
    replicas: Vec<Replica>,
}

impl Shop {
    /// Starts all three services, with money and stock.
    ///
    /// # Errors
    /// If a service does not start, or refuses a deposit or a receipt.
    pub async fn open(bench: &Bench) -> Result<Self> {
        Self::open_with(bench, |_| {}).await
    }

    /// Starts all three services, with money and stock, and with changed options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(bench: &Bench, change: impl FnOnce(&mut SystemOptions)) -> Result<Self> {
        let shop = Self::start(bench, &Service::SAGA, change).await?;
        let client = shop.system.client();
        let deposits = (0..CUSTOMERS).map(async |nth| {
            client.deposit(&customer(nth), DEPOSIT_CENTS, "bench").await?.created()
        });
        try_join_all(deposits).await?;

        let receipts =
            PRODUCTS.into_iter().flat_map(|sku| (0..RECEIPTS).map(move |nth| (sku, nth)));
        let receipts =
            receipts.map(|(sku, nth)| {
                let client = client.clone();
                async move {
                    client.receive(sku, RECEIPT_PIECES, &format!("bench-{nth}")).await?.created()
                }
            });
        try_join_all(receipts).await?;

        shop.quiet().await?;
        Ok(shop)
    }

    /// Starts the order service alone, so that its orders stay open.
    ///
    /// # Errors
    /// If the service does not start.
    pub async fn orders_only(bench: &Bench) -> Result<Self> {
        Self::start(bench, &[Service::ORDER], |_| {}).await
    }

    async fn start(
        bench: &Bench,
        services: &[Service],
        change: impl FnOnce(&mut SystemOptions),
    ) -> Result<Self> {
        let (kafka, postgres) = (bench.stack.kafka.bootstrap(), bench.stack.postgres.url());
        let mut options = SystemOptions {
            partitions: PARTITIONS,
            ..SystemOptions::new(kafka, postgres, &devstack::topics::unique_prefix())
        };
        change(&mut options);
        let system = System::create(options).await?;

        let mut replicas = Vec::new();
        for service in services {
            replicas.push(system.start(*service, &format!("{service}-1")).await?);
        }
        try_join_all(replicas.iter_mut().map(Replica::wait_ready)).await?;
        Ok(Self { system, replicas })
    }

    /// The URL to which orders are sent.
    #[must_use]
    pub fn url(&self) -> &str {
        self.replicas[0].url()
    }

    /// A bearer token that may place orders.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn token(&self) -> Result<String> {
        self.system.tokens().staff()
    }

    /// The URL of a service's database.
    #[must_use]
    pub fn database_url(&self, service: Service) -> String {
        self.system.database_url(service)
    }

    /// Tokens of several callers, so that a load over many connections is not that of one.
    ///
    /// # Errors
    /// If one cannot be signed.
    pub fn tokens(&self) -> Result<[String; 4]> {
        let scopes = Tokens::staff_scopes();
        let token =
            |caller| self.system.tokens().token(&format!("bench-{caller}"), &scopes, TOKENS_FOR);
        Ok([token(0)?, token(1)?, token(2)?, token(3)?])
    }

    /// The topics of the services, and the configuration of consumers that watch them. Their
    /// fetches are large and rare: the events carry the time at which they were recorded, and each
    /// fetch takes CPU time from the services.
    #[must_use]
    pub fn topics(&self, bench: &Bench) -> (KafkaConfig, [String; 3]) {
        let kafka = KafkaConfig {
            brokers: bench.stack.kafka.bootstrap().to_owned(),
            group: "bench".to_owned(),
            prefix: String::new(),
            properties: [("fetch.min.bytes", "1000000"), ("fetch.wait.max.ms", "100")]
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
        };
        (kafka, Service::SAGA.map(|service| self.system.topic(service)))
    }

    /// Waits until every order has ended.
    ///
    /// # Errors
    /// If some order does not end in time.
    pub async fn quiet(&self) -> Result<()> {
        self.system.until_quiet(QUIET_TIMEOUT).await
    }

    /// Peak memory of each process, in MiB.
    ///
    /// # Errors
    /// If a process has ended.
    pub fn memory(&self) -> Result<Vec<(Service, f64)>> {
        self.replicas
            .iter()
            .map(|replica| Ok((replica.service(), memory_mib(replica.pid())?)))
            .collect()
    }

    /// Stops the processes and drops databases and topics.
    ///
    /// # Errors
    /// If Kafka or Postgres is unreachable or refuses.
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
/// Never: all parts of the request are valid.
pub fn order(token: &str, series: &str, nth: usize) -> Result<Request<Full<Bytes>>> {
    let lines = [PRODUCTS[nth % PRODUCTS.len()], PRODUCTS[(nth + 4) % PRODUCTS.len()]]
        .map(|sku| json!({"sku": sku, "quantity": 1}));

    let body = json!({"customer": customer(nth), "lines": lines});
    let request = Request::post("/orders").header("authorization", format!("Bearer {token}"));
    let request = request
        .header("content-type", "application/json")
        .header("idempotency-key", key(series, nth));
    Ok(request.body(Full::from(serde_json::to_vec(&body)?))?)
}

/// The id of the nth order of a series.
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
