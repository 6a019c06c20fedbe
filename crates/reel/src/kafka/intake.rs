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
use super::{Quiet, Record};
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
        let consumer = BaseConsumer::from_config_and_context(consumer, Quiet::default())?;
        let (orders, inbox) = std::sync::mpsc::channel();
        let (sender, receiver) = mpsc::channel(BUNDLES);
        std::thread::Builder::new()
            .name("reel-intake".into())
            .spawn(move || run(&consumer, &inbox, &sender))
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

fn run(consumer: &BaseConsumer<Quiet>, inbox: &std::sync::mpsc::Receiver<Order>, sender: &mpsc::Sender<Taken>) {
    let mut lanes: HashMap<Partition, (Uuid, Vec<Arc<str>>)> = HashMap::new();
    let mut records = Records::default();
    let mut hinted_at = Instant::now();
    loop {
        loop {
            let order = match inbox.try_recv() {
                Ok(order) => order,
                Err(std::sync::mpsc::TryRecvError::Empty) => break,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            };
            let assigns = matches!(order, Order::Assign { .. });
            if let Err(error) = obey(consumer, &mut lanes, order, &mut hinted_at) {
                tracing::warn!(error = %error, "the intake could not follow an order");
                if assigns && sender.blocking_send(Taken::Broken).is_err() {
                    return;
                }
            }
        }
        let mut bundle = Vec::new();
        let mut wait = POLL;
        while bundle.len() < TOGETHER {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let record = records.read(&message);
                    if let Some((token, _)) = lanes.get(&record.partition) {
                        bundle.push(Delivered { token: *token, record });
                    }
                }
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
    }
}

fn obey(
    consumer: &BaseConsumer<Quiet>,
    lanes: &mut HashMap<Partition, (Uuid, Vec<Arc<str>>)>,
    order: Order,
    hinted_at: &mut Instant,
) -> KafkaResult<()> {
    match order {
        Order::Assign { partition, token, offsets } => {
            if let Some((_, topics)) = lanes.remove(&partition)
                && let Err(error) = consumer.incremental_unassign(&list(&topics, partition)?)
            {
                tracing::debug!(error = %error, "the partition was not assigned any more");
            }
            let mut assignment = TopicPartitionList::new();
            for (topic, offset) in &offsets {
                assignment.add_partition_offset(topic, partition.0, Offset::Offset(*offset))?;
            }
            lanes.insert(partition, (token, offsets.into_iter().map(|(topic, _)| topic).collect()));
            consumer.incremental_assign(&assignment)
        }
        Order::Unassign { partition } => match lanes.remove(&partition) {
            Some((_, topics)) => consumer.incremental_unassign(&list(&topics, partition)?),
            None => Ok(()),
        },
        Order::Hint { offsets } => {
            if hinted_at.elapsed() < HINT_EVERY {
                return Ok(());
            }
            *hinted_at = Instant::now();
            let mut hint = TopicPartitionList::new();
            for (topic, partition, offset) in offsets {
                hint.add_partition_offset(&topic, partition.0, Offset::Offset(offset))?;
            }
            consumer.commit(&hint, CommitMode::Async)
        }
    }
}

fn list(topics: &[Arc<str>], partition: Partition) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for topic in topics {
        list.add_partition(topic, partition.0);
    }
    Ok(list)
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
    use super::*;

    #[test]
    fn a_topic_that_is_cut_short_or_gone_is_broken_and_a_broker_that_is_away_is_not() {
        let broken = |code| is_broken(&KafkaError::MessageConsumption(code));
        assert!(broken(RDKafkaErrorCode::AutoOffsetReset) && broken(RDKafkaErrorCode::UnknownTopicOrPartition));
        assert!(!broken(RDKafkaErrorCode::AllBrokersDown) && !broken(RDKafkaErrorCode::LeaderNotAvailable));
    }
}
