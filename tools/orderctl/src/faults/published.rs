//! Which of the clients' requests are in the topics, by the consumer's rule (law 3).

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use contracts::inventory::InventoryEvent;
use contracts::orders::OrderEvent;
use contracts::payments::PaymentEvent;
use reel::kafka::{RangeReader, Record};
use reel::log::{Position, Verdict};
use reel::model::{Message, Partition};
use reel::wire::Envelope;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::system::{Service, System};

/// Time without new records after which topics count as quiet.
const QUIET_FOR: Duration = Duration::from_millis(1_200);
const QUIET_WITHIN: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The requests whose events are in the topics, by id, and the number of those events.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Orders, deposits and receipts.
    pub(super) made: HashMap<Uuid, u32>,
    /// Orders that were cancelled.
    pub(super) cancelled: HashMap<Uuid, u32>,
    /// Orders that were confirmed.
    pub(super) confirmed: HashMap<Uuid, u32>,
}

impl Published {
    /// Waits until the relays publish nothing more to the topics of these services, and reads them.
    pub(super) async fn when_quiet(system: &System, services: &[Service]) -> Result<Self> {
        let reader = RangeReader::new(system.sources().kafka);
        let limit = Instant::now() + QUIET_WITHIN;
        let (mut last, mut since) = (ends(&reader, system, services).await?, Instant::now());
        while since.elapsed() < QUIET_FOR && Instant::now() < limit {
            sleep(POLL_INTERVAL).await;
            let now = ends(&reader, system, services).await?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        let published = Self::read(&reader, system, services).await;
        std::thread::spawn(move || drop(reader)); // its consumers take a while to close
        published
    }

    async fn read(reader: &RangeReader, system: &System, services: &[Service]) -> Result<Self> {
        let mut published = Self::default();
        for service in services {
            let topic = system.topic(*service);
            for (partition, end) in ends(reader, system, &[*service]).await? {
                let mut records = reader.range(&topic, partition, 0, end);
                let mut position = Position::START;
                while let Some(record) = records.recv().await {
                    let record = record?;
                    if matches!(position.read(&record), Verdict::Apply) {
                        published.note(*service, &record).with_context(|| {
                            format!("{topic}/{partition} offset {}", record.offset)
                        })?;
                    }
                }
            }
        }
        Ok(published)
    }

    fn note(&mut self, service: Service, record: &Record) -> Result<()> {
        let (Ok(Envelope { event_type: name, .. }), payload) =
            (&record.envelope, record.payload.as_deref().unwrap_or_default())
        else {
            return Ok(());
        };
        let (counts, id) = match (service, name.as_str()) {
            (Service::ORDER, "OrderCreated" | "OrderCancelled" | "OrderConfirmed") => {
                match OrderEvent::decode(name, payload)? {
                    OrderEvent::OrderCreated(e) => (&mut self.made, e.order_id.uuid()),
                    OrderEvent::OrderCancelled(e) => (&mut self.cancelled, e.order_id.uuid()),
                    OrderEvent::OrderConfirmed(e) => (&mut self.confirmed, e.order_id.uuid()),
                }
            }
            (Service::PAYMENT, "AccountCredited") => match PaymentEvent::decode(name, payload)? {
                PaymentEvent::AccountCredited(e) => (&mut self.made, e.deposit_id.uuid()),
                _ => return Ok(()),
            },
            (Service::INVENTORY, "StockReceived") => match InventoryEvent::decode(name, payload)? {
                InventoryEvent::StockReceived(e) => (&mut self.made, e.receipt_id.uuid()),
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        *counts.entry(id).or_default() += 1;
        Ok(())
    }
}

/// Reads the end offset of each partition of the services' topics.
async fn ends(
    reader: &RangeReader,
    system: &System,
    services: &[Service],
) -> Result<Vec<(Partition, i64)>> {
    let mut ends = Vec::new();
    for service in services {
        let topic = system.topic(*service);
        let count = reader
            .partition_count(&topic)
            .await?
            .with_context(|| format!("there is no topic {topic}"))?;
        for partition in (0..count).map(Partition) {
            ends.push((partition, reader.watermarks(&topic, partition).await?.1));
        }
    }
    Ok(ends)
}
