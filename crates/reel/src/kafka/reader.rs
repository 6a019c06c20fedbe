//! Reads a range of a topic-partition, once: for opening, for checking that a topic is still the same, for audits.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::record::Records;
use super::{Kafka, Quiet, Record};
use crate::model::Partition;

/// How many records may wait between the reading thread and who asked.
const READ_AHEAD: usize = 2_000;
/// How many consumers are kept: each is a connection and four threads, and opening many lanes at once takes one for each.
const KEPT: usize = 4;
const POLL: Duration = Duration::from_millis(100);
/// After so long without a record that must be there, another consumer is asked.
const SILENCE: Duration = Duration::from_secs(10);
const METADATA: Duration = Duration::from_secs(5);
/// How long it may take to ask whether a topic is there, when something else about it has failed.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Reads ranges with consumers of its own, of which it keeps a few for the next time. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    kafka: Kafka,
    idle: Arc<Mutex<Vec<BaseConsumer<Quiet>>>>,
}

/// A range cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log does not reach there: it was truncated or made anew.
    #[error("{topic}/{partition} has no offset {offset}: the topic was truncated or made anew")]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// What was asked for.
        offset: i64,
    },
    /// The broker does not know the topic.
    #[error("{topic}/{partition} does not exist")]
    NoTopic {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
    },
    /// Kafka cannot be reached or refuses.
    #[error("kafka cannot be read")]
    Kafka(#[from] KafkaError),
    /// The reading thread ended, since the process does.
    #[error("reading was cut off")]
    CutOff,
}

impl Reader {
    /// A reader; it connects when it is asked.
    #[must_use]
    pub fn new(kafka: Kafka) -> Self {
        Self { kafka, idle: Arc::default() }
    }

    /// Where this reader reads.
    #[must_use]
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    /// The records from offset `from` up to and without `until`, which must exist. Dropping the receiver ends the reading.
    #[must_use]
    pub fn range(&self, topic: &str, partition: Partition, from: i64, until: i64) -> mpsc::Receiver<Result<Record, ReadError>> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        if from >= until {
            return receiver;
        }
        let (reader, topic) = (self.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = reader.read(&topic, partition, from, until, &sender) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        receiver
    }

    /// The record at an offset; `None` where another one comes first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn at(&self, topic: &str, partition: Partition, offset: i64) -> Result<Option<Record>, ReadError> {
        let (first, end) = self.watermarks(topic, partition).await?;
        if !(first..end).contains(&offset) {
            return Err(ReadError::OutOfRange { topic: topic.to_owned(), partition, offset });
        }
        let record = self.range(topic, partition, offset, offset + 1).recv().await.transpose()?;
        Ok(record.filter(|record| record.offset == offset))
    }

    /// The first offset and the one after the last.
    ///
    /// # Errors
    /// Where the topic does not exist, or Kafka cannot be reached.
    pub async fn watermarks(&self, topic: &str, partition: Partition) -> Result<(i64, i64), ReadError> {
        let (reader, topic) = (self.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let consumer = reader.take()?;
            match consumer.fetch_watermarks(&topic, partition.0, METADATA) {
                Ok(watermarks) => {
                    reader.give_back(consumer);
                    Ok(watermarks)
                }
                // Of a topic that is not there it says one thing or another, or nothing in time.
                Err(error) => match count_of(&consumer, &topic, SECOND_LOOK) {
                    Ok(count) if count.is_none_or(|count| count <= partition.0) => Err(ReadError::NoTopic { topic, partition }),
                    _ => Err(error.into()),
                },
            }
        })
        .await
        .map_err(|_| ReadError::CutOff)?
    }

    /// How many partitions a topic has; `None` where it does not exist.
    ///
    /// # Errors
    /// Where Kafka cannot be reached, or does not tell.
    pub async fn partition_count(&self, topic: &str) -> Result<Option<i32>, ReadError> {
        let (reader, topic) = (self.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let consumer = reader.take()?;
            let count = count_of(&consumer, &topic, METADATA)?;
            reader.give_back(consumer);
            Ok(count)
        })
        .await
        .map_err(|_| ReadError::CutOff)?
    }

    fn read(
        &self,
        topic: &str,
        partition: Partition,
        from: i64,
        until: i64,
        sender: &mpsc::Sender<Result<Record, ReadError>>,
    ) -> Result<(), ReadError> {
        let mut consumer = self.take()?;
        let (mut next, mut heard_at) = (from, Instant::now());
        assign(&consumer, topic, partition, next)?;
        let mut records = Records::default();
        while !sender.is_closed() {
            match consumer.poll(POLL) {
                // It may have lost all brokers (see `Quiet`), and nobody watches an idle one's statistics.
                None if heard_at.elapsed() > SILENCE => {
                    consumer = self.fresh()?;
                    heard_at = Instant::now();
                    assign(&consumer, topic, partition, next)?;
                }
                None => {}
                Some(Ok(message)) if message.offset() >= until => break,
                Some(Ok(message)) => {
                    next = message.offset() + 1;
                    let last = next >= until;
                    if sender.blocking_send(Ok(records.read(&message))).is_err() || last {
                        break;
                    }
                    heard_at = Instant::now();
                }
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange))) => {
                    return Err(ReadError::OutOfRange { topic: topic.to_owned(), partition, offset: next });
                }
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition,
                ))) => {
                    return Err(ReadError::NoTopic { topic: topic.to_owned(), partition });
                }
                Some(Err(error)) => tracing::debug!(error = %error, "reading goes on"),
            }
        }
        consumer.unassign()?;
        self.give_back(consumer);
        Ok(())
    }

    fn take(&self) -> Result<BaseConsumer<Quiet>, KafkaError> {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        idle.map_or_else(|| self.fresh(), Ok)
    }

    fn fresh(&self) -> Result<BaseConsumer<Quiet>, KafkaError> {
        BaseConsumer::from_config_and_context(&self.kafka.small_consumer(), Quiet::default())
    }

    fn give_back(&self, consumer: BaseConsumer<Quiet>) {
        if let Ok(mut idle) = self.idle.lock()
            && idle.len() < KEPT
        {
            idle.push(consumer);
        }
    }
}

/// Has a consumer read a partition from an offset on, and nothing else.
fn assign(consumer: &BaseConsumer<Quiet>, topic: &str, partition: Partition, from: i64) -> Result<(), KafkaError> {
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition.0, Offset::Offset(from))?;
    consumer.assign(&assignment)
}

/// How many partitions a topic has; `None` where the broker does not know it.
fn count_of(consumer: &BaseConsumer<Quiet>, topic: &str, within: Duration) -> Result<Option<i32>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), within)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(i32::try_from(found.partitions().len()).ok().filter(|count| *count > 0)),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(None),
        Some(code) => Err(KafkaError::MetadataFetch(code)),
    }
}
