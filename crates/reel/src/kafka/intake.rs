//! Takes in the inputs of the lanes that this replica owns: one consumer on a thread of its own, assigned lane by lane
//! (`assign`, not `subscribe`: no consumer-group rebalance).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::record::Records;
use super::{Quiet, Record, watched};
use crate::model::Partition;

/// How long one poll waits; also how long an order to the thread may wait.
const POLL: Duration = Duration::from_millis(10);
/// How many records go on together at most.
const TOGETHER: usize = 500;
/// How many such bundles may wait for the step.
const BUNDLES: usize = 4;
/// How often the offsets are committed as a hint for lag tools.
const HINT_EVERY: Duration = Duration::from_secs(5);

/// A record, and the token of the lane for which it was read.
pub(crate) struct Delivered {
    pub(crate) token: Uuid,
    pub(crate) record: Record,
}

/// What the thread tells the step.
pub(crate) enum Taken {
    Records(Vec<Delivered>),
    /// An input does not hold what is to be read next: it was truncated, made anew or deleted under its reader, or Kafka does not
    /// know it for the moment.
    Broken,
}

impl Taken {
    /// How many records it holds.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Records(records) => records.len(),
            Self::Broken => 0,
        }
    }
}

enum Order {
    Assign { partition: Partition, token: Uuid, offsets: Vec<(Arc<str>, i64)> },
    Unassign { partition: Partition },
    Hint { offsets: Vec<(Arc<str>, Partition, i64)> },
}

/// The handle of the thread. Dropping it ends the thread.
pub(crate) struct Intake {
    orders: std::sync::mpsc::Sender<Order>,
}

impl Intake {
    /// Starts the thread; the records come out of the receiver.
    pub(crate) fn start(consumer: &ClientConfig) -> KafkaResult<(Self, mpsc::Receiver<Taken>)> {
        let reading = Reading::new(watched(consumer))?;
        let (orders, inbox) = std::sync::mpsc::channel();
        let (sender, receiver) = mpsc::channel(BUNDLES);
        std::thread::Builder::new()
            .name("reel-intake".into())
            .spawn(move || run(reading, &inbox, &sender))
            .map_err(|_| KafkaError::ClientCreation("no thread for the intake".into()))?;
        Ok((Self { orders }, receiver))
    }

    /// Reads a lane's inputs from these offsets on.
    pub(crate) fn assign(&self, partition: Partition, token: Uuid, offsets: Vec<(Arc<str>, i64)>) {
        let _ = self.orders.send(Order::Assign { partition, token, offsets });
    }

    /// Reads a lane's inputs no more.
    pub(crate) fn unassign(&self, partition: Partition) {
        let _ = self.orders.send(Order::Unassign { partition });
    }

    /// Where the service stands, for lag tools.
    pub(crate) fn hint(&self, offsets: Vec<(Arc<str>, Partition, i64)>) {
        let _ = self.orders.send(Order::Hint { offsets });
    }
}

/// What the thread reads, and where.
struct Reading {
    config: ClientConfig,
    consumer: BaseConsumer<Quiet>,
    lanes: HashMap<Partition, Lane>,
    records: Records,
    hinted_at: Instant,
}

/// A lane's inputs.
#[derive(Debug, PartialEq, Eq)]
struct Lane {
    token: Uuid,
    /// The topics, and the offset of each that is read next.
    next: Vec<(Arc<str>, i64)>,
}

impl Lane {
    fn delivered(&mut self, record: &Record) {
        if let Some((_, next)) = self.next.iter_mut().find(|(topic, _)| *topic == record.topic) {
            *next = record.offset + 1;
        }
    }
}

fn run(mut reading: Reading, inbox: &std::sync::mpsc::Receiver<Order>, sender: &mpsc::Sender<Taken>) {
    loop {
        loop {
            let order = match inbox.try_recv() {
                Ok(order) => order,
                Err(std::sync::mpsc::TryRecvError::Empty) => break,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            };
            let assigns = matches!(order, Order::Assign { .. });
            if let Err(error) = reading.obey(order) {
                tracing::warn!(error = %error, "the intake could not follow an order");
                if assigns && sender.blocking_send(Taken::Broken).is_err() {
                    return;
                }
            }
        }
        let mut bundle = Vec::new();
        let mut wait = POLL;
        while bundle.len() < TOGETHER {
            match reading.poll(wait) {
                None => break,
                Some(Ok(delivered)) => bundle.extend(delivered),
                Some(Err(error)) if is_broken(&error) => {
                    if sender.blocking_send(Taken::Broken).is_err() {
                        return;
                    }
                }
                Some(Err(error)) => tracing::debug!(error = %error, "the intake goes on"),
            }
            wait = Duration::ZERO;
        }
        if !bundle.is_empty() && sender.blocking_send(Taken::Records(bundle)).is_err() {
            return;
        }
        if reading.consumer.context().is_stranded()
            && let Err(error) = reading.renew()
        {
            tracing::error!(error = %error, "no new consumer");
        }
    }
}

impl Reading {
    fn new(config: ClientConfig) -> KafkaResult<Self> {
        let consumer = BaseConsumer::from_config_and_context(&config, Quiet::default())?;
        Ok(Self { config, consumer, lanes: HashMap::new(), records: Records::default(), hinted_at: Instant::now() })
    }

    /// The next record, if one comes in time; none of it where no lane wants it any more.
    fn poll(&mut self, wait: Duration) -> Option<KafkaResult<Option<Delivered>>> {
        let polled = self.consumer.poll(wait)?;
        Some(polled.map(|message| {
            let record = self.records.read(&message);
            let lane = self.lanes.get_mut(&record.partition)?;
            lane.delivered(&record);
            Some(Delivered { token: lane.token, record })
        }))
    }

    /// Goes on with a new consumer where the old one stands.
    fn renew(&mut self) -> KafkaResult<()> {
        tracing::warn!("the consumer has lost all brokers and is made anew");
        let fresh = BaseConsumer::from_config_and_context(&self.config, Quiet::default())?;
        let mut assignment = TopicPartitionList::new();
        for (partition, lane) in &self.lanes {
            for (topic, next) in &lane.next {
                assignment.add_partition_offset(topic, partition.0, Offset::Offset(*next))?;
            }
        }
        fresh.incremental_assign(&assignment)?;
        let lost = std::mem::replace(&mut self.consumer, fresh);
        std::thread::spawn(move || drop(lost)); // it may try for a while to take its leave
        Ok(())
    }

    fn obey(&mut self, order: Order) -> KafkaResult<()> {
        match order {
            Order::Assign { partition, token, offsets } => {
                if let Some(lane) = self.lanes.remove(&partition)
                    && let Err(error) = self.consumer.incremental_unassign(&list(&lane, partition))
                {
                    tracing::debug!(error = %error, "the partition was not assigned any more");
                }
                let mut assignment = TopicPartitionList::new();
                for (topic, offset) in &offsets {
                    assignment.add_partition_offset(topic, partition.0, Offset::Offset(*offset))?;
                }
                self.lanes.insert(partition, Lane { token, next: offsets });
                self.consumer.incremental_assign(&assignment)
            }
            Order::Unassign { partition } => match self.lanes.remove(&partition) {
                Some(lane) => self.consumer.incremental_unassign(&list(&lane, partition)),
                None => Ok(()),
            },
            Order::Hint { offsets } => {
                if self.hinted_at.elapsed() < HINT_EVERY {
                    return Ok(());
                }
                self.hinted_at = Instant::now();
                let mut hint = TopicPartitionList::new();
                for (topic, partition, offset) in offsets {
                    hint.add_partition_offset(&topic, partition.0, Offset::Offset(offset))?;
                }
                self.consumer.commit(&hint, CommitMode::Async)
            }
        }
    }
}

fn list(lane: &Lane, partition: Partition) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, _) in &lane.next {
        list.add_partition(topic, partition.0);
    }
    list
}

/// Whether an input lacks what is to be read next. Where Kafka only does not know the topic yet, whoever looks closer finds it there.
fn is_broken(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicId
        )
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;
    use crate::tests::Fixture;

    const PARTITION: Partition = Partition(1);
    const LIMIT: Duration = Duration::from_secs(20);

    /// The offsets of the next records.
    fn offsets(reading: &mut Reading, count: usize) -> Vec<i64> {
        let (mut offsets, begun) = (Vec::new(), Instant::now());
        while offsets.len() < count && begun.elapsed() < LIMIT {
            if let Some(Ok(Some(delivered))) = reading.poll(POLL) {
                offsets.push(delivered.record.offset);
            }
        }
        offsets
    }

    #[test]
    fn a_topic_that_is_cut_short_or_gone_is_broken_and_a_broker_that_is_away_is_not() {
        let broken = |code| is_broken(&KafkaError::MessageConsumption(code));
        assert!(broken(RDKafkaErrorCode::AutoOffsetReset) && broken(RDKafkaErrorCode::UnknownTopicOrPartition));
        assert!(!broken(RDKafkaErrorCode::AllBrokersDown) && !broken(RDKafkaErrorCode::LeaderNotAvailable));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_consumer_that_is_made_anew_goes_on_where_the_lost_one_stood() {
        let fixture = Fixture::closed("intake-renewed").await;
        fixture.make_topics().await;
        let topic = fixture.replica.inputs[0].clone();
        let producer: BaseProducer = fixture.kafka.producer().create().expect("producer");
        for _ in 0..4 {
            producer.send(BaseRecord::to(&topic).partition(PARTITION.0).key("k").payload("p")).map_err(|(error, _)| error).expect("sent");
        }
        producer.flush(LIMIT).expect("flushed");

        let mut reading = Reading::new(watched(&fixture.kafka.consumer())).expect("consumer");
        let from_the_start = vec![(topic, 0)];
        reading.obey(Order::Assign { partition: PARTITION, token: Uuid::nil(), offsets: from_the_start }).expect("assigned");
        assert_eq!(offsets(&mut reading, 2), [0, 1]);
        reading.renew().expect("renewed");
        assert_eq!(offsets(&mut reading, 2), [2, 3]);
    }
}
