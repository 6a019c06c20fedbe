//! Waiting for orders to complete: one query at a time for all requests of this replica, since any
//! replica may complete an order.

use std::collections::HashMap;
use std::time::Duration;

use contracts::OrderId;
use reel::runtime::ConnectionPool;
use tokio::sync::{mpsc, oneshot};

use crate::domain::Order;
use crate::store;

/// Poll interval while requests wait.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Pause after a query that failed.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The requests that wait for an order to be confirmed or cancelled.
#[derive(Debug, Clone)]
pub(crate) struct CompletionWaiters {
    waiters: mpsc::UnboundedSender<Waiter>,
}

type Waiter = (OrderId, oneshot::Sender<Order>);

impl CompletionWaiters {
    /// Starts the polling task, which runs until this and all clones of it are dropped.
    pub(crate) fn start(database: ConnectionPool) -> Self {
        let (waiters, inbox) = mpsc::unbounded_channel();
        tokio::spawn(poll_orders(database, inbox));
        Self { waiters }
    }

    /// Waits until the order is confirmed or cancelled, and returns it; `None` if that takes longer
    /// than `timeout`.
    pub(crate) async fn wait(&self, order_id: OrderId, timeout: Duration) -> Option<Order> {
        let (sender, completed) = oneshot::channel();
        self.waiters.send((order_id, sender)).ok()?;
        tokio::time::timeout(timeout, completed).await.ok()?.ok()
    }
}

async fn poll_orders(database: ConnectionPool, mut inbox: mpsc::UnboundedReceiver<Waiter>) {
    let mut waiting: HashMap<OrderId, Vec<oneshot::Sender<Order>>> = HashMap::new();
    loop {
        // Without waiters there is nothing to poll: sleep until the first one arrives.
        if waiting.is_empty() {
            let Some((order_id, sender)) = inbox.recv().await else { return };
            waiting.entry(order_id).or_default().push(sender);
        }
        while let Ok((order_id, sender)) = inbox.try_recv() {
            waiting.entry(order_id).or_default().push(sender);
        }

        // Requests that timed out have dropped their receivers.
        waiting.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });

        match store::completed(&database, waiting.keys().copied()).await {
            Ok(orders) => {
                for (order_id, order) in orders {
                    for sender in waiting.remove(&order_id).into_iter().flatten() {
                        let _ = sender.send(order.clone());
                    }
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            Err(error) => {
                tracing::debug!(error = %error, "cannot query which orders are complete");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}
