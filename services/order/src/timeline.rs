//! What happened to each order, by which service and when: a projection of all three topics.

use std::collections::HashMap;

use contracts::OrderId;
use contracts::inventory::{InventoryFailed, InventoryRestored, InventoryUpdated};
use contracts::orders::{OrderCancelled, OrderConfirmed, OrderCreated};
use contracts::payments::{PaymentCompleted, PaymentFailed, PaymentRefunded};
use futures_util::future::BoxFuture;
use reel::model::Contract;
use reel::model::{Message as _, MessageType, Timestamp};
use reel::projection::{Projected, Projection};
use reel::runtime::ConnectionPool;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::store::utc;

reel::inputs! {
    /// What may happen to an order.
    pub enum SagaEvent {
        OrderCreated, OrderConfirmed, OrderCancelled,
        PaymentCompleted, PaymentFailed, PaymentRefunded,
        InventoryUpdated, InventoryFailed, InventoryRestored
    }
}

/// The projection that writes the table `timeline`.
#[derive(Debug)]
pub(crate) struct Timeline;

/// One event of an order, as its timeline shows it.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub(crate) struct TimelineEntry {
    /// The type of the event.
    #[schema(example = "OrderCreated")]
    pub(crate) event: String,
    /// When it was recorded.
    #[schema(format = DateTime)]
    pub(crate) at: String,
    /// The service that published it.
    #[schema(example = "order")]
    pub(crate) by: String,
    /// Its place among the events of that service about this order, from 1. It stays the same if
    /// the projection is rebuilt and reads the topics in another order.
    #[serde(skip)]
    pub(crate) nth: u32,
    /// Seconds since it was recorded, by the database's clock.
    #[serde(skip)]
    pub(crate) age: f64,
}

impl Projection for Timeline {
    fn name(&self) -> &'static str {
        "timeline"
    }

    fn types(&self) -> &'static [MessageType] {
        SagaEvent::types()
    }

    fn project<'a>(
        &'a self,
        events: &'a [Projected],
        connection: &'a mut PgConnection,
    ) -> BoxFuture<'a, sqlx::Result<()>> {
        Box::pin(async move {
            let events: Vec<(Uuid, &Projected)> =
                events.iter().filter_map(|event| Some((event.key.parse().ok()?, event))).collect();
            if events.is_empty() {
                return Ok(());
            }
            sqlx::query(
                "insert into timeline (order_id, service, number, type, recorded_at)
                 select *
                 from unnest(
                     $1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::timestamptz[]
                 )
                 on conflict do nothing",
            )
            .bind(events.iter().map(|(order_id, _)| *order_id).collect::<Vec<_>>())
            .bind(events.iter().map(|(_, event)| service(event.kind.topic)).collect::<Vec<_>>())
            .bind(events.iter().map(|(_, event)| event.sequence).collect::<Vec<_>>())
            .bind(events.iter().map(|(_, event)| event.kind.name).collect::<Vec<_>>())
            .bind(events.iter().map(|(_, event)| utc(event.recorded_at)).collect::<Vec<_>>())
            .execute(connection)
            .await?;
            Ok(())
        })
    }
}

/// The service that publishes on a topic.
fn service(topic: &'static str) -> &'static str {
    match topic {
        OrderCreated::TOPIC => "order",
        PaymentCompleted::TOPIC => "payment",
        InventoryUpdated::TOPIC => "inventory",
        other => other,
    }
}

/// What happened to an order, oldest first.
pub(crate) async fn of(
    database: &ConnectionPool,
    order_id: OrderId,
) -> sqlx::Result<Vec<TimelineEntry>> {
    Ok(of_all(database, &[order_id]).await?.remove(&order_id).unwrap_or_default())
}

/// What happened to each of these orders, oldest first.
pub(crate) async fn of_all(
    database: &ConnectionPool,
    orders: &[OrderId],
) -> sqlx::Result<HashMap<OrderId, Vec<TimelineEntry>>> {
    let rows = sqlx::query(
        "select order_id, service, type, recorded_at,
             row_number() over (partition by order_id, service order by number) as nth,
             extract(epoch from clock_timestamp() - recorded_at)::float8 as age
         from timeline where order_id = any($1) order by recorded_at, service, number",
    );
    let rows = rows
        .bind(orders.iter().map(|order_id| order_id.uuid()).collect::<Vec<_>>())
        .fetch_all(database)
        .await?;

    let mut timelines: HashMap<OrderId, Vec<TimelineEntry>> = HashMap::new();
    for row in &rows {
        timelines
            .entry(row.try_get::<Uuid, _>("order_id")?.into())
            .or_default()
            .push(TimelineEntry::read(row)?);
    }

    Ok(timelines)
}

impl TimelineEntry {
    fn read(row: &PgRow) -> sqlx::Result<Self> {
        let at = Timestamp::from(row.try_get::<DateTime<Utc>, _>("recorded_at")?).to_string();
        let nth = u32::try_from(row.try_get::<i64, _>("nth")?).unwrap_or(u32::MAX);
        Ok(Self {
            event: row.try_get("type")?,
            at,
            by: row.try_get("service")?,
            nth,
            age: row.try_get("age")?,
        })
    }

    fn is<E: Contract>(&self) -> bool {
        self.event == E::NAME
    }
}

/// Whether nothing more can happen to the order: it is confirmed and the events of all services are
/// known, or it is cancelled and fully compensated.
pub(crate) fn is_over(timeline: &[TimelineEntry]) -> bool {
    fn has<E: Contract>(timeline: &[TimelineEntry]) -> bool {
        timeline.iter().any(TimelineEntry::is::<E>)
    }
    let confirmed = has::<OrderConfirmed>(timeline)
        && has::<PaymentCompleted>(timeline)
        && has::<InventoryUpdated>(timeline);
    // Payment took nothing or has refunded it; inventory took nothing or has restored it.
    let compensated = has::<OrderCancelled>(timeline)
        && (has::<PaymentFailed>(timeline) || has::<PaymentRefunded>(timeline))
        && (has::<InventoryFailed>(timeline) || has::<InventoryRestored>(timeline));
    has::<OrderCreated>(timeline) && (confirmed || compensated)
}

/// Seconds since the order was cancelled, if the timeline has that event.
pub(crate) fn cancelled_for(timeline: &[TimelineEntry]) -> Option<f64> {
    timeline.iter().find(|entry| entry.is::<OrderCancelled>()).map(|entry| entry.age)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A timeline of events with these names.
    pub(crate) fn entries(events: &[&str]) -> Vec<TimelineEntry> {
        let mut counts: HashMap<&str, u32> = HashMap::new();
        let mut entry = |event: &&str| {
            let topic =
                SagaEvent::types().iter().find(|kind| kind.name == *event).expect("a type").topic;
            let nth = counts.entry(topic).or_default();
            *nth += 1;
            TimelineEntry {
                event: (*event).to_owned(),
                at: String::new(),
                by: service(topic).to_owned(),
                nth: *nth,
                age: 0.0,
            }
        };
        events.iter().map(&mut entry).collect()
    }

    fn over(events: &[&str]) -> bool {
        is_over(&entries(events))
    }

    #[test]
    fn an_order_is_over_when_everybody_who_answers_has_answered() {
        assert!(over(&["OrderCreated", "PaymentCompleted", "InventoryUpdated", "OrderConfirmed"]));
        assert!(
            over(&["OrderConfirmed", "InventoryUpdated", "PaymentCompleted", "OrderCreated"]),
            "in whichever order the events were read"
        );
        assert!(over(&["OrderCreated", "PaymentFailed", "OrderCancelled", "InventoryFailed"]));
        assert!(over(&[
            "OrderCreated",
            "PaymentCompleted",
            "InventoryFailed",
            "OrderCancelled",
            "PaymentRefunded"
        ]));

        let expired = [
            "OrderCreated",
            "PaymentCompleted",
            "OrderCancelled",
            "InventoryUpdated",
            "PaymentRefunded",
            "InventoryRestored",
        ];
        assert!(over(&expired));
        for known in 0..expired.len() {
            assert!(!over(&expired[..known]), "{:?}", &expired[..known]);
        }
        assert!(
            !over(&["OrderCreated", "PaymentCompleted", "OrderConfirmed"]),
            "inventory's event is not known yet"
        );
    }

    #[test]
    fn each_event_is_attributed_to_its_service() {
        let services =
            SagaEvent::types().iter().map(|kind| service(kind.topic)).collect::<Vec<_>>();
        assert_eq!(services, [["order"; 3], ["payment"; 3], ["inventory"; 3]].concat());
    }
}
