//! One trial: a fault, and an order that has to be confirmed in spite of it.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::Duration;

use anyhow::{Context, Result};
use contracts::{CustomerId, OrderId};
use devstack::OwnStack;
use reel::inspect;
use reel::model::Partitions;
use tokio::time::{Instant, sleep};

use crate::system::{Client, Replica, Service, System};

const REPLICAS: usize = 2;
/// The replica that dies; the order is in one of its lanes.
const VICTIM: &str = "payment-1";
/// Poll interval for the order's status.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// Pause of a client before it tries again after 503.
const CLIENT_PAUSE: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(60);

/// What happens in a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// Nothing, for comparison.
    Nothing,
    /// kill -9 of a replica, which is not started again before the order is confirmed.
    Kill,
    /// kill -9 of a replica, which is started again at once with its instance id.
    KillAndStart,
    /// SIGTERM of a replica.
    Stop,
    /// The broker stops cleanly and starts again.
    KafkaRestart,
    /// kill -9 of the broker, which is started again at once.
    KafkaKill,
    /// Postgres stops cleanly and starts again.
    PostgresRestart,
    /// kill -9 of Postgres, which is started again at once.
    PostgresKill,
}

/// The time until the order was confirmed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) from_fault: Duration,
    /// Time since the server that was down answered again.
    pub(super) from_answer: Option<Duration>,
}

/// A running system on which trials are made.
pub(super) struct Trials<'a> {
    system: &'a System,
    stack: OwnStack,
    replicas: Vec<Replica>,
    client: Client,
    orders: u32,
}

impl Fault {
    pub(super) const ALL: [Self; 8] = [
        Self::Nothing,
        Self::Kill,
        Self::KillAndStart,
        Self::Stop,
        Self::KafkaRestart,
        Self::KafkaKill,
        Self::PostgresRestart,
        Self::PostgresKill,
    ];
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "none",
            Self::Kill => "replica killed (-9)",
            Self::KillAndStart => "replica killed (-9), started again at once",
            Self::Stop => "replica stopped cleanly",
            Self::KafkaRestart => "broker restarted",
            Self::KafkaKill => "broker killed (-9), started again at once",
            Self::PostgresRestart => "postgres restarted",
            Self::PostgresKill => "postgres killed (-9), started again at once",
        })
    }
}

impl<'a> Trials<'a> {
    /// Starts two replicas of each service, with money and stock for all orders.
    pub(super) async fn begin(system: &'a System, stack: OwnStack) -> Result<Self> {
        let replicas = system.start_all(REPLICAS).await?;
        let client = system.client().within(LIMIT).pausing_at_most(CLIENT_PAUSE);
        client.deposit("ann", 1_000_000_000, "all").await?.created()?;
        client.receive("COFFEE", 1_000_000, "all").await?.created()?;
        Ok(Self { system, stack, replicas, client, orders: 0 })
    }

    /// Injects a fault and measures. Then everything runs again as before.
    pub(super) async fn try_once(&mut self, fault: Fault) -> Result<Measured> {
        self.shared_evenly().await?;
        let key = self.key_of_the_victim().await?;
        let client = self.client.clone();
        let order = async move {
            let order = client.place("ann", &[("COFFEE", 1)], &key).await?.order_id()?;
            let deadline = Instant::now() + LIMIT;
            while client.order(order).await?.success()?["status"] != "confirmed" {
                anyhow::ensure!(Instant::now() < deadline, "order {order} is not confirmed");
                sleep(POLL_INTERVAL).await;
            }

            anyhow::Ok(Instant::now())
        };

        let Self { system, stack, replicas, .. } = self;
        let victim = replicas
            .iter_mut()
            .find(|replica| replica.name() == VICTIM)
            .context("the victim runs")?;

        // The order is placed once the server or the replica is gone.
        let (begun, answered, confirmed) = match fault {
            Fault::Nothing => (Instant::now(), None, order.await?),
            Fault::Kill => {
                let begun = Instant::now();
                victim.kill().await?;
                let confirmed = order.await?;
                *victim = system.start(Service::PAYMENT, VICTIM).await?;
                (begun, None, confirmed)
            }
            Fault::KillAndStart => {
                let begun = Instant::now();
                victim.kill().await?;
                *victim = system.start(Service::PAYMENT, VICTIM).await?;
                (begun, None, order.await?)
            }
            Fault::Stop => {
                let begun = Instant::now();
                let (stopped, confirmed) = tokio::join!(victim.stop(), order);
                stopped?;
                *victim = system.start(Service::PAYMENT, VICTIM).await?;
                (begun, None, confirmed?)
            }
            Fault::KafkaRestart
            | Fault::KafkaKill
            | Fault::PostgresRestart
            | Fault::PostgresKill => {
                let begun = Instant::now();
                match fault {
                    Fault::KafkaRestart => stack.kafka.stop().await?,
                    Fault::KafkaKill => stack.kafka.kill().await?,
                    Fault::PostgresRestart => stack.postgres.stop().await?,
                    _ => stack.postgres.kill().await?,
                }

                let restart = async {
                    match fault {
                        Fault::KafkaRestart | Fault::KafkaKill => stack.kafka.restart().await?,
                        _ => stack.postgres.restart().await?,
                    }
                    anyhow::Ok(Instant::now())
                };
                let (answered, confirmed) = tokio::try_join!(restart, order)?;
                (begun, Some(answered), confirmed)
            }
        };

        Ok(Measured {
            from_fault: confirmed - begun,
            from_answer: answered.map(|answered| confirmed.saturating_duration_since(answered)),
        })
    }

    /// Stops all replicas.
    pub(super) async fn end(mut self) -> Result<()> {
        for replica in &mut self.replicas {
            replica.stop().await?;
        }
        Ok(())
    }

    /// Waits until each replica of each service owns half of the lanes, and the system is quiet.
    async fn shared_evenly(&mut self) -> Result<()> {
        for replica in &mut self.replicas {
            replica.wait_ready().await?;
        }
        self.system.until_quiet(LIMIT).await?;

        let deadline = Instant::now() + LIMIT;
        let of_each = self.system.partitions() / 2;
        for service in Service::all() {
            loop {
                let mut connection = self.system.pool(service).acquire().await?;
                let mut shares: BTreeMap<String, i32> = BTreeMap::new();
                let owners = inspect::owners(&mut connection).await?;
                for owner in owners.into_iter().filter_map(|(_, owner)| owner) {
                    *shares.entry(owner).or_default() += 1;
                }
                if shares.values().eq(&[of_each; REPLICAS]) {
                    break;
                }
                anyhow::ensure!(
                    Instant::now() < deadline,
                    "the lanes of {service} are shared as {shares:?} after {LIMIT:?}"
                );
                sleep(Duration::from_millis(50)).await;
            }
        }

        Ok(())
    }

    /// Returns an idempotency key whose order is in a lane of the victim.
    async fn key_of_the_victim(&mut self) -> Result<String> {
        let mut connection = self.system.pool(Service::PAYMENT).acquire().await?;
        let lanes = inspect::lanes_of(&mut connection, VICTIM).await?;
        anyhow::ensure!(!lanes.is_empty(), "{VICTIM} has no lane");
        let partitions =
            Partitions::new(self.system.partitions()).context("there are partitions")?;
        let ann: CustomerId = "ann".parse()?;

        loop {
            self.orders += 1;
            let key = format!("order-{}", self.orders);
            let order = OrderId::of_request(&ann, &key);
            if lanes.contains(&partitions.of(order.to_string().as_bytes()).0) {
                return Ok(key);
            }
        }
    }
}
