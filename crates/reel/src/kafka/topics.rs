//! Creates the topic of a service: a journal that keeps everything.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{ClientHealth, KafkaConfig, RangeReader};

const TIMEOUT: Duration = Duration::from_secs(15);
/// Timeout of a look at a topic's settings, without which a service starts too.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// The replication factor that means the broker's `default.replication.factor`.
const BROKER_DEFAULT: i32 = -1;

/// An administrator of a deployment's topics.
pub struct Topics {
    kafka: KafkaConfig,
    admin: AdminClient<ClientHealth>,
}

/// A topic cannot be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// Kafka cannot be reached.
    #[error("kafka cannot be reached")]
    Kafka(#[from] KafkaError),
    /// Kafka refuses.
    #[error("kafka refuses to create topic {topic}: {code}")]
    Refused {
        /// The topic.
        topic: String,
        /// Kafka's reason.
        code: RDKafkaErrorCode,
    },
}

impl Topics {
    /// An administrator with the service's client configuration.
    ///
    /// # Errors
    /// If a property of the client is wrong.
    pub fn new(kafka: KafkaConfig) -> Result<Self, KafkaError> {
        let admin = AdminClient::from_config_and_context(&kafka.client(), ClientHealth::default())?;
        Ok(Self { kafka, admin })
    }

    /// Creates a service's topic as a journal: it keeps everything. With a replication factor of
    /// three or more, a majority of the replicas must have a record before it is acked. Without a
    /// replication factor, the broker's defaults apply to both. An existing topic is left
    /// unchanged. Returns how many partitions the topic has.
    ///
    /// # Errors
    /// If Kafka refuses or is unreachable.
    pub async fn create_journal(
        &self,
        name: &str,
        partitions: i32,
        replication: Option<i32>,
    ) -> Result<i32, TopicError> {
        let topic = self.kafka.topic(name);
        let in_sync = replication.and_then(in_sync_at_least).map(|brokers| brokers.to_string());
        let replication = TopicReplication::Fixed(replication.unwrap_or(BROKER_DEFAULT));

        let mut new = NewTopic::new(&topic, partitions, replication);
        for (name, value) in JOURNAL {
            new = new.set(name, value);
        }
        if let Some(brokers) = &in_sync {
            new = new.set("min.insync.replicas", brokers);
        }

        let options =
            AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
        for result in self.admin.create_topics([&new], &options).await? {
            match result {
                Ok(_) => {}
                Err((topic, RDKafkaErrorCode::TopicAlreadyExists)) => {
                    let found = RangeReader::new(self.kafka.clone()).partition_count(&topic).await;
                    return Ok(found.ok().flatten().unwrap_or(partitions));
                }
                Err((topic, code)) => return Err(TopicError::Refused { topic, code }),
            }
        }

        Ok(partitions)
    }

    /// The settings by which a topic forgets what it was given, such as `retention.ms=604800000`;
    /// none if it is a journal. `topic` is its name at the broker.
    ///
    /// # Errors
    /// If Kafka is unreachable, or the settings may not be read.
    pub(crate) async fn forgets(&self, topic: &str) -> Result<Vec<String>, KafkaError> {
        let options = AdminOptions::new().request_timeout(Some(LOOK_WITHIN));
        let asked = [ResourceSpecifier::Topic(topic)];
        let described = self.admin.describe_configs(&asked, &options).await?;
        let settings = described.into_iter().next().ok_or(KafkaError::Canceled)?;
        let settings = settings.map_err(KafkaError::AdminOp)?;

        let found = JOURNAL.iter().filter_map(|(name, wanted)| {
            let value = settings.get(name)?.value.as_deref()?;
            (value != *wanted).then(|| format!("{name}={value}"))
        });
        Ok(found.collect())
    }
}

/// The settings of a topic that keeps everything.
const JOURNAL: [(&str, &str); 3] =
    [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];

/// The number of replicas that must have a record before a producer with `acks=all` gets its ack: a
/// majority. Then publishing continues when one broker of three dies, and a broker that loses its
/// disk loses nothing that was acked. With fewer than three replicas that is impossible, and the
/// broker's default applies.
fn in_sync_at_least(replication: i32) -> Option<i32> {
    (replication >= 3).then_some(replication / 2 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_must_have_a_record_if_there_are_three_replicas_or_more() {
        assert_eq!([1, 2, 3, 4, 5].map(in_sync_at_least), [None, None, Some(2), Some(3), Some(3)]);
    }
}
