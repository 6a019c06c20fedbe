//! A pen: writes to the topic of a service that does not run, as its relay would.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
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
/// How long the producer is left alone when its queue is full.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(5);

impl Pen {
    /// For a topic, as the broker knows it.
    pub fn new(kafka: &str, topic: &str) -> Result<Self> {
        let producer = ClientConfig::new().set("bootstrap.servers", kafka).set("linger.ms", "0").set("compression.type", "lz4").create()?;
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
        let envelope = self.envelope(partition, number, event);
        self.send(partition, key.as_bytes(), Some(&event.encode()?), envelope.headers("pen", &key)).await
    }

    /// Writes so many events that nobody waits for each; returns when all are there.
    pub async fn write_many<E: Event>(&self, events: impl Iterator<Item = (Partition, i64, E)>) -> Result<()> {
        for (partition, number, event) in events {
            let (key, payload) = (event.key().to_string(), event.encode()?);
            let envelope = self.envelope(partition, number, &event);
            let mut record = FutureRecord::to(&self.topic).partition(partition.0).key(&key).payload(&payload);
            record = record.headers(envelope.headers("pen", &key));
            loop {
                match self.producer.send_result(record) {
                    Ok(_) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => record = back,
                    Err((error, _)) => return Err(error.into()),
                }
                tokio::time::sleep(WAIT_FOR_ROOM).await;
            }
        }
        let producer = self.producer.clone();
        Ok(tokio::task::spawn_blocking(move || producer.flush(TIMEOUT)).await??)
    }

    /// Writes a record again as it was read.
    pub async fn repeat(&self, record: &Record, subject: &str) -> Result<i64> {
        let envelope = record.envelope.as_ref().map_err(|malformed| anyhow!("{malformed}"))?;
        let key = record.key.as_deref().unwrap_or_default();
        self.send(record.partition, key, record.payload.as_deref(), envelope.headers("pen", subject)).await
    }

    fn envelope<E: Event>(&self, partition: Partition, number: i64, event: &E) -> Envelope {
        Envelope {
            id: Uuid::now_v7(),
            name: event.name().to_owned(),
            number: Some(number),
            generation: self.generations.get(&partition).copied(),
            ..Envelope::default()
        }
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
