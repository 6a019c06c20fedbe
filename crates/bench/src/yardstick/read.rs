//! A topic read from its beginning to its end, and nothing done with it.

use std::time::{Duration, Instant};

use anyhow::Result;
use reel::kafka::Kafka;

use crate::consumer::{From, assigned};

const SILENT_AT_MOST: Duration = Duration::from_secs(60);

/// How long it takes to read all records of a topic, from the first on.
///
/// # Errors
/// Where Kafka does not answer.
pub async fn read_topic(kafka: &Kafka, topic: &str) -> Result<Duration> {
    let (kafka, topic) = (kafka.clone(), kafka.topic(topic));
    tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let (consumer, records) = assigned(&kafka, &topic, From::Beginning)?;
        for _ in 0..records {
            match consumer.poll(SILENT_AT_MOST) {
                Some(message) => drop(message?),
                None => anyhow::bail!("{topic} was not read to its end: kafka is silent for {SILENT_AT_MOST:?}"),
            }
        }
        Ok(began.elapsed())
    })
    .await?
}
