//! Reading a topic from beginning to end, without doing anything with it.

use std::time::{Duration, Instant};

use anyhow::Result;
use reel::kafka::KafkaConfig;

use crate::consumer::{StartAt, assigned};

const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads all records of a topic, and returns the time that took.
///
/// # Errors
/// If Kafka is unreachable or stops answering.
pub async fn read_topic(kafka: &KafkaConfig, topic: &str) -> Result<Duration> {
    let (kafka, topic) = (kafka.clone(), kafka.topic(topic));
    tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let (consumer, records) = assigned(&kafka, &topic, StartAt::Beginning)?;
        for _ in 0..records {
            match consumer.poll(SILENCE_TIMEOUT) {
                Some(message) => drop(message?),
                None => anyhow::bail!(
                    "{topic} was not read to its end: kafka sent nothing for {SILENCE_TIMEOUT:?}"
                ),
            }
        }
        Ok(began.elapsed())
    })
    .await?
}
