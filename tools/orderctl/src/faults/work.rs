//! Whether a fault's target has work in hand, and the memory that the processes take.

use std::collections::BTreeMap;
use std::time::Duration;

use reel::inspect;
use tokio::time::{Instant, sleep, timeout};

use super::Run;
use super::schedule::Fault;
use crate::system::{Service, peak_memory_kib};

/// Time for which a fault waits for its target to get work. The kill of a server waits longer,
/// because there are few and each must meet work.
const WAIT: Duration = Duration::from_secs(2);
const WAIT_AT_SERVER: Duration = Duration::from_secs(20);
const QUERY_TIMEOUT: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

impl Run {
    /// Waits for the target to have work in hand, and returns whether it has. Work is an open order
    /// in one of its lanes or, if its database does not answer, clients that wait.
    pub(super) async fn has_work(
        &self,
        fault: &Fault,
        service: Option<Service>,
        replica: Option<&str>,
    ) -> bool {
        let wait = if matches!(fault, Fault::KillServer { .. }) { WAIT_AT_SERVER } else { WAIT };
        let begun = Instant::now();
        loop {
            let has_work = match timeout(QUERY_TIMEOUT, self.open_orders(service, replica)).await {
                Ok(Ok(open)) => open > 0,
                _ => self.notes.in_flight() > 0,
            };
            if has_work || begun.elapsed() > wait {
                return has_work;
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Counts the open orders in the lanes of a replica, or all of them. An open order has a
    /// deadline, and stays in the same lane in every service.
    async fn open_orders(
        &self,
        service: Option<Service>,
        replica: Option<&str>,
    ) -> sqlx::Result<i64> {
        let mut orders = self.stage.system.pool(Service::ORDER).acquire().await?;
        let (Some(service), Some(replica)) = (service, replica) else {
            return inspect::deadline_count(&mut orders, None).await;
        };
        let mut of_service = self.stage.system.pool(service).acquire().await?;
        let lanes = inspect::lanes_of(&mut of_service, replica).await?;
        inspect::deadline_count(&mut orders, Some(&lanes)).await
    }

    /// Notes the most memory that each process takes; never returns.
    pub(super) async fn watch_memory(&self) {
        loop {
            for member in self.stage.members() {
                if let Ok(kilobytes) = peak_memory_kib(member.pid()) {
                    let mut memory = self.memory.lock().await;
                    let most = memory.entry(member.name.clone()).or_default();
                    *most = kilobytes.max(*most);
                }
            }
            sleep(SAMPLE_INTERVAL).await;
        }
    }
}

/// The most memory that each process took, in KiB.
pub(super) type Memory = BTreeMap<String, u64>;
