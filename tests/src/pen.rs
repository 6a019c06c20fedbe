//! A stand-in for the relay of a service that is not running: it writes to the service's topic.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use reel::kafka::{Record, headers};
use reel::model::{Event, Partition};
use reel::wire::{Envelope, Opened};
use uuid::Uuid;

/// A writer of records to one topic, in log epochs of its own.
pub struct Pen {
    producer: FutureProducer,
    topic: String,
    epochs: HashMap<Partition, i64>,
}

const TIMEOUT: Duration = Duration::from_secs(20);
/// Pause before the next try when the producer's queue is full.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(5);

impl Pen {
    /// Creates a pen for a topic, by the name that the broker knows.
    pub fn new(kafka: &str, topic: &str) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", kafka)
            .set("linger.ms", "0")
            .set("compression.type", "lz4")
            .create()?;
        Ok(Self { producer, topic: topic.to_owned(), epochs: HashMap::new() })
    }

    /// Opens a partition: writes `reel.opened`, whose offset is the epoch of later records.
    pub async fn open(&mut self, partition: Partition) -> Result<i64> {
        let payload = Opened::codec().encode(&Opened { instance: "pen".into() })?;
        let envelope =
            Envelope { id: Uuid::now_v7(), event_type: Opened::NAME.into(), ..Envelope::default() };
        let epoch =
            self.send(partition, b"pen", Some(&payload), headers(&envelope, "pen", "pen")).await?;
        self.epochs.insert(partition, epoch);
        Ok(epoch)
    }

    /// Writes an event with a sequence.
    pub async fn write<E: Event>(
        &self,
        partition: Partition,
        sequence: i64,
        event: &E,
    ) -> Result<i64> {
        let key = event.key().to_string();
        let envelope = self.envelope(partition, sequence, event);
        self.send(
            partition,
            key.as_bytes(),
            Some(&event.encode()?),
            headers(&envelope, "pen", &key),
        )
        .await
    }

    /// Writes events, with their partitions and sequences, and waits once for all acks.
    pub async fn write_many<E: Event>(
        &self,
        events: impl Iterator<Item = (Partition, i64, E)>,
    ) -> Result<()> {
        for (partition, sequence, event) in events {
            let (key, payload) = (event.key().to_string(), event.encode()?);
            let envelope = self.envelope(partition, sequence, &event);
            let mut record =
                FutureRecord::to(&self.topic).partition(partition.0).key(&key).payload(&payload);
            record = record.headers(headers(&envelope, "pen", &key));

            loop {
                match self.producer.send_result(record) {
                    Ok(_) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        record = back;
                    }
                    Err((error, _)) => return Err(error.into()),
                }
                tokio::time::sleep(WAIT_FOR_ROOM).await;
            }
        }

        let producer = self.producer.clone();
        Ok(tokio::task::spawn_blocking(move || producer.flush(TIMEOUT)).await??)
    }

    /// Writes a record once more, as it was read.
    pub async fn repeat(&self, record: &Record, subject: &str) -> Result<i64> {
        let envelope = record.envelope.as_ref().map_err(|malformed| anyhow!("{malformed}"))?;
        let key = record.key.as_deref().unwrap_or_default();
        self.send(
            record.partition,
            key,
            record.payload.as_deref(),
            headers(envelope, "pen", subject),
        )
        .await
    }

    fn envelope<E: Event>(&self, partition: Partition, sequence: i64, event: &E) -> Envelope {
        Envelope {
            id: Uuid::now_v7(),
            event_type: event.name().to_owned(),
            sequence: Some(sequence),
            epoch: self.epochs.get(&partition).copied(),
            ..Envelope::default()
        }
    }

    /// Writes any record.
    pub async fn send(
        &self,
        partition: Partition,
        key: &[u8],
        payload: Option<&[u8]>,
        headers: OwnedHeaders,
    ) -> Result<i64> {
        let mut record: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(&self.topic).partition(partition.0).key(key).headers(headers);
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        let delivery = self.producer.send(record, TIMEOUT).await.map_err(|(error, _)| error)?;
        Ok(delivery.offset)
    }
}
