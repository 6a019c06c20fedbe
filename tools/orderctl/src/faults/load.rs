//! The load: clients that order all the time, some more patient than others, and note their
//! answers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use contracts::OrderId;
use fastrand::Rng;
use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::acknowledgements::Reply;
use super::notes::{Notes, Request};
use crate::system::{Answer, Client};

const SKUS: [&str; 6] = ["TEA-GREEN", "TEA-BLACK", "COFFEE", "COCOA", "MUG", "TEAPOT"];
const CUSTOMERS: usize = 20;
const DEPOSIT_CENTS: i64 = 10_000_000_000;
const RECEIPT_PIECES: i64 = 1_000_000;
/// Time for which most clients try again; the others try once.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(150);
/// Problem type with which the order service refuses the cancel of a confirmed order.
const TOO_LATE: &str = "/problems/too-late";

/// The clients, which send requests and note the replies.
#[derive(Clone)]
pub(super) struct Load {
    client: Client,
    notes: Arc<Notes>,
}

impl Load {
    pub(super) fn new(client: Client, notes: Arc<Notes>) -> Self {
        // The load does the retries itself, so that it knows which try was answered.
        Self { client: client.within(Duration::ZERO), notes }
    }

    /// Deposits money and receives stock for all orders.
    pub(super) async fn stock_up(&self) -> Result<()> {
        let deposits = (0..CUSTOMERS)
            .map(|nth| Request::Deposit { customer: customer(nth), cents: DEPOSIT_CENTS });
        let receipts = SKUS.map(|sku| Request::Receipt { sku, quantity: RECEIPT_PIECES });
        let sent = deposits.chain(receipts).map(async |request| {
            self.send(&request, "first", PATIENCE)
                .await
                .with_context(|| format!("no reply to {request:?}"))
        });
        try_join_all(sent).await.map(|_| ())
    }

    /// Sends requests at this rate until `end`; returns when each has been answered or given up.
    pub(super) async fn run(self, rate: u32, seed: u64, mut end: oneshot::Receiver<()>) {
        let mut rng = Rng::with_seed(seed);
        let mut ticks = interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut clients = JoinSet::new();
        for nth in 0u64.. {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = &mut end => break,
            }
            let (load, rng) = (self.clone(), rng.fork());
            clients.spawn(async move { load.visit(nth, rng).await });
            while clients.try_join_next().is_some() {}
        }
        while clients.join_next().await.is_some() {}
    }

    /// Does what one client does: sends one request, and cancels an order now and then.
    async fn visit(&self, nth: u64, mut rng: Rng) {
        let request = match rng.u32(..50) {
            0 => Request::Deposit {
                customer: customer(rng.usize(..CUSTOMERS)),
                cents: rng.i64(1..100_000),
            },
            1 => Request::Receipt { sku: SKUS[rng.usize(..SKUS.len())], quantity: rng.i64(1..100) },
            2 => Request::Order { customer: format!("nobody-{nth}"), lines: vec![("MUG", 1)] },
            _ => {
                let customer = customer(rng.usize(..CUSTOMERS));
                let lines =
                    (0..rng.usize(1..=3)).map(|_| (SKUS[rng.usize(..SKUS.len())], rng.i64(1..=3)));
                Request::Order { customer, lines: lines.collect() }
            }
        };
        let patience = if rng.u32(..5) == 0 { Duration::ZERO } else { PATIENCE };
        let cancels = rng.u32(..14) == 0;
        let key = format!("visit-{nth}");

        self.notes.begin();
        if self.send(&request, &key, patience).await.is_some()
            && cancels
            && matches!(request, Request::Order { .. })
        {
            sleep(Duration::from_millis(rng.u64(..300))).await;
            self.cancel(OrderId::from(request.id(&key)), patience).await;
        }

        self.notes.end();
    }

    /// Sends a request until it is acknowledged, and notes that; `None` if it was not acknowledged
    /// in time.
    pub(super) async fn send(
        &self,
        request: &Request,
        key: &str,
        patience: Duration,
    ) -> Option<Value> {
        let id = request.id(key);
        self.notes.sending(id, request, key);

        let ask = || async {
            match request {
                Request::Order { customer, lines } => self.client.place(customer, lines, key).await,
                Request::Deposit { customer, cents } => {
                    self.client.deposit(customer, *cents, key).await
                }
                Request::Receipt { sku, quantity } => {
                    self.client.receive(sku, *quantity, key).await
                }
            }
        };

        let (reply, answer) = retry(patience, ask).await.ok()?;
        if answer.status != 201 {
            self.notes.add_wrong_answer(format!(
                "{} {id} was answered {}: {}",
                request.service(),
                answer.status,
                answer.json
            ));
            return None;
        }

        self.notes.acknowledged(id, reply, answer.json.clone());
        Some(answer.json)
    }

    async fn cancel(&self, order: OrderId, patience: Duration) {
        match retry(patience, || self.client.cancel(order)).await {
            Ok((reply, answer)) if answer.status == 200 => {
                self.notes.cancel_acknowledged(order.uuid(), reply);
            }
            Ok((reply, answer)) if answer.status == 409 && answer.json["type"] == TOO_LATE => {
                self.notes.confirmation_acknowledged(order.uuid(), reply);
            }

            // The order was lost with its database; otherwise the run finds in the end that it is
            // missing.
            Ok((_, answer)) if answer.status == 404 => {}
            Ok((_, answer)) => self.notes.add_wrong_answer(format!(
                "the cancel of {order} was answered {}: {}",
                answer.status, answer.json
            )),
            Err(_) => {}
        }
    }
}

/// Tries until an answer is not a server error, and returns it with the times at which that try was
/// sent and answered. A 500 is tried again as well.
async fn retry<F: Future<Output = Result<Answer>>>(
    patience: Duration,
    ask: impl Fn() -> F,
) -> Result<(Reply, Answer)> {
    let begun = Instant::now();
    loop {
        let sent_at = Instant::now();
        match ask().await {
            Ok(answer) if answer.status < 500 => {
                return Ok((Reply { sent_at, replied_at: Instant::now() }, answer));
            }
            _ if begun.elapsed() >= patience => bail!("no reply in {patience:?}"),
            _ => sleep(PAUSE).await,
        }
    }
}

fn customer(nth: usize) -> String {
    format!("customer-{nth:02}")
}
