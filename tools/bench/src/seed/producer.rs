//! A bare producer with the toolkit's settings, which counts acks and records how long each took.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use reel::kafka::KafkaConfig;
use reel::model::Partition;

use crate::stage::Stage;
use crate::stats::Times;

/// Time limit for a full queue, and for the next ack.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(1);

/// A bare producer. Cheap to clone.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<ThreadedProducer<Deliveries>>,
    acked: Arc<Mutex<Acked>>,
}

/// The progress of a producer.
#[derive(Default)]
struct Acked {
    sent: u64,
    acked: u64,
    times: Times,
    failed: Option<KafkaError>,
}

struct Deliveries(Arc<Mutex<Acked>>);

impl Producer {
    /// A producer with the settings of the toolkit's producers.
    ///
    /// # Errors
    /// If the settings are invalid.
    pub fn new(kafka: &KafkaConfig) -> Result<Self> {
        let acked = Arc::new(Mutex::new(Acked::default()));
        let inner = ThreadedProducer::from_config_and_context(
            &kafka.producer(),
            Deliveries(acked.clone()),
        )?;
        Ok(Self { inner: Arc::new(inner), acked })
    }

    /// Sends a record to each partition of a topic, so that connections and leaders are known.
    ///
    /// # Errors
    /// If Kafka refuses.
    pub async fn warm_up(&self, topic: &str) -> Result<()> {
        for partition in Stage::partitions().iter() {
            self.send(topic, partition, "warm-up", &[], OwnedHeaders::new())?;
        }
        self.all_acked().await.map(drop)
    }

    /// Sends a record. Blocks the thread while the queue is full.
    ///
    /// # Errors
    /// If the client refuses the record, or the queue stays full.
    pub fn send(
        &self,
        topic: &str,
        partition: Partition,
        key: &str,
        payload: &[u8],
        headers: OwnedHeaders,
    ) -> Result<()> {
        let opaque = Box::new(Instant::now());
        let mut record = BaseRecord::with_opaque_to(topic, opaque)
            .partition(partition.0)
            .key(key)
            .payload(payload)
            .headers(headers);
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        lock(&self.acked).sent += 1;

        loop {
            match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    record = back;
                    std::thread::park_timeout(RETRY_PAUSE);
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Waits until all sent records are acked, and returns how long each one took.
    ///
    /// # Errors
    /// If a record is refused, or acks make no progress.
    pub async fn all_acked(&self) -> Result<Times> {
        let (mut last, mut moved_at) = (0, Instant::now());
        loop {
            {
                let mut acked = lock(&self.acked);
                if let Some(error) = acked.failed.take() {
                    return Err(error.into());
                }
                if acked.acked == acked.sent {
                    return Ok(std::mem::take(&mut acked.times));
                }
                if acked.acked != last {
                    (last, moved_at) = (acked.acked, Instant::now());
                }
            }
            if moved_at.elapsed() > ANSWER_TIMEOUT {
                bail!("kafka acked {last} records, and none in the last {ANSWER_TIMEOUT:?}");
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Instant>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent_at: Box<Instant>) {
        let mut acked = lock(&self.0);
        acked.acked += 1;
        match result {
            Ok(_) => acked.times.record_duration(sent_at.elapsed()),
            Err((error, _)) => acked.failed = Some(error.clone()),
        }
    }
}

fn lock(acked: &Mutex<Acked>) -> std::sync::MutexGuard<'_, Acked> {
    acked.lock().unwrap_or_else(PoisonError::into_inner)
}
