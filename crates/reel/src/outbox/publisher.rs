//! The producer of a replica: one idempotent producer for all its lanes, made anew when it has failed for good.

use std::sync::{Arc, Mutex, RwLock};

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::Numbered;
use crate::kafka::{Kafka, Quiet, watched};
use crate::model::Partition;
use crate::wire::{Envelope, Opened};

/// Sends the records of one service.
pub(crate) struct Publisher {
    kafka: Kafka,
    source: &'static str,
    topic: Arc<str>,
    producer: RwLock<Arc<ThreadedProducer<Deliveries>>>,
    acked: Arc<Notify>,
}

/// A lane's acks, as they come in.
#[derive(Debug)]
pub(crate) struct Acks(Mutex<Acked>);

/// How far a lane was acked, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acked {
    /// The number that is acked next.
    pub(crate) next_seq: i64,
    /// The offset of the last record acked (at first, that of `reel.opened`).
    pub(crate) last_offset: i64,
    /// How many records were answered, whatever the answer.
    pub(crate) answered: u64,
    /// What ended the order, if it ended.
    pub(crate) trouble: Option<Trouble>,
}

/// Why a lane must be opened anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// Acked offsets do not follow each other.
    #[error("somebody else wrote to our topic: a record is at offset {found} and not at {expected}")]
    Jumped { expected: i64, found: i64 },
    /// The broker had the record already, and does not tell where.
    #[error("an ack tells no offset")]
    NoOffset,
    /// The broker or the client did not take it.
    #[error("a record was refused: {0}")]
    Refused(KafkaError),
}

/// A record was not taken.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The producer's queue is full: wait for acks.
    Full,
    /// The producer is done for, or refuses the record.
    Refused(KafkaError),
}

pub(crate) enum Delivery {
    Opening(oneshot::Sender<Result<i64, KafkaError>>),
    Event { acks: Arc<Acks>, seq: i64 },
}

/// Where deliveries are answered.
struct Deliveries {
    acked: Arc<Notify>,
    quiet: Quiet,
}

impl Publisher {
    pub(crate) fn new(kafka: &Kafka, source: &'static str, topic: Arc<str>) -> Result<Self, KafkaError> {
        let acked = Arc::new(Notify::new());
        let producer = RwLock::new(Arc::new(Self::producer(kafka, &acked)?));
        Ok(Self { kafka: kafka.clone(), source, topic, producer, acked })
    }

    /// Wakes when acks have come in.
    pub(crate) async fn acked(&self) {
        self.acked.notified().await;
    }

    /// Opens a lane's partition: produces `reel.opened` and waits for its offset, the generation.
    pub(crate) async fn open(&self, partition: Partition, instance: &str) -> Result<(i64, Uuid), KafkaError> {
        let id = Uuid::now_v7();
        let payload = Opened::codec().encode(&Opened { instance: instance.to_owned() }).map_err(|_| KafkaError::Canceled)?;
        let envelope = Envelope { id, name: Opened::NAME.to_owned(), ..Envelope::default() };
        let (sender, receiver) = oneshot::channel();
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(Delivery::Opening(sender)))
            .partition(partition.0)
            .key(instance)
            .payload(&payload)
            .headers(envelope.headers(self.source, instance));
        self.current().send(record).map_err(|(error, _)| self.renew_after(error))?;
        let offset = receiver.await.map_err(|_| KafkaError::Canceled)?.map_err(|error| self.renew_after(error))?;
        // A batch that the broker had already: it does not tell where. The opening is tried again.
        if offset < 0 { Err(KafkaError::Canceled) } else { Ok((offset, id)) }
    }

    /// Sends an event under a generation.
    pub(crate) fn send(&self, event: &Numbered, generation: i64, acks: &Arc<Acks>) -> Result<(), SendError> {
        let envelope = Envelope { generation: Some(generation), ..event.envelope.clone() };
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(Delivery::Event { acks: acks.clone(), seq: event.seq }))
            .partition(event.partition.0)
            .key(&event.key)
            .payload(&event.payload)
            .headers(envelope.headers(self.source, &event.key));
        match self.current().send(record) {
            Ok(()) => Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Err(SendError::Full),
            Err((error, _)) => Err(SendError::Refused(self.renew_after(error))),
        }
    }

    /// Makes the producer anew if it has failed for good, and hands on why somebody thinks so.
    pub(crate) fn renew_after(&self, error: KafkaError) -> KafkaError {
        self.renew_if_failed();
        error
    }

    /// Makes the producer anew if it has failed for good, which an idempotent one does at an authorization error, and any
    /// where it has lost all brokers. Whoever waits for the old one's records is told that they were not sent.
    pub(crate) fn renew_if_failed(&self) {
        if failure(&self.current()).is_none() {
            return;
        }
        let mut producer = self.producer.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(reason) = failure(&producer) {
            tracing::error!(reason, "the producer has failed for good and is made anew");
            match Self::producer(&self.kafka, &self.acked) {
                Ok(fresh) => *producer = Arc::new(fresh),
                Err(error) => tracing::error!(error = %error, "no new producer"),
            }
        }
    }

    /// How many records were handed over and not answered.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> i32 {
        self.current().in_flight_count()
    }

    /// Has the producer believe that it has lost all brokers.
    #[cfg(test)]
    pub(crate) fn strand(&self) {
        (0..3).for_each(|_| self.current().context().stats_raw(br#"{"brokers": {}}"#));
    }

    fn current(&self) -> Arc<ThreadedProducer<Deliveries>> {
        self.producer.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn producer(kafka: &Kafka, acked: &Arc<Notify>) -> Result<ThreadedProducer<Deliveries>, KafkaError> {
        ThreadedProducer::from_config_and_context(&watched(&kafka.producer()), Deliveries { acked: acked.clone(), quiet: Quiet::default() })
    }
}

/// Why a producer sends nothing any more, if so.
fn failure(producer: &ThreadedProducer<Deliveries>) -> Option<String> {
    let fatal = producer.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"));
    fatal.or_else(|| producer.context().quiet.is_stranded().then(|| "it has lost all brokers".to_owned()))
}

impl Acks {
    /// A lane that was opened at `generation` and sends from `next_seq` on.
    pub(crate) fn new(next_seq: i64, generation: i64) -> Self {
        Self(Mutex::new(Acked { next_seq, last_offset: generation, answered: 0, trouble: None }))
    }

    pub(crate) fn get(&self) -> Acked {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn delivered(&self, seq: i64, offset: Result<i64, KafkaError>) {
        let mut acked = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        acked.answered += 1;
        if acked.trouble.is_some() {
            return;
        }
        match offset {
            Ok(offset) if offset == acked.last_offset + 1 && seq == acked.next_seq => {
                acked.last_offset = offset;
                acked.next_seq = seq + 1;
            }
            Ok(found) if found < 0 => acked.trouble = Some(Trouble::NoOffset),
            Ok(found) => acked.trouble = Some(Trouble::Jumped { expected: acked.last_offset + 1, found }),
            Err(error) => acked.trouble = Some(Trouble::Refused(error)),
        }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.quiet.stats_raw(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let offset = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        match *delivery {
            Delivery::Opening(sender) => drop(sender.send(offset)),
            Delivery::Event { acks, seq } => {
                if let Ok(message) = result {
                    tracing::trace!(target: "reel::acked", partition = message.partition(), seq);
                }
                acks.delivered(seq, offset);
                self.acked.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_that_follow_each_other_advance() {
        let acks = Acks::new(7, 40);
        acks.delivered(7, Ok(41));
        acks.delivered(8, Ok(42));
        assert_eq!(acks.get(), Acked { next_seq: 9, last_offset: 42, answered: 2, trouble: None });
    }

    #[test]
    fn an_offset_that_jumps_means_that_somebody_else_wrote() {
        let acks = Acks::new(7, 40);
        acks.delivered(7, Ok(42));
        acks.delivered(8, Ok(43));
        let acked = acks.get();
        assert_eq!((acked.next_seq, acked.trouble), (7, Some(Trouble::Jumped { expected: 41, found: 42 })));
    }

    #[test]
    fn a_refused_record_ends_the_order() {
        let acks = Acks::new(7, 40);
        acks.delivered(7, Err(KafkaError::Canceled));
        acks.delivered(8, Ok(41));
        assert_eq!(acks.get().next_seq, 7);
    }
}
