//! Publishes the records of a replica: one idempotent producer for all its lanes, replaced when it
//! has failed for good. It keeps the order of each partition, and the offsets in its acks show
//! whether somebody else has written in between (law 1).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use crate::kafka::{ClientHealth, KafkaConfig, headers, watched};
use crate::model::Partition;
use crate::tables::outbox::OutboxEvent;
use crate::wire::{Envelope, Opened};

/// Publishes to the topic of one service, and to no other (law 1).
pub(crate) struct Publisher {
    kafka: KafkaConfig,
    source: &'static str,
    topic: Arc<str>,
    producer: RwLock<Arc<ThreadedProducer<Deliveries>>>,
    acked: Arc<Notify>,
    /// Bytes of events that were handed over and not answered.
    unanswered: Arc<AtomicUsize>,
}

/// The acks of a lane in one log epoch, shared with the producer's thread.
#[derive(Debug)]
pub(crate) struct Acks(Mutex<Acked>);

/// How far a lane was acked, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acked {
    /// The sequence whose ack comes next. All before it were acked in order.
    pub(crate) next_sequence: i64,
    /// The offset of the last record acked; at first, that of `reel.opened`.
    pub(crate) last_offset: i64,
    /// The number of records that were answered, acked or not.
    pub(crate) answered: u64,
    /// The first fault. After it nothing counts as acked any longer.
    pub(crate) fault: Option<PublishFault>,
}

/// Why a lane must be recovered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublishFault {
    /// Acked offsets do not follow each other.
    #[error(
        "somebody else wrote to our topic: a record is at offset {found} and not at {expected}"
    )]
    Jumped { expected: i64, found: i64 },
    /// The broker acked the record as a duplicate, without an offset, so it is unknown whether it
    /// follows the record before.
    #[error("an ack has no offset")]
    NoOffset,
    /// The broker or the client refused a record.
    #[error("a record was refused: {0}")]
    Refused(KafkaError),
}

impl PublishFault {
    /// Whether the broker refused a batch because of its size.
    pub(crate) fn is_too_large(&self) -> bool {
        let Self::Refused(error) = self else { return false };
        error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
    }
}

/// Why a record was not handed to the producer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The producer's queue is full. Acks will make room.
    Full,
    /// The producer has failed, or refuses the record.
    Refused(KafkaError),
}

/// Bytes of unanswered events above which the producer gets no more. Its own queue takes twice as
/// many, so that there always is room for a `reel.opened`.
const UNANSWERED_BYTES: usize = 16 * 1024 * 1024;

/// What waits for the answer to a record.
pub(crate) enum Delivery {
    Opening(oneshot::Sender<Result<i64, KafkaError>>),
    Event { acks: Arc<Acks>, sequence: i64, bytes: usize },
}

/// The producer's context: receives the answers to records, in order within a partition.
struct Deliveries {
    acked: Arc<Notify>,
    unanswered: Arc<AtomicUsize>,
    health: ClientHealth,
}

impl Publisher {
    pub(crate) fn new(
        kafka: &KafkaConfig,
        source: &'static str,
        topic: Arc<str>,
    ) -> Result<Self, KafkaError> {
        let (acked, unanswered) = (Arc::new(Notify::new()), Arc::default());
        let producer = RwLock::new(Arc::new(Self::producer(kafka, &acked, &unanswered)?));
        Ok(Self { kafka: kafka.clone(), source, topic, producer, acked, unanswered })
    }

    /// Waits until an answer has come in since the last call.
    pub(crate) async fn acked(&self) {
        self.acked.notified().await;
    }

    /// Opens a lane's log: produces `reel.opened` and waits for its offset, the log epoch. Returns
    /// that, and the record's id. Waits for as long as Kafka is unreachable; the producer never
    /// gives up.
    ///
    /// # Errors
    /// If Kafka refuses the record, or acks it without an offset. It may be in the topic all the
    /// same, which does no harm: recovery is tried again, and opens a later epoch.
    pub(crate) async fn open(
        &self,
        partition: Partition,
        instance: &str,
    ) -> Result<(i64, Uuid), KafkaError> {
        let id = Uuid::now_v7();
        let payload = Opened::codec()
            .encode(&Opened { instance: instance.to_owned() })
            .map_err(|_| KafkaError::Canceled)?;
        let envelope = Envelope { id, event_type: Opened::NAME.to_owned(), ..Envelope::default() };
        let (sender, receiver) = oneshot::channel();
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(Delivery::Opening(sender)))
            .partition(partition.0)
            .key(instance)
            .payload(&payload)
            .headers(headers(&envelope, self.source, instance));
        self.current().send(record).map_err(|(error, _)| self.replace_after(error))?;
        let offset = receiver
            .await
            .map_err(|_| KafkaError::Canceled)?
            .map_err(|error| self.replace_after(error))?;

        // Acked as a duplicate, without an offset.
        if offset < 0 { Err(KafkaError::Canceled) } else { Ok((offset, id)) }
    }

    /// Hands an event to the producer, under a log epoch. The answer goes to `acks`.
    ///
    /// # Errors
    /// If the producer's queue is full, or the producer refuses the record.
    pub(crate) fn send(
        &self,
        event: &OutboxEvent,
        epoch: i64,
        acks: &Arc<Acks>,
    ) -> Result<(), SendError> {
        if self.unanswered.load(Ordering::Relaxed) > UNANSWERED_BYTES {
            return Err(SendError::Full);
        }
        let bytes = event.size();
        let envelope = Envelope { epoch: Some(epoch), ..event.envelope.clone() };
        let record = BaseRecord::with_opaque_to(
            &self.topic,
            Box::new(Delivery::Event { acks: acks.clone(), sequence: event.sequence, bytes }),
        )
        .partition(event.partition.0)
        .key(&event.key)
        .payload(&event.payload)
        .headers(headers(&envelope, self.source, &event.key));
        self.unanswered.fetch_add(bytes, Ordering::Relaxed);
        let Err((error, _)) = self.current().send(record) else { return Ok(()) };

        // It has no answer to come.
        self.unanswered.fetch_sub(bytes, Ordering::Relaxed);
        match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => Err(SendError::Full),
            error => Err(SendError::Refused(self.replace_after(error))),
        }
    }

    /// Replaces the producer if it has failed for good, and passes the error on.
    pub(crate) fn replace_after(&self, error: KafkaError) -> KafkaError {
        self.replace_if_failed();
        error
    }

    /// Replaces the producer if it has failed for good: an idempotent one has after an
    /// authorization error, any one when it has lost all brokers. Dropping the old one answers its
    /// records as failed, so their lanes are recovered.
    pub(crate) fn replace_if_failed(&self) {
        if failure(&self.current()).is_none() {
            return;
        }
        let mut producer = self.producer.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(reason) = failure(&producer) {
            tracing::error!(
                event.code = "producer.failed",
                reason,
                "the producer has failed for good and is replaced"
            );
            match Self::producer(&self.kafka, &self.acked, &self.unanswered) {
                Ok(fresh) => *producer = Arc::new(fresh),
                Err(error) => {
                    tracing::error!(
                        event.code = "producer.not_replaced", error = %error,
                        "no new producer"
                    );
                }
            }
        }
    }

    /// The number of records that were handed over and not answered.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> i32 {
        self.current().in_flight_count()
    }

    /// Makes the producer believe that it has lost all brokers.
    #[cfg(test)]
    pub(crate) fn strand(&self) {
        (0..3).for_each(|_| self.current().context().stats_raw(br#"{"brokers": {}}"#));
    }

    fn current(&self) -> Arc<ThreadedProducer<Deliveries>> {
        self.producer.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Makes a producer.
    fn producer(
        kafka: &KafkaConfig,
        acked: &Arc<Notify>,
        unanswered: &Arc<AtomicUsize>,
    ) -> Result<ThreadedProducer<Deliveries>, KafkaError> {
        ThreadedProducer::from_config_and_context(
            &watched(&kafka.producer()),
            Deliveries {
                acked: acked.clone(),
                unanswered: unanswered.clone(),
                health: ClientHealth::default(),
            },
        )
    }
}

/// The reason why a producer has failed for good, if it has.
fn failure(producer: &ThreadedProducer<Deliveries>) -> Option<String> {
    let fatal = producer.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"));
    fatal.or_else(|| {
        producer.context().health.is_stranded().then(|| "it has lost all brokers".to_owned())
    })
}

impl Acks {
    /// The acks of a lane that was opened with `epoch` and sends from `next_sequence` on.
    pub(crate) fn new(next_sequence: i64, epoch: i64) -> Self {
        Self(Mutex::new(Acked { next_sequence, last_offset: epoch, answered: 0, fault: None }))
    }

    pub(crate) fn get(&self) -> Acked {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Takes a good answer to the next record.
    #[cfg(test)]
    pub(super) fn deliver_next(&self) {
        let Acked { next_sequence, last_offset, .. } = self.get();
        self.delivered(next_sequence, Ok(last_offset + 1));
    }

    /// Takes the answer to a record. Its offset must follow that of the record before, at first
    /// that of our `reel.opened`: if one is skipped, somebody else wrote there, perhaps another
    /// `reel.opened`, and consumers may have dropped this record as stale.
    fn delivered(&self, sequence: i64, offset: Result<i64, KafkaError>) {
        let mut acked = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        acked.answered += 1;
        if acked.fault.is_some() {
            return;
        }
        match offset {
            Ok(offset) if offset == acked.last_offset + 1 && sequence == acked.next_sequence => {
                acked.last_offset = offset;
                acked.next_sequence = sequence + 1;
            }
            Ok(found) if found < 0 => acked.fault = Some(PublishFault::NoOffset),
            Ok(found) => {
                acked.fault = Some(PublishFault::Jumped { expected: acked.last_offset + 1, found });
            }
            Err(error) => acked.fault = Some(PublishFault::Refused(error)),
        }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.health.log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.health.stats_raw(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.error(error, reason);
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
            Delivery::Event { acks, sequence, bytes } => {
                self.unanswered.fetch_sub(bytes, Ordering::Relaxed);
                if let Ok(message) = result {
                    let partition = message.partition();
                    tracing::trace!(target: "reel::acked", partition, sequence);
                }
                acks.delivered(sequence, offset);
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
        assert_eq!(
            acks.get(),
            Acked { next_sequence: 9, last_offset: 42, answered: 2, fault: None }
        );
    }

    #[test]
    fn an_offset_that_jumps_means_that_somebody_else_wrote() {
        let acks = Acks::new(7, 40);
        acks.delivered(7, Ok(42));
        acks.delivered(8, Ok(43));
        let acked = acks.get();
        assert_eq!(
            (acked.next_sequence, acked.fault),
            (7, Some(PublishFault::Jumped { expected: 41, found: 42 }))
        );
    }

    #[test]
    fn a_refused_record_ends_the_order() {
        let acks = Acks::new(7, 40);
        acks.delivered(7, Err(KafkaError::Canceled));
        acks.delivered(8, Ok(41));
        assert_eq!(acks.get().next_sequence, 7);
    }
}
