//! A bare consumer with the settings of the toolkit's own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use reel::kafka::{Kafka, Quiet};

use crate::stage::PARTITIONS;

const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// Where a topic is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Beginning,
    End,
}

/// A consumer that has been assigned all partitions of a topic, and how many records lie before it. Blocks the thread.
pub(crate) fn assigned(kafka: &Kafka, topic: &str, from: From) -> Result<(BaseConsumer<Quiet>, i64)> {
    let consumer = BaseConsumer::from_config_and_context(&kafka.consumer(), Quiet::default())?;
    let (mut assignment, mut records) = (TopicPartitionList::new(), 0);
    for partition in 0..PARTITIONS {
        let (first, end) = ends(&consumer, topic, partition)?;
        let offset = if from == From::Beginning { first } else { end };
        records += end - offset;
        assignment.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    consumer.assign(&assignment)?;
    Ok((consumer, records))
}

/// The first offset and the one behind the last; a topic that was just made may have no leader yet.
fn ends(consumer: &BaseConsumer<Quiet>, topic: &str, partition: i32) -> Result<(i64, i64)> {
    let deadline = Instant::now() + ANSWER_WITHIN;
    loop {
        match consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN) {
            Ok(ends) => return Ok(ends),
            Err(error) if Instant::now() > deadline => return Err(error).with_context(|| format!("{topic}/{partition} cannot be read")),
            Err(_) => std::thread::park_timeout(PAUSE),
        }
    }
}
