//! How far the sagas have come, by the databases.

use std::collections::HashMap;
use std::fmt::{self, Display};

use sqlx::PgPool;
use uuid::Uuid;

use super::{PerService, Service};

/// How far the sagas have come, by the databases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Orders that have not ended.
    pub open: i64,
    /// Orders confirmed.
    pub confirmed: i64,
    /// Orders cancelled.
    pub cancelled: i64,
    /// Of those cancelled: to which payment or inventory have not answered yet.
    pub undoing: i64,
    /// Committed events that are not known to be in their topics.
    pub unpublished: i64,
    /// Events that a service that reads their topic has not consumed.
    pub unread: i64,
}

impl Progress {
    /// Whether every order has ended, every cancelled one is undone, and every event has been published and consumed.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.open == 0 && self.undoing == 0 && self.unpublished == 0 && self.unread == 0
    }

    pub(super) async fn read(pools: &PerService<PgPool>, topic: impl Fn(Service) -> String) -> sqlx::Result<Self> {
        let mut progress = Self::default();
        let by_status: Vec<(String, i64)> =
            sqlx::query_as("select status, count(*) from orders group by status").fetch_all(&pools[Service::Order]).await?;
        for (status, count) in by_status {
            match status.as_str() {
                "open" => progress.open = count,
                "confirmed" => progress.confirmed = count,
                _ => progress.cancelled = count,
            }
        }
        progress.undoing = undoing(pools).await?;
        let mut heads: HashMap<(String, i32), i64> = HashMap::new();
        let mut consumed = Vec::new();
        for service in Service::ALL {
            let lanes: Vec<(i32, i64, i64)> =
                sqlx::query_as("select partition, next_seq, seq from reel.heads join reel.cursors using (partition)")
                    .fetch_all(&pools[service])
                    .await?;
            for (partition, next_seq, published) in lanes {
                progress.unpublished += next_seq - published;
                heads.insert((topic(service), partition), next_seq);
            }
            let positions: Vec<(String, i32, i64)> =
                sqlx::query_as("select topic, partition, next_seq from reel.positions where reader = $1")
                    .bind(service.name())
                    .fetch_all(&pools[service])
                    .await?;
            consumed.extend(positions);
        }
        let unread = |(topic, partition, next_seq)| heads.get(&(topic, partition)).map_or(0, |head: &i64| head - next_seq);
        progress.unread = consumed.into_iter().map(unread).sum();
        Ok(progress)
    }
}

/// Law 9 speaks of both: an order is undone when payment and inventory have said that they hold nothing for it.
async fn undoing(pools: &PerService<PgPool>) -> sqlx::Result<i64> {
    let cancelled: Vec<Uuid> =
        sqlx::query_scalar("select order_id from orders where status = 'cancelled'").fetch_all(&pools[Service::Order]).await?;
    let without_money: Vec<Uuid> =
        sqlx::query_scalar("select order_id from payments where order_id = any($1) and status in ('failed', 'refunded')")
            .bind(&cancelled)
            .fetch_all(&pools[Service::Payment])
            .await?;
    let without_both: i64 =
        sqlx::query_scalar("select count(*) from reservations where order_id = any($1) and status in ('failed', 'restored')")
            .bind(&without_money)
            .fetch_one(&pools[Service::Inventory])
            .await?;
    Ok(i64::try_from(cancelled.len()).unwrap_or(i64::MAX) - without_both)
}

impl Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { open, undoing, unpublished, unread, .. } = self;
        write!(f, "{open} orders are open, {undoing} are not undone, {unpublished} events are not published, {unread} are not consumed")
    }
}
