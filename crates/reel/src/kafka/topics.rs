//! Creates the topic of a service: a journal that keeps everything.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{ClientHealth, KafkaConfig};

const TIMEOUT: Duration = Duration::from_secs(15);
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
    /// unchanged.
    ///
    /// # Errors
    /// If Kafka refuses or is unreachable.
    pub async fn create_journal(
        &self,
        name: &str,
        partitions: i32,
        replication: Option<i32>,
    ) -> Result<(), TopicError> {
        let topic = self.kafka.topic(name);
        let in_sync = replication.and_then(in_sync_at_least).map(|brokers| brokers.to_string());
        let replication = TopicReplication::Fixed(replication.unwrap_or(BROKER_DEFAULT));

        let mut new = NewTopic::new(&topic, partitions, replication)
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1");
        if let Some(brokers) = &in_sync {
            new = new.set("min.insync.replicas", brokers);
        }

        let options =
            AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
        for result in self.admin.create_topics([&new], &options).await? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(TopicError::Refused { topic, code }),
            }
        }

        Ok(())
    }
}

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
