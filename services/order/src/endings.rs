//! Waiting for orders to end: one query at a time for all requests of this replica, since any replica may end an order.

use std::collections::HashMap;
use std::time::Duration;

use contracts::OrderId;
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};

use crate::domain::Order;
use crate::store;

/// How often it is looked who has ended, while somebody waits.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the database may take to answer, and the pause after it did not.
const ANSWER_AT_MOST: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Tells when orders end.
#[derive(Debug, Clone)]
pub(crate) struct Endings {
    waits: mpsc::UnboundedSender<Wait>,
}

type Wait = (OrderId, oneshot::Sender<Order>);

impl Endings {
    /// Looks for as long as this or a clone of it is kept.
    pub(crate) fn start(database: PgPool) -> Self {
        let (waits, inbox) = mpsc::unbounded_channel();
        tokio::spawn(look(database, inbox));
        Self { waits }
    }

    /// The order once it has ended; nothing if it has not after that time.
    pub(crate) async fn of(&self, order_id: OrderId, at_most: Duration) -> Option<Order> {
        let (ended, end) = oneshot::channel();
        self.waits.send((order_id, ended)).ok()?;
        tokio::time::timeout(at_most, end).await.ok()?.ok()
    }
}

async fn look(database: PgPool, mut inbox: mpsc::UnboundedReceiver<Wait>) {
    let mut waiting: HashMap<OrderId, Vec<oneshot::Sender<Order>>> = HashMap::new();
    loop {
        if waiting.is_empty() {
            let Some((order_id, ended)) = inbox.recv().await else { return };
            waiting.entry(order_id).or_default().push(ended);
        }
        while let Ok((order_id, ended)) = inbox.try_recv() {
            waiting.entry(order_id).or_default().push(ended);
        }
        waiting.retain(|_, waits| {
            waits.retain(|ended| !ended.is_closed());
            !waits.is_empty()
        });
        let ended = tokio::time::timeout(ANSWER_AT_MOST, store::ended(&database, waiting.keys().copied())).await;
        match ended.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(orders) => {
                for (order_id, order) in orders {
                    for ended in waiting.remove(&order_id).into_iter().flatten() {
                        let _ = ended.send(order.clone());
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => {
                tracing::debug!(error = %error, "it cannot be seen which orders have ended");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}
