//! A steady load of orders.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use contracts::OrderId;
use devstack::wait;
use orderctl::system::Client;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::LIMIT;

const CLIENTS: usize = 8;
/// Interval between two orders of one client, unless it still waits for an answer.
const ORDER_EVERY: Duration = Duration::from_millis(100);

/// Clients that each place one order after the other. A client retries an order with the same key
/// after 503 or a connection reset, and after silence, unless its [`Client`] fails then.
pub struct Load {
    placed: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<Vec<OrderId>>>>,
}

impl Load {
    /// Starts the clients.
    #[must_use]
    pub fn start(client: &Client, name: &str) -> Self {
        let (placed, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let start = |nth: usize| {
            tokio::spawn(place(
                client.clone(),
                format!("{name}-{nth}"),
                placed.clone(),
                ended.clone(),
            ))
        };
        let clients = (0..CLIENTS).map(start).collect();
        Self { placed, ended, clients }
    }

    /// Waits until this many more orders are acknowledged, or a client has failed. [`Load::end`]
    /// then returns the client's error.
    ///
    /// # Errors
    /// If they are not acknowledged in time.
    pub async fn wait_for_more(&self, more: usize) -> Result<()> {
        let goal = self.placed.load(Ordering::Relaxed) + more;
        wait::until(LIMIT, "orders to be acknowledged", || async {
            let one_has_failed = self.clients.iter().any(JoinHandle::is_finished);
            Ok((self.placed.load(Ordering::Relaxed) >= goal || one_has_failed).then_some(()))
        })
        .await
    }

    /// Stops the clients, and returns the orders that were acknowledged.
    ///
    /// # Errors
    /// If an order got any other answer, or none.
    pub async fn end(self) -> Result<Vec<OrderId>> {
        self.ended.store(true, Ordering::Relaxed);
        let mut orders = Vec::new();
        for client in self.clients {
            orders.extend(client.await??);
        }
        Ok(orders)
    }
}

async fn place(
    client: Client,
    name: String,
    placed: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
) -> Result<Vec<OrderId>> {
    let mut orders = Vec::new();
    let mut arrivals = interval(ORDER_EVERY);
    arrivals.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !ended.load(Ordering::Relaxed) {
        arrivals.tick().await;
        let answer =
            client.place("ann", &[("COFFEE", 1)], &format!("{name}-{}", orders.len())).await?;
        orders.push(answer.order_id()?);
        placed.fetch_add(1, Ordering::Relaxed);
    }
    Ok(orders)
}
