//! Reading the topic and the tables of a service.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use reel::kafka::{KafkaConfig, RangeReader, Record};
use reel::model::{Event, Partition};
use reel::rows::Stored;
use reel::runtime::KafkaSettings;

use super::tables::{self, Tables};
use super::{Lane, Side};
use crate::system::{PerService, Service, SystemOptions};

/// Number of partitions that are read at once.
const CONCURRENT_READS: usize = 12;

/// Where a system's topics and databases are.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The cluster, and the prefix of every topic's name.
    pub kafka: KafkaConfig,
    /// The address of each service's database.
    pub databases: PerService<String>,
}

impl Sources {
    /// Returns where the system of these options is.
    ///
    /// # Errors
    /// If a property of librdkafka is set by a file that cannot be read.
    pub fn of(options: &SystemOptions) -> Result<Self> {
        let kafka = KafkaSettings::new(&options.kafka, &options.prefix);
        Ok(Self {
            kafka: kafka.kafka("orderctl")?,
            databases: PerService::new(|service| options.database_url(service)),
        })
    }

    /// Reads the database of a service.
    pub(super) async fn tables<S: reel::model::Service<State: Stored>>(
        &self,
        service: Service,
    ) -> Result<Tables<S>> {
        let tables = Tables::read(&self.databases[service]).await;
        tables.with_context(|| format!("the database of {service} cannot be read: does it run?"))
    }

    /// Reads the topic of a service, and puts it beside the tables that were read before.
    pub(super) async fn side<S: reel::model::Service>(
        &self,
        reader: &RangeReader,
        service: Service,
        tables: Tables<S>,
    ) -> Result<Side<S>> {
        let Tables { state, heads, mut outbox, deadlines, parked, dead_letters } = tables;
        let topic = self.kafka.topic(<S::Event as Event>::TOPIC);
        let count = reader.partition_count(&topic).await.context("kafka cannot be read")?;
        let count =
            count.with_context(|| format!("there is no topic {topic}: is the prefix right?"))?;
        if let Some(other) = heads.keys().find(|partition| **partition >= count) {
            bail!(
                "{topic} has {count} partitions, \
                 and the database of {service} knows partition {other}"
            );
        }

        // The database's count rules: in partitions that the topic was given later there is nothing
        // of the service.
        let lanes = i32::try_from(heads.len()).unwrap_or(count);
        let count = if heads.is_empty() { count } else { lanes };

        let records =
            stream::iter((0..count).map(|partition| read(reader, &topic, Partition(partition))));
        let records: Vec<Vec<Record>> = records.buffered(CONCURRENT_READS).try_collect().await?;

        // Read again: a running system has written more sequences meanwhile.
        let heads_after = tables::heads(&self.databases[service]).await?;

        let lane = |(partition, records)| {
            let next = |heads: &HashMap<i32, i64>| heads.get(&partition).copied().unwrap_or(0);
            let outbox = outbox.remove(&partition).unwrap_or_default();
            Lane {
                partition: Partition(partition),
                records,
                outbox,
                next_sequence: next(&heads),
                next_sequence_after: next(&heads_after),
            }
        };
        let lanes = (0..count).zip(records).map(lane).collect();
        Ok(Side { topic, lanes, state, deadlines, parked, dead_letters })
    }
}

/// Reads all records of a partition, from offset 0 on: a journal keeps everything.
async fn read(reader: &RangeReader, topic: &str, partition: Partition) -> Result<Vec<Record>> {
    let (_, end) = reader.watermarks(topic, partition).await.context("kafka cannot be read")?;
    let mut range = reader.range(topic, partition, 0, end);
    let mut records = Vec::new();
    while let Some(record) = range.recv().await {
        records.push(record.with_context(|| format!("{topic}/{partition} cannot be read"))?);
    }
    Ok(records)
}
