//! Reads a range of a topic-partition once: for recovery, for checks that a topic is still the
//! same, and for audits.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::sync::{Semaphore, mpsc};

use super::headers::Records;
use super::{ClientHealth, KafkaConfig};
use crate::log::Record;
use crate::model::Partition;

/// Most consumers at a time, and idle ones that are kept for reuse. Each has a connection and four
/// threads; who finds none waits for its turn.
const CONSUMERS: usize = 8;
/// Bytes and records that the reading thread hands over together.
const BUNDLE_BYTES: usize = 128 * 1024;
const BUNDLE: usize = 500;
/// Bundles that may wait for the caller.
const READ_AHEAD: usize = 4;
const POLL: Duration = Duration::from_millis(100);
/// Silence after which a consumer is replaced, given that the next record exists.
const SILENCE: Duration = Duration::from_secs(10);
/// Silence after which reading fails.
const LONGEST_SILENCE: Duration = Duration::from_secs(25);
const METADATA: Duration = Duration::from_secs(5);
/// Timeout of the check whether a topic exists, after another request about it has failed.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// A reader of ranges. It has a few consumers of its own and keeps the idle ones. Cheap to clone.
#[derive(Clone)]
pub struct RangeReader {
    kafka: KafkaConfig,
    idle: Arc<Mutex<Vec<BaseConsumer<ClientHealth>>>>,
    turns: Arc<Semaphore>,
}

/// The records of a range, in order. Dropping it ends the reading.
pub struct RangeRecords {
    bundles: mpsc::Receiver<Result<Vec<Record>, ReadError>>,
    bundle: std::vec::IntoIter<Record>,
}

impl RangeRecords {
    /// The next record; `None` behind the last one.
    ///
    /// # Errors
    /// If the log does not have it or cannot be read: see [`ReadError`].
    pub async fn recv(&mut self) -> Option<Result<Record, ReadError>> {
        loop {
            if let Some(record) = self.bundle.next() {
                return Some(Ok(record));
            }
            match self.bundles.recv().await? {
                Ok(bundle) => self.bundle = bundle.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A range cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The log does not have this offset: it was truncated or recreated.
    #[error("{topic}/{partition} has no offset {offset}: the topic was truncated or recreated")]
    OutOfRange {
        /// The topic, as the broker knows it.
        topic: String,
        /// The partition.
        partition: Partition,
        /// The offset that was requested.
        offset: i64,
    },
    /// The broker does not know the topic.
    #[error("{topic}/{partition} does not exist")]
    NoTopic {
        /// The topic, as the broker would know it.
        topic: String,
        /// The partition.
        partition: Partition,
    },
    /// Kafka sends nothing, although the record exists.
    #[error("kafka has not sent the record at {topic}/{partition}/{offset}")]
    Silent {
        /// The topic, as the broker knows it.
        topic: String,
        /// The partition.
        partition: Partition,
        /// The offset that was waited for.
        offset: i64,
    },
    /// Kafka cannot be reached or refuses.
    #[error("kafka cannot be read")]
    Kafka(#[from] KafkaError),
    /// The reading thread ended, because the process is ending.
    #[error("reading was cut off")]
    CutOff,
}

impl RangeReader {
    /// A reader, which connects when it is first used.
    #[must_use]
    pub fn new(kafka: KafkaConfig) -> Self {
        Self { kafka, idle: Arc::default(), turns: Arc::new(Semaphore::new(CONSUMERS)) }
    }

    /// The configuration of its consumers.
    #[must_use]
    pub fn config(&self) -> &KafkaConfig {
        &self.kafka
    }

    /// Reads the records from offset `from` up to `until`, exclusive, which must exist.
    #[must_use]
    pub fn range(&self, topic: &str, partition: Partition, from: i64, until: i64) -> RangeRecords {
        let (sender, bundles) = mpsc::channel(READ_AHEAD);
        if from < until {
            let (reader, topic) = (self.clone(), topic.to_owned());
            tokio::spawn(reader.in_turn(move |reader| {
                if let Err(error) = reader.read(&topic, partition, from, until, &sender) {
                    let _ = sender.blocking_send(Err(error));
                }
            }));
        }
        RangeRecords { bundles, bundle: Vec::new().into_iter() }
    }

    /// Runs on a thread of its own what needs a consumer, once one is free.
    async fn in_turn<T: Send + 'static>(
        self,
        read: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| ReadError::CutOff)?;
        let reading = tokio::task::spawn_blocking(move || {
            let result = read(&self);
            drop(turn);
            result
        });
        reading.await.map_err(|_| ReadError::CutOff)
    }

    /// The record at an offset; `None` if the next record has a higher offset.
    ///
    /// # Errors
    /// If the log does not have the offset or cannot be read: see [`ReadError`].
    pub async fn at(
        &self,
        topic: &str,
        partition: Partition,
        offset: i64,
    ) -> Result<Option<Record>, ReadError> {
        let (first, end) = self.watermarks(topic, partition).await?;
        if !(first..end).contains(&offset) {
            return Err(ReadError::OutOfRange { topic: topic.to_owned(), partition, offset });
        }
        let record = self.range(topic, partition, offset, offset + 1).recv().await.transpose()?;
        Ok(record.filter(|record| record.offset == offset))
    }

    /// The first offset, and the one behind the last.
    ///
    /// # Errors
    /// If the topic does not exist, or Kafka is unreachable.
    pub async fn watermarks(
        &self,
        topic: &str,
        partition: Partition,
    ) -> Result<(i64, i64), ReadError> {
        let topic = topic.to_owned();
        let watermarks = self.clone().in_turn(move |reader| {
            let consumer = reader.take()?;
            match consumer.fetch_watermarks(&topic, partition.0, METADATA) {
                Ok(watermarks) => {
                    reader.give_back(consumer);
                    Ok(watermarks)
                }

                // For a missing topic librdkafka reports one error or another, or times out.
                Err(error) => match count_of(&consumer, &topic, SECOND_LOOK) {
                    Ok(count) if count.is_none_or(|count| count <= partition.0) => {
                        Err(ReadError::NoTopic { topic, partition })
                    }
                    _ => Err(error.into()),
                },
            }
        });
        watermarks.await?
    }

    /// The number of partitions of a topic; `None` if it does not exist.
    ///
    /// # Errors
    /// If Kafka is unreachable or does not answer.
    pub async fn partition_count(&self, topic: &str) -> Result<Option<i32>, ReadError> {
        let topic = topic.to_owned();
        let count = self.clone().in_turn(move |reader| {
            let consumer = reader.take()?;
            let count = count_of(&consumer, &topic, METADATA)?;
            reader.give_back(consumer);
            Ok(count)
        });
        count.await?
    }

    fn read(
        &self,
        topic: &str,
        partition: Partition,
        from: i64,
        until: i64,
        sender: &mpsc::Sender<Result<Vec<Record>, ReadError>>,
    ) -> Result<(), ReadError> {
        let mut consumer = self.take()?;
        let (mut next, mut heard_at, mut replaced_at) = (from, Instant::now(), Instant::now());
        assign(&consumer, topic, partition, next)?;
        let mut records = Records::default();
        let mut bundle = Bundle::default();

        while !sender.is_closed() && next < until {
            // What has been read is not kept back while nothing comes.
            match consumer.poll(if bundle.is_empty() { POLL } else { Duration::ZERO }) {
                None if !bundle.is_empty() => bundle.send(sender),
                None if heard_at.elapsed() > LONGEST_SILENCE => {
                    let topic = topic.to_owned();
                    return Err(ReadError::Silent { topic, partition, offset: next });
                }
                // The consumer may be stranded (see `ClientHealth`), which it cannot detect itself:
                // idle consumers are not polled, so they report no statistics.
                None if replaced_at.elapsed() > SILENCE && heard_at.elapsed() > SILENCE => {
                    consumer = self.fresh()?;
                    replaced_at = Instant::now();
                    assign(&consumer, topic, partition, next)?;
                }
                None => {}
                Some(Ok(message)) if message.offset() >= until => break,
                Some(Ok(message)) => {
                    next = message.offset() + 1;
                    bundle.push(records.own(&message));
                    if bundle.is_full() {
                        bundle.send(sender);
                    }
                    heard_at = Instant::now();
                }
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
                ))) => {
                    return Err(ReadError::OutOfRange {
                        topic: topic.to_owned(),
                        partition,
                        offset: next,
                    });
                }
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownPartition,
                ))) => {
                    return Err(ReadError::NoTopic { topic: topic.to_owned(), partition });
                }
                Some(Err(error)) => tracing::debug!(error = %error, "the range reader retries"),
            }
        }

        bundle.send(sender);
        consumer.unassign()?;
        self.give_back(consumer);
        Ok(())
    }

    fn take(&self) -> Result<BaseConsumer<ClientHealth>, KafkaError> {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        idle.map_or_else(|| self.fresh(), Ok)
    }

    fn fresh(&self) -> Result<BaseConsumer<ClientHealth>, KafkaError> {
        BaseConsumer::from_config_and_context(&self.kafka.small_consumer(), ClientHealth::default())
    }

    fn give_back(&self, consumer: BaseConsumer<ClientHealth>) {
        if let Ok(mut idle) = self.idle.lock()
            && idle.len() < CONSUMERS
        {
            idle.push(consumer);
        }
    }
}

/// Records that are handed over together.
#[derive(Default)]
struct Bundle {
    records: Vec<Record>,
    bytes: usize,
}

impl Bundle {
    fn push(&mut self, record: Record) {
        self.bytes += record.size();
        self.records.push(record);
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn is_full(&self) -> bool {
        self.bytes >= BUNDLE_BYTES || self.records.len() >= BUNDLE
    }

    /// Hands the records over. If nobody wants them, the reading ends at its next turn.
    fn send(&mut self, to: &mpsc::Sender<Result<Vec<Record>, ReadError>>) {
        let Self { records, .. } = std::mem::take(self);
        if !records.is_empty() {
            let _ = to.blocking_send(Ok(records));
        }
    }
}

/// Makes a consumer read this partition from an offset on, and nothing else.
fn assign(
    consumer: &BaseConsumer<ClientHealth>,
    topic: &str,
    partition: Partition,
    from: i64,
) -> Result<(), KafkaError> {
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition.0, Offset::Offset(from))?;
    consumer.assign(&assignment)
}

/// The number of partitions of a topic; `None` if the broker does not know it.
fn count_of(
    consumer: &BaseConsumer<ClientHealth>,
    topic: &str,
    within: Duration,
) -> Result<Option<i32>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), within)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Ok(None);
    };
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(i32::try_from(found.partitions().len()).ok().filter(|count| *count > 0)),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(None),
        Some(code) => Err(KafkaError::MetadataFetch(code)),
    }
}
