//! Reads the topics and the tables.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use inventory::domain::InventoryService;
use order::domain::OrderService;
use payment::domain::PaymentService;
use reel::kafka::{Kafka, Reader, Record};
use reel::model::{Event, Partition};
use reel::runtime::KafkaSettings;
use reel::step::Stored;
use sqlx::types::chrono::Utc;

use super::tables::{self, Tables};
use super::{Audit, Collected, Lane, Side};
use crate::system::{PerService, Service, SystemOptions};

/// How many partitions of a topic are read at once.
const AT_ONCE: usize = 12;

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
    ///
    /// # Errors
    /// Where a property of librdkafka is in a file that cannot be read.
    pub fn of(options: &SystemOptions) -> Result<Self> {
        let kafka = KafkaSettings { brokers: options.kafka.clone(), topic_prefix: options.prefix.clone() };
        Ok(Self { kafka: kafka.kafka("orderctl")?, databases: PerService::new(|service| options.database_url(service)) })
    }

    /// Reads everything and audits it.
    ///
    /// # Errors
    /// Where Kafka or Postgres cannot be read.
    pub async fn audit(&self) -> Result<Audit> {
        let collected = self.collect().await?;
        Ok(super::audit(&collected, Utc::now().into()))
    }

    /// Reads the databases, the topics, and the heads of the databases again. The order is what makes the audit of a system at
    /// work sound: what a later table or an earlier topic says, the others have heard of.
    ///
    /// # Errors
    /// Where Kafka or Postgres cannot be read.
    pub async fn collect(&self) -> Result<Collected> {
        let order = self.tables::<OrderService>(Service::Order).await?;
        let payment = self.tables::<PaymentService>(Service::Payment).await?;
        let inventory = self.tables::<InventoryService>(Service::Inventory).await?;
        let reader = Reader::new(self.kafka.clone());
        let inventory = self.side(&reader, Service::Inventory, inventory).await?;
        let payment = self.side(&reader, Service::Payment, payment).await?;
        let order = self.side(&reader, Service::Order, order).await?;
        // Its consumers take most of a second to close, which nobody needs to wait for.
        std::thread::spawn(move || drop(reader));
        Ok(Collected { order, payment, inventory })
    }

    async fn tables<S: reel::model::Service<State: Stored>>(&self, service: Service) -> Result<Tables<S>> {
        let tables = Tables::read(&self.databases[service]).await;
        tables.with_context(|| format!("the database of {service} cannot be read: does it run?"))
    }

    async fn side<S: reel::model::Service>(&self, reader: &Reader, service: Service, tables: Tables<S>) -> Result<Side<S>> {
        let Tables { state, heads, mut outbox, deadlines, parked, dead_letters } = tables;
        let topic = self.kafka.topic(<S::Event as Event>::TOPIC);
        let count = reader.partition_count(&topic).await.context("kafka cannot be read")?;
        let count = count.with_context(|| format!("there is no topic {topic}: is the prefix right?"))?;
        if let Some(other) = heads.keys().find(|partition| **partition >= count) {
            bail!("{topic} has {count} partitions, and the database of {service} knows partition {other}");
        }
        let records = stream::iter((0..count).map(|partition| read(reader, &topic, Partition(partition))));
        let records: Vec<Vec<Record>> = records.buffered(AT_ONCE).try_collect().await?;
        let after = tables::heads(&self.databases[service]).await?;
        let lane = |(partition, records)| {
            let next = |heads: &HashMap<i32, i64>| heads.get(&partition).copied().unwrap_or(0);
            let outbox = outbox.remove(&partition).unwrap_or_default();
            Lane { partition: Partition(partition), records, outbox, next_seq: next(&heads), next_seq_after: next(&after) }
        };
        let lanes = (0..count).zip(records).map(lane).collect();
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
