//! A bare consumer with the settings of the toolkit's consumers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use reel::kafka::{ClientHealth, KafkaConfig};

use crate::stage::PARTITIONS;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The end of a topic from which it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartAt {
    Beginning,
    End,
}

/// A consumer with all partitions of a topic assigned, and the number of records that it has to
/// read to reach the end. Blocks the thread.
///
/// # Errors
/// If Kafka does not answer.
pub(crate) fn assigned(
    kafka: &KafkaConfig,
    topic: &str,
    start_at: StartAt,
) -> Result<(BaseConsumer<ClientHealth>, i64)> {
    let consumer =
        BaseConsumer::from_config_and_context(&kafka.consumer(), ClientHealth::default())?;
    let (mut assignment, mut records) = (TopicPartitionList::new(), 0);
    for partition in 0..PARTITIONS {
        let (first, end) = ends(&consumer, topic, partition)?;
        let offset = if start_at == StartAt::Beginning { first } else { end };
        records += end - offset;
        assignment.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    consumer.assign(&assignment)?;
    Ok((consumer, records))
}

/// The first offset of a partition and the one after the last. Retries, because a new topic may not
/// have a leader yet.
fn ends(consumer: &BaseConsumer<ClientHealth>, topic: &str, partition: i32) -> Result<(i64, i64)> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        match consumer.fetch_watermarks(topic, partition, ANSWER_TIMEOUT) {
            Ok(ends) => return Ok(ends),
            Err(error) if Instant::now() > deadline => {
                return Err(error)
                    .with_context(|| format!("cannot read the offsets of {topic}/{partition}"));
            }
            Err(_) => std::thread::park_timeout(RETRY_PAUSE),
        }
    }
}
