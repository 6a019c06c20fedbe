//! A bare hop: a record from memory to its ack and to a consumer.

use std::time::Duration;

use anyhow::Result;
use reel::kafka::{KafkaConfig, Topics};
use reel::model::{Event, Keyed, Timestamp};
use reel::wire::Envelope;
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock;
use crate::ledger::{LedgerEvent, Noted};
use crate::run::Bench;
use crate::seed::Producer;
use crate::stage::{PARTITIONS, Stage};
use crate::stats::Times;
use crate::watch::Watch;

const TOPIC: &str = "hops";
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Times of records that are produced from memory, without a commit.
#[derive(Debug, Clone)]
pub struct Hops {
    /// Times from sending until the ack.
    pub acked: Times,
    /// Times from sending until a consumer has the record.
    pub consumed: Times,
}

/// Produces records at a rate and consumes them, both with the toolkit's client settings.
///
/// # Errors
/// If Kafka is unreachable or refuses.
pub async fn hops(bench: &Bench, rate: u32, count: u32) -> Result<Hops> {
    let prefix = devstack::topics::unique_prefix();
    let kafka = KafkaConfig {
        brokers: bench.stack.kafka.bootstrap().to_owned(),
        group: format!("{prefix}hops"),
        prefix,
        properties: vec![],
    };
    Topics::new(kafka.clone())?.create_journal(TOPIC, PARTITIONS, None).await?;
    let topic = kafka.topic(TOPIC);
    let producer = Producer::new(&kafka)?;
    producer.warm_up(&topic).await?;
    let watch = Watch::start(&kafka, &topic).await?;

    let began = Instant::now();
    for nth in 0..count {
        tokio::time::sleep_until(began + Duration::from_secs(1) * nth / rate.max(1)).await;
        let note = Noted::random();
        let key = note.key();
        let event = LedgerEvent::from(note);
        let recorded_at = Some(Timestamp::from_micros(clock::micros()));
        let envelope = Envelope {
            id: Uuid::now_v7(),
            event_type: "Noted".to_owned(),
            recorded_at,
            ..Envelope::default()
        };
        let partition = Stage::partitions().of(key.as_str().as_bytes());
        producer.send(
            &topic,
            partition,
            key.as_str(),
            &event.encode()?,
            reel::kafka::headers(&envelope, "hops", key.as_str()),
        )?;
    }

    let acked = producer.all_acked().await?;
    let mut consumed = Times::default();
    for arrival in watch.until(count as usize, ARRIVAL_TIMEOUT).await? {
        consumed.record(arrival.at - arrival.recorded_at);
    }

    watch.end().await;
    devstack::topics::delete_with_prefix(&kafka.brokers, &kafka.prefix).await?;
    Ok(Hops { acked, consumed })
}
