//! Whether a fault's target has work in hand, and how much memory the processes take.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Run;
use super::schedule::Fault;
use crate::system::{Service, peak_memory_kib};

/// So long a fault waits for its target to get work. The kill of a server is worth a longer wait: there are few, and each must meet work.
const WAIT: Duration = Duration::from_secs(2);
const WAIT_AT_SERVER: Duration = Duration::from_secs(20);
const ASK: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(20);
const SAMPLE: Duration = Duration::from_millis(500);

impl Run {
    /// Waits until the target has work in hand: an open order in one of its lanes or, if its database does not answer, clients
    /// that wait. Says whether it has.
    pub(super) async fn has_work(&self, fault: &Fault, service: Option<Service>, replica: Option<&str>) -> bool {
        let wait = if matches!(fault, Fault::KillServer { .. }) { WAIT_AT_SERVER } else { WAIT };
        let begun = Instant::now();
        loop {
            let has_work = match timeout(ASK, self.open_orders(service, replica)).await {
                Ok(Ok(open)) => open > 0,
                _ => self.notes.in_flight() > 0,
            };
            if has_work || begun.elapsed() > wait {
                return has_work;
            }
            sleep(LOOK).await;
        }
    }

    /// An open order has a deadline, and does all it does in one lane, in every service.
    async fn open_orders(&self, service: Option<Service>, replica: Option<&str>) -> sqlx::Result<i64> {
        let orders = self.stage.system.pool(Service::Order);
        let (Some(service), Some(replica)) = (service, replica) else {
            return sqlx::query_scalar("select count(*) from reel.deadlines").fetch_one(orders).await;
        };
        let lanes: Vec<i32> = sqlx::query_scalar("select partition from reel.lanes where owner = $1")
            .bind(replica)
            .fetch_all(self.stage.system.pool(service))
            .await?;
        sqlx::query_scalar("select count(*) from reel.deadlines where partition = any($1)").bind(lanes).fetch_one(orders).await
    }

    /// Notes the most that each process takes; never ends.
    pub(super) async fn watch_memory(&self) {
        loop {
            for member in self.stage.members() {
                if let Ok(kilobytes) = peak_memory_kib(member.pid()) {
                    let mut memory = self.memory.lock().await;
                    let most = memory.entry(member.name.clone()).or_default();
                    *most = kilobytes.max(*most);
                }
            }
            sleep(SAMPLE).await;
        }
    }
}

/// The most that each process took, in KiB.
pub(super) type Memory = BTreeMap<String, u64>;
