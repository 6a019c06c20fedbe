//! Reads the topics and the tables.

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use reel::kafka::{Kafka, Reader, Record};
use reel::model::{Event, Partition};
use reel::runtime::KafkaSettings;
use reel::step::Stored;
use sqlx::types::chrono::Utc;

use super::tables::Tables;
use super::{Audit, Collected, Lane, Side};
use crate::system::{PerService, Service, SystemOptions};

/// How many partitions of a topic are read at once.
const AT_ONCE: usize = 6;

/// Where a system's topics and databases are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The cluster, and what stands before the name of each topic.
    pub kafka: Kafka,
    /// The address of each service's database.
    pub databases: PerService<String>,
}

impl Places {
    /// Where the system of these options is.
    #[must_use]
    pub fn of(options: &SystemOptions) -> Self {
        let kafka = KafkaSettings { brokers: options.kafka.clone(), topic_prefix: options.prefix.clone() };
        Self { kafka: kafka.kafka("orderctl"), databases: PerService::new(|service| options.database_url(service)) }
    }

    /// Reads everything and audits it.
    ///
    /// # Errors
    /// Where Kafka or Postgres cannot be read.
    pub async fn audit(&self) -> Result<Audit> {
        let collected = self.collect().await?;
        Ok(super::audit(&collected, Utc::now().into()))
    }

    /// Reads the databases, then the topics up to where they end then.
    ///
    /// # Errors
    /// Where Kafka or Postgres cannot be read.
    pub async fn collect(&self) -> Result<Collected> {
        let reader = Reader::new(self.kafka.clone());
        let (order, payment, inventory) = tokio::try_join!(
            self.side(&reader, Service::Order),
            self.side(&reader, Service::Payment),
            self.side(&reader, Service::Inventory),
        )?;
        Ok(Collected { order, payment, inventory })
    }

    async fn side<S: reel::model::Service<State: Stored>>(&self, reader: &Reader, service: Service) -> Result<Side<S>> {
        let tables = Tables::<S>::read(&self.databases[service]).await;
        let mut tables = tables.with_context(|| format!("the database of {service} cannot be read"))?;
        let topic = self.kafka.topic(<S::Event as Event>::TOPIC);
        let count = reader.partition_count(&topic).await.context("kafka cannot be read")?;
        let count = count.with_context(|| format!("there is no topic {topic}: is the prefix right?"))?;
        if let Some(other) = tables.heads.keys().find(|partition| **partition >= count) {
            ensure!(false, "{topic} has {count} partitions, and the database of {service} knows partition {other}");
        }
        let records = stream::iter((0..count).map(|partition| read(reader, &topic, Partition(partition))));
        let records: Vec<Vec<Record>> = records.buffered(AT_ONCE).try_collect().await?;
        let lanes = (0..count).zip(records).map(|(partition, records)| Lane {
            partition: Partition(partition),
            records,
            outbox: tables.outbox.remove(&partition).unwrap_or_default(),
            next_seq: tables.heads.get(&partition).copied().unwrap_or(0),
        });
        let lanes = lanes.collect();
        let Tables { state, deadlines, parked, dead_letters, .. } = tables;
        Ok(Side { topic, lanes, state, deadlines, parked, dead_letters })
    }
}

/// All records of a partition, from offset 0: a journal keeps everything.
async fn read(reader: &Reader, topic: &str, partition: Partition) -> Result<Vec<Record>> {
    let (_, end) = reader.watermarks(topic, partition).await.context("kafka cannot be read")?;
    let mut range = reader.range(topic, partition, 0, end);
    let mut records = Vec::new();
    while let Some(record) = range.recv().await {
        records.push(record.with_context(|| format!("{topic}/{partition} cannot be read"))?);
    }
    Ok(records)
}
