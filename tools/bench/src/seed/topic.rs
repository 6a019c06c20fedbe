//! A topic as a service leaves it: each partition is opened, and its events have sequences.

use std::collections::HashMap;

use anyhow::Result;
use reel::kafka::KafkaConfig;
use reel::model::{Event, Partition, Timestamp};
use reel::wire::{DecisionOrder, Envelope, Opened};
use uuid::Uuid;

use super::Producer;
use crate::clock;
use crate::stage::Stage;

/// Number of decisions in a step.
const BATCH: u32 = 500;
const INSTANCE: &str = "seed";

/// Fills a topic as its service would.
pub struct Journal {
    producer: Producer,
    topic: String,
    source: &'static str,
    decided: u32,
    next: HashMap<Partition, i64>,
}

/// Fills an empty topic with a number of events.
///
/// # Errors
/// If Kafka refuses.
pub async fn journal<E: Event + From<M>, M: Send + 'static>(
    kafka: &KafkaConfig,
    source: &'static str,
    events: u32,
    make: fn() -> M,
) -> Result<()> {
    let mut journal = Journal::open(kafka, E::TOPIC, source)?;
    let producer = journal.producer.clone();
    tokio::task::spawn_blocking(move || {
        (0..events).try_for_each(|_| journal.append(&E::from(make())))
    })
    .await??;
    producer.all_acked().await.map(drop)
}

impl Journal {
    /// Opens each partition of an empty topic, in log epoch 0.
    ///
    /// # Errors
    /// If Kafka refuses.
    pub fn open(kafka: &KafkaConfig, topic: &str, source: &'static str) -> Result<Self> {
        let (producer, topic) = (Producer::new(kafka)?, kafka.topic(topic));
        for partition in Stage::partitions().iter() {
            let opened = Envelope {
                id: Uuid::now_v7(),
                event_type: Opened::NAME.to_owned(),
                ..Envelope::default()
            };
            let payload = Opened::codec().encode(&Opened { instance: INSTANCE.to_owned() })?;
            producer.send(
                &topic,
                partition,
                INSTANCE,
                &payload,
                reel::kafka::headers(&opened, source, INSTANCE),
            )?;
        }
        Ok(Self { producer, topic, source, decided: 0, next: HashMap::new() })
    }

    /// Appends an event with the next sequence of its partition.
    ///
    /// # Errors
    /// If Kafka refuses.
    pub fn append<E: Event>(&mut self, event: &E) -> Result<()> {
        let key = event.key();
        let partition = Stage::partitions().of(key.as_str().as_bytes());
        let next = self.next.entry(partition).or_default();
        let envelope = Envelope {
            id: Uuid::now_v7(),
            event_type: event.name().to_owned(),
            recorded_at: Some(Timestamp::from_micros(clock::micros())),
            sequence: Some(*next),
            epoch: Some(0),
            decided: Some(DecisionOrder {
                step: i64::from(self.decided / BATCH),
                place: i32::try_from(self.decided % BATCH)?,
            }),
            ..Envelope::default()
        };
        *next += 1;
        self.decided += 1;

        self.producer.send(
            &self.topic,
            partition,
            key.as_str(),
            &event.encode()?,
            reel::kafka::headers(&envelope, self.source, key.as_str()),
        )
    }
}
