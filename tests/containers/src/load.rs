//! Orders that arrive all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Result;
use contracts::OrderId;
use devstack::wait;
use orderctl::system::Client;
use tokio::task::JoinHandle;

use crate::LIMIT;

/// A customer who places one order after the other. What gets no answer, 503 or a reset is sent again under the same key.
pub struct Load {
    placed: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    customer: JoinHandle<Result<Vec<OrderId>>>,
}

impl Load {
    /// Begins.
    #[must_use]
    pub fn start(client: Client, name: &str) -> Self {
        let (placed, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end, name) = (placed.clone(), ended.clone(), name.to_owned());
        let customer = tokio::spawn(async move {
            let mut orders = Vec::new();
            while !end.load(Ordering::Relaxed) {
                let answer = client.place("ann", &[("COFFEE", 1)], &format!("{name}-{}", orders.len())).await?;
                orders.push(answer.order_id()?);
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(orders)
        });
        Self { placed, ended, customer }
    }

    /// Waits until so many more orders were acknowledged.
    ///
    /// # Errors
    /// Where they are not.
    pub async fn goes_on(&self, more: usize) -> Result<()> {
        let goal = self.placed.load(Ordering::Relaxed) + more;
        wait::until(LIMIT, "orders are acknowledged", || async {
            Ok((self.placed.load(Ordering::Relaxed) >= goal || self.customer.is_finished()).then_some(()))
        })
        .await
    }

    /// Ends it, and tells which orders were acknowledged.
    ///
    /// # Errors
    /// Where an order was answered otherwise, or not at all.
    pub async fn end(self) -> Result<Vec<OrderId>> {
        self.ended.store(true, Ordering::Relaxed);
        self.customer.await?
    }
}
