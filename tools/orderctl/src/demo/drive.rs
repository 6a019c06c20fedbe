//! The driver, which places the orders of a plan over HTTP.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use contracts::OrderId;
use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::follow::Follow;
use super::plan::{self, PLENTY, POOR, Plan, Planned, RICH, SCARCE, SCARCE_PIECES, Wish};
use super::replicas::Replicas;
use crate::system::{Client, Service};

/// Deposit of each customer: more than any demo can spend.
const DEPOSIT_CENTS: i64 = 100_000_000_000;
/// Largest quantity of a receipt.
const RECEIPT_PIECES: i64 = 1_000_000;
/// Largest quantity of a product in one order.
const LARGEST_ORDER: i64 = 9;
/// Limit on the requests that wait for their answers at once.
const IN_FLIGHT: usize = 1_000;
/// Limit on the time from the deadline of an order to its cancel.
const EXPIRED_WITHIN: Duration = Duration::from_secs(30);

impl Plan {
    /// Deposits money and receives stock for all orders.
    pub(super) async fn stock_up(&self, client: &Client) -> Result<()> {
        let rich = (0..RICH).map(|nth| (plan::rich(nth), DEPOSIT_CENTS));
        let poor = (0..POOR).map(|nth| (plan::poor(nth), 1));
        let deposits = rich.chain(poor).map(async |(customer, cents)| {
            let answer = client.deposit(&customer, cents, "demo").await?;
            answer.created().with_context(|| format!("deposit of {customer}"))
        });

        let wanted = i64::try_from(self.orders.len())? * LARGEST_ORDER;
        let receipts = (wanted / RECEIPT_PIECES) + 1;
        let plenty = PLENTY
            .into_iter()
            .flat_map(|sku| (0..receipts).map(move |nth| (sku, RECEIPT_PIECES, nth)));
        let receipts =
            plenty.chain([(SCARCE, SCARCE_PIECES, 0)]).map(async |(sku, quantity, nth)| {
                let answer = client.receive(sku, quantity, &format!("demo-{nth}")).await?;
                answer.created().with_context(|| format!("receipt of {sku}"))
            });
        tokio::try_join!(try_join_all(deposits), try_join_all(receipts))?;
        Ok(())
    }
}

/// Places the orders of a plan at a rate.
pub(super) struct Driver<'a, 'replicas> {
    pub(super) client: Client,
    pub(super) plan: &'a Plan,
    pub(super) rate: u32,
    pub(super) follow: &'a Follow,
    pub(super) replicas: &'a Replicas<'replicas>,
}

impl Driver<'_, '_> {
    /// Places all orders, and returns how many were acknowledged.
    pub(super) async fn drive(&self) -> Result<u64> {
        let client = &self.client;
        let interval = Duration::from_secs(1) / self.rate;
        let mut next_at = Instant::now();
        let mut placed = 0;
        let mut in_flight = JoinSet::new();
        for (nth, order) in self.plan.orders.iter().enumerate() {
            if nth == self.plan.late.start {
                self.follow.note("inventory is paused: some orders will miss their deadline");
                self.replicas.pause(Service::INVENTORY).await?;
            }

            sleep_until(next_at).await;
            next_at += interval;
            let key = format!("demo-{nth}");
            if nth + 1 == self.plan.late.end {
                // Wait here until this order has missed its deadline; otherwise all the orders
                // after it would miss theirs as well.
                let order_id = place(client, order, &key).await?;
                placed += 1;
                self.until_expired(client, order_id).await?;
                self.replicas.resume().await?;
                self.follow.note("inventory goes on");
                next_at = Instant::now();
                continue;
            }

            let (client, order) = (client.clone(), order.clone());
            in_flight.spawn(async move { place(&client, &order, &key).await });
            while let Some(done) = if in_flight.len() < IN_FLIGHT {
                in_flight.try_join_next()
            } else {
                in_flight.join_next().await
            } {
                done??;
                placed += 1;
            }
        }

        while let Some(done) = in_flight.join_next().await {
            done??;
            placed += 1;
        }

        Ok(placed)
    }

    async fn until_expired(&self, client: &Client, order: OrderId) -> Result<()> {
        let cancelled = async {
            loop {
                if client.order(order).await?.success()?["status"] == "cancelled" {
                    return anyhow::Ok(());
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let limit = self.plan.settle_within + EXPIRED_WITHIN;
        timeout(limit, cancelled).await.with_context(|| {
            format!("order {order} was not cancelled in {limit:?}, and its deadline was shorter")
        })?
    }
}

async fn place(client: &Client, order: &Planned, key: &str) -> Result<OrderId> {
    let order_id = client.place(&order.customer, &order.lines, key).await?.order_id()?;
    if let Wish::Cancel(after) = order.wish {
        sleep(after).await;
        let answer = client.cancel(order_id).await?;
        // 409: the order is confirmed already.
        if !matches!(answer.status, 200 | 409) {
            bail!("the cancel of {order_id} was answered {}: {}", answer.status, answer.json);
        }
    }
    Ok(order_id)
}
