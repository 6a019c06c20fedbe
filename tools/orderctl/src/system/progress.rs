//! The progress of the sagas, as the databases show it.

use std::collections::HashMap;
use std::fmt::{self, Display};

use reel::inspect::{self, InputProgress};
use sqlx::PgPool;
use uuid::Uuid;

use super::{PerService, Service};

/// The progress of the sagas, as the databases show it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Orders that have not ended.
    pub open: i64,
    /// Orders confirmed.
    pub confirmed: i64,
    /// Orders cancelled.
    pub cancelled: i64,
    /// Orders cancelled that payment or inventory still have to compensate.
    pub compensating: i64,
    /// Committed events that are not known to be in their topics yet.
    pub unpublished: i64,
    /// Events not yet consumed, summed over the services that read their topics.
    pub unread: i64,
}

impl Progress {
    /// Returns whether every order has ended, every cancelled one is compensated, and every event
    /// has been published and consumed.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.open == 0 && self.compensating == 0 && self.unpublished == 0 && self.unread == 0
    }

    pub(super) async fn read(
        pools: &PerService<PgPool>,
        topic: impl Fn(Service) -> String,
    ) -> sqlx::Result<Self> {
        let mut progress = Self::default();
        let by_status: Vec<(String, i64)> =
            sqlx::query_as("select status, count(*) from orders group by status")
                .fetch_all(&pools[Service::ORDER])
                .await?;
        for (status, count) in by_status {
            match status.as_str() {
                "open" => progress.open = count,
                "confirmed" => progress.confirmed = count,
                _ => progress.cancelled = count,
            }
        }

        progress.compensating = compensating(pools).await?;

        let mut heads: HashMap<(String, i32), i64> = HashMap::new();
        let mut inputs = Vec::new();
        for service in Service::all() {
            let mut connection = pools[service].acquire().await?;
            for lane in inspect::lanes(&mut connection).await? {
                progress.unpublished += lane.next_sequence - lane.published;
                heads.insert((topic(service), lane.partition.0), lane.next_sequence);
            }
            inputs.extend(inspect::inputs(&mut connection, service.name()).await?);
        }

        let unread = |input: InputProgress| {
            let head = heads.get(&(input.topic, input.partition.0));
            head.map_or(0, |head| head - input.next_sequence)
        };
        progress.unread = inputs.into_iter().map(unread).sum();
        Ok(progress)
    }
}

/// Counts the cancelled orders that are not compensated: by law 9, an order is compensated once
/// both payment and inventory have published that they hold nothing for it.
async fn compensating(pools: &PerService<PgPool>) -> sqlx::Result<i64> {
    let cancelled: Vec<Uuid> =
        sqlx::query_scalar("select order_id from orders where status = 'cancelled'")
            .fetch_all(&pools[Service::ORDER])
            .await?;
    let without_money: Vec<Uuid> = sqlx::query_scalar(
        "select order_id from payments
         where order_id = any($1) and status in ('failed', 'refunded')",
    )
    .bind(&cancelled)
    .fetch_all(&pools[Service::PAYMENT])
    .await?;
    let without_both: i64 = sqlx::query_scalar(
        "select count(*) from reservations
         where order_id = any($1) and status in ('failed', 'restored')",
    )
    .bind(&without_money)
    .fetch_one(&pools[Service::INVENTORY])
    .await?;
    Ok(i64::try_from(cancelled.len()).unwrap_or(i64::MAX) - without_both)
}

impl Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { open, compensating, unpublished, unread, .. } = self;
        write!(
            f,
            "{open} orders are open, {compensating} are not compensated, \
             {unpublished} events are not published, {unread} are not consumed"
        )
    }
}
