//! Consumes the inputs of the lanes that this replica owns: one consumer on a thread of its own.
//! The lanes are assigned to it one by one (`assign`, not `subscribe`), so no consumer group
//! rebalances.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::headers::Records;
use super::{ClientHealth, watched};
use crate::log::Record;
use crate::model::Partition;

/// Timeout of one poll, and so also the longest wait of a control message.
const POLL: Duration = Duration::from_millis(10);
/// Most records in one bundle, and bytes after which it takes no more.
const TOGETHER: usize = 500;
const TOGETHER_BYTES: usize = 1024 * 1024;
/// Bundles that may wait for the step.
const BUNDLES: usize = 4;
/// Shortest interval between commits of offsets, which are a hint for lag tools.
const HINT_EVERY: Duration = Duration::from_secs(5);

/// One assignment of a lane's inputs to a consumer. Each has an id of its own: a lane that is
/// assigned again must not take what was read for it before, which may still be on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assignment(u64);

#[cfg(test)]
impl Assignment {
    /// The n-th of a consumer.
    pub(crate) fn nth(nth: u64) -> Self {
        Self(nth)
    }
}

/// A record, and the assignment for which it was read.
pub(crate) struct Delivered {
    pub(crate) assignment: Assignment,
    pub(crate) record: Record,
}

/// What the thread sends to the step.
pub(crate) enum Polled {
    Records(Vec<Delivered>),
    /// An input lacks the next record: it was truncated, recreated or deleted while it was read, or
    /// Kafka does not know it for a moment.
    Broken,
}

impl Polled {
    /// The number of records.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Records(records) => records.len(),
            Self::Broken => 0,
        }
    }
}

enum Control {
    Assign { partition: Partition, assignment: Assignment, offsets: Vec<(Arc<str>, i64)> },
    Unassign { partition: Partition },
    Hint { offsets: Vec<(Arc<str>, Partition, i64)> },
}

/// The handle of the thread. Dropping it ends the thread.
pub(crate) struct InputConsumer {
    controls: std::sync::mpsc::Sender<Control>,
    assignments: AtomicU64,
}

impl InputConsumer {
    /// Starts the thread. The receiver yields the records.
    pub(crate) fn start(consumer: &ClientConfig) -> KafkaResult<(Self, mpsc::Receiver<Polled>)> {
        let polling = Polling::new(watched(consumer))?;
        let (controls, inbox) = std::sync::mpsc::channel();
        let (sender, receiver) = mpsc::channel(BUNDLES);
        std::thread::Builder::new()
            .name("reel-input".into())
            .spawn(move || run(polling, &inbox, &sender))
            .map_err(|_| KafkaError::ClientCreation("no thread for the input consumer".into()))?;
        Ok((Self { controls, assignments: AtomicU64::new(0) }, receiver))
    }

    /// Consumes a lane's inputs from these offsets on, in the place of an earlier assignment. What
    /// is read for it carries the assignment that is returned.
    pub(crate) fn assign(&self, partition: Partition, offsets: Vec<(Arc<str>, i64)>) -> Assignment {
        let assignment = Assignment(self.assignments.fetch_add(1, Ordering::Relaxed));
        let _ = self.controls.send(Control::Assign { partition, assignment, offsets });
        assignment
    }

    /// Stops consuming a lane's inputs.
    pub(crate) fn unassign(&self, partition: Partition) {
        let _ = self.controls.send(Control::Unassign { partition });
    }

    /// Commits these offsets as a hint for lag tools, unless others were committed a moment ago.
    pub(crate) fn hint(&self, offsets: Vec<(Arc<str>, Partition, i64)>) {
        let _ = self.controls.send(Control::Hint { offsets });
    }
}

/// The state of the thread: its consumer, and the lanes with their next offsets.
struct Polling {
    config: ClientConfig,
    consumer: BaseConsumer<ClientHealth>,
    lanes: HashMap<Partition, Lane>,
    records: Records,
    hinted_at: Instant,
}

/// A lane's inputs.
#[derive(Debug, PartialEq, Eq)]
struct Lane {
    assignment: Assignment,
    /// The topics, and the next offset of each.
    next: Vec<(Arc<str>, i64)>,
}

impl Lane {
    fn delivered(&mut self, record: &Record) {
        if let Some((_, next)) = self.next.iter_mut().find(|(topic, _)| *topic == record.topic) {
            *next = record.offset + 1;
        }
    }
}

fn run(
    mut polling: Polling,
    inbox: &std::sync::mpsc::Receiver<Control>,
    sender: &mpsc::Sender<Polled>,
) {
    loop {
        loop {
            let control = match inbox.try_recv() {
                Ok(control) => control,
                Err(std::sync::mpsc::TryRecvError::Empty) => break,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            };
            let assigns = matches!(control, Control::Assign { .. });
            if let Err(error) = polling.handle_control(control) {
                tracing::warn!(
                    event.code = "consumer.not_assigned", error = %error,
                    "the input consumer could not change its assignment"
                );
                if assigns && sender.blocking_send(Polled::Broken).is_err() {
                    return;
                }
            }
        }

        let (mut bundle, mut bytes) = (Vec::new(), 0);
        let mut wait = POLL;
        while bundle.len() < TOGETHER && bytes < TOGETHER_BYTES {
            match polling.poll(wait) {
                None => break,
                Some(Ok(delivered)) => {
                    bytes += delivered.as_ref().map_or(0, |delivered| delivered.record.size());
                    bundle.extend(delivered);
                }
                Some(Err(error)) if is_broken(&error) => {
                    if sender.blocking_send(Polled::Broken).is_err() {
                        return;
                    }
                }
                Some(Err(error)) => tracing::debug!(error = %error, "the input consumer retries"),
            }
            wait = Duration::ZERO;
        }

        if !bundle.is_empty() && sender.blocking_send(Polled::Records(bundle)).is_err() {
            return;
        }

        if polling.consumer.context().is_stranded()
            && let Err(error) = polling.replace_consumer()
        {
            tracing::error!(
                event.code = "consumer.not_replaced", error = %error,
                "cannot create a new consumer"
            );
        }
    }
}

impl Polling {
    fn new(config: ClientConfig) -> KafkaResult<Self> {
        let consumer = BaseConsumer::from_config_and_context(&config, ClientHealth::default())?;
        Ok(Self {
            config,
            consumer,
            lanes: HashMap::new(),
            records: Records::default(),
            hinted_at: Instant::now(),
        })
    }

    /// The next record. `None` if none arrives in time, `Some(Ok(None))` if its lane is no longer
    /// assigned.
    fn poll(&mut self, wait: Duration) -> Option<KafkaResult<Option<Delivered>>> {
        let polled = self.consumer.poll(wait)?;
        Some(polled.map(|message| {
            let record = self.records.own(&message);
            let lane = self.lanes.get_mut(&record.partition)?;
            lane.delivered(&record);
            Some(Delivered { assignment: lane.assignment, record })
        }))
    }

    /// Replaces the consumer by a new one that continues from the same offsets.
    fn replace_consumer(&mut self) -> KafkaResult<()> {
        tracing::warn!(
            event.code = "consumer.stranded",
            "the consumer has lost all brokers and is replaced"
        );
        let fresh = BaseConsumer::from_config_and_context(&self.config, ClientHealth::default())?;
        let mut assignment = TopicPartitionList::new();
        for (partition, lane) in &self.lanes {
            for (topic, next) in &lane.next {
                assignment.add_partition_offset(topic, partition.0, Offset::Offset(*next))?;
            }
        }
        fresh.incremental_assign(&assignment)?;
        let lost = std::mem::replace(&mut self.consumer, fresh);
        std::thread::spawn(move || drop(lost)); // closing it may take a while
        Ok(())
    }

    fn handle_control(&mut self, control: Control) -> KafkaResult<()> {
        match control {
            Control::Assign { partition, assignment, offsets } => {
                if let Some(lane) = self.lanes.remove(&partition)
                    && let Err(error) = self.consumer.incremental_unassign(&list(&lane, partition))
                {
                    tracing::debug!(error = %error, "the partition was no longer assigned");
                }

                let mut list = TopicPartitionList::new();
                for (topic, offset) in &offsets {
                    list.add_partition_offset(topic, partition.0, Offset::Offset(*offset))?;
                }
                self.lanes.insert(partition, Lane { assignment, next: offsets });
                self.consumer.incremental_assign(&list)
            }
            Control::Unassign { partition } => match self.lanes.remove(&partition) {
                Some(lane) => self.consumer.incremental_unassign(&list(&lane, partition)),
                None => Ok(()),
            },
            Control::Hint { offsets } => {
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

/// Whether an error means that an input lacks the next record. If Kafka only does not know the
/// topic for a moment, the check that follows finds it.
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
    fn offsets(polling: &mut Polling, count: usize) -> Vec<i64> {
        let (mut offsets, begun) = (Vec::new(), Instant::now());
        while offsets.len() < count && begun.elapsed() < LIMIT {
            if let Some(Ok(Some(delivered))) = polling.poll(POLL) {
                offsets.push(delivered.record.offset);
            }
        }
        offsets
    }

    #[test]
    fn a_topic_that_is_cut_short_or_gone_is_broken_and_a_broker_that_is_away_is_not() {
        let broken = |code| is_broken(&KafkaError::MessageConsumption(code));
        assert!(
            broken(RDKafkaErrorCode::AutoOffsetReset)
                && broken(RDKafkaErrorCode::UnknownTopicOrPartition)
        );
        assert!(
            !broken(RDKafkaErrorCode::AllBrokersDown)
                && !broken(RDKafkaErrorCode::LeaderNotAvailable)
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_replaced_consumer_goes_on_where_the_stranded_one_was() {
        let fixture = Fixture::closed("intake-renewed").await;
        fixture.create_topics().await;
        let topic = fixture.replica.inputs[0].clone();
        let producer: BaseProducer = fixture.kafka.producer().create().expect("producer");
        for _ in 0..4 {
            producer
                .send(BaseRecord::to(&topic).partition(PARTITION.0).key("k").payload("p"))
                .map_err(|(error, _)| error)
                .expect("sent");
        }

        producer.flush(LIMIT).expect("flushed");

        let mut polling = Polling::new(watched(&fixture.kafka.consumer())).expect("consumer");
        let from_the_start = vec![(topic, 0)];
        polling
            .handle_control(Control::Assign {
                partition: PARTITION,
                assignment: Assignment(0),
                offsets: from_the_start,
            })
            .expect("assigned");
        assert_eq!(offsets(&mut polling, 2), [0, 1]);
        polling.replace_consumer().expect("renewed");
        assert_eq!(offsets(&mut polling, 2), [2, 3]);
    }
}
