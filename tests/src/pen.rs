//! A pen: writes to the topic of a service that does not run, as its relay would.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord};
use reel::kafka::Record;
use reel::model::{Event, Partition};
use reel::wire::{Envelope, Opened};
use uuid::Uuid;

/// Writes records to one topic, in generations of its own.
pub struct Pen {
    producer: FutureProducer,
    topic: String,
    generations: HashMap<Partition, i64>,
}

const TIMEOUT: Duration = Duration::from_secs(20);

impl Pen {
    /// For a topic, as the broker knows it.
    pub fn new(kafka: &str, topic: &str) -> Result<Self> {
        let producer = ClientConfig::new().set("bootstrap.servers", kafka).set("linger.ms", "0").create()?;
        Ok(Self { producer, topic: topic.to_owned(), generations: HashMap::new() })
    }

    /// Opens a partition: later records carry the offset of this one.
    pub async fn open(&mut self, partition: Partition) -> Result<i64> {
        let payload = Opened::codec().encode(&Opened { instance: "pen".into() })?;
        let envelope = Envelope { id: Uuid::now_v7(), name: Opened::NAME.into(), ..Envelope::default() };
        let generation = self.send(partition, b"pen", Some(&payload), envelope.headers("pen", "pen")).await?;
        self.generations.insert(partition, generation);
        Ok(generation)
    }

    /// Writes an event under a number.
    pub async fn write<E: Event>(&self, partition: Partition, number: i64, event: &E) -> Result<i64> {
        let key = event.key().to_string();
        let envelope = Envelope {
            id: Uuid::now_v7(),
            name: event.name().to_owned(),
            number: Some(number),
            generation: self.generations.get(&partition).copied(),
            ..Envelope::default()
        };
        self.send(partition, key.as_bytes(), Some(&event.encode()?), envelope.headers("pen", &key)).await
    }

    /// Writes a record again as it was read.
    pub async fn repeat(&self, record: &Record, subject: &str) -> Result<i64> {
        let envelope = record.envelope.as_ref().map_err(|malformed| anyhow!("{malformed}"))?;
        let key = record.key.as_deref().unwrap_or_default();
        self.send(record.partition, key, record.payload.as_deref(), envelope.headers("pen", subject)).await
    }

    /// Writes any record.
    pub async fn send(&self, partition: Partition, key: &[u8], payload: Option<&[u8]>, headers: OwnedHeaders) -> Result<i64> {
        let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.topic).partition(partition.0).key(key).headers(headers);
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        let delivery = self.producer.send(record, TIMEOUT).await.map_err(|(error, _)| error)?;
        Ok(delivery.offset)
    }
}
