//! Duplicates: the last records of a topic, produced again with the same sequences.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use reel::kafka::RangeReader;
use reel::model::Partition;

use crate::system::{Service, System};

/// Number of records that are produced again, per partition.
const RECORDS: i64 = 30;
const TIMEOUT: Duration = Duration::from_secs(20);

/// Produces the last records of each partition again, and returns their number.
pub(super) async fn repeat(system: &System, service: Service) -> Result<usize> {
    let (kafka, topic) = (system.sources().kafka, system.topic(service));
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("linger.ms", "0")
        .create()?;
    let reader = RangeReader::new(kafka);
    let count = reader
        .partition_count(&topic)
        .await?
        .with_context(|| format!("there is no topic {topic}"))?;

    let mut repeated = 0;
    for partition in (0..count).map(Partition) {
        let (_, end) = reader.watermarks(&topic, partition).await?;
        let mut range = reader.range(&topic, partition, (end - RECORDS).max(0), end);
        let mut records = Vec::new();
        while let Some(record) = range.recv().await {
            let record = record?;
            if let Ok(envelope) = record.envelope
                && envelope.sequence.is_some()
            {
                let key = record.key.unwrap_or_default();
                let headers =
                    reel::kafka::headers(&envelope, "faults", &String::from_utf8_lossy(&key));
                records.push((key, record.payload.unwrap_or_default(), headers));
            }
        }

        let sent = records.iter().map(|(key, payload, headers)| {
            let record = FutureRecord::to(&topic)
                .partition(partition.0)
                .key(key)
                .payload(payload)
                .headers(headers.clone());
            producer.send(record, TIMEOUT)
        });
        repeated += try_join_all(sent).await.map_err(|(error, _)| error)?.len();
    }

    std::thread::spawn(move || drop(reader)); // its consumers take a while to close
    Ok(repeated)
}
