//! Making the topic of a service: a journal that keeps everything.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{Kafka, Quiet};

const TIMEOUT: Duration = Duration::from_secs(15);
/// The replication factor that stands for the brokers' `default.replication.factor`.
const BROKER_DEFAULT: i32 = -1;

/// The administrator of a deployment's topics.
pub struct Topics {
    kafka: Kafka,
    admin: AdminClient<Quiet>,
}

/// A topic cannot be made.
#[derive(Debug, thiserror::Error)]
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
    /// Connects as the service's client.
    ///
    /// # Errors
    /// Where a property of the client is wrong.
    pub fn new(kafka: Kafka) -> Result<Self, KafkaError> {
        let admin = AdminClient::from_config_and_context(&kafka.client(), Quiet::default())?;
        Ok(Self { kafka, admin })
    }

    /// Makes a service's topic with what a journal needs: it keeps everything, and where it is asked to be on three brokers or more,
    /// most of them must have a record before that is acked. Without a replication factor, the brokers' own defaults count for both.
    /// A topic that is there already is left alone.
    ///
    /// # Errors
    /// Where Kafka refuses or cannot be reached.
    pub async fn create_journal(&self, name: &str, partitions: i32, replication: Option<i32>) -> Result<(), TopicError> {
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
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
        for result in self.admin.create_topics([&new], &options).await? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(TopicError::Refused { topic, code }),
            }
        }
        Ok(())
    }
}

/// How many brokers must have a record before a producer with `acks=all` hears that they have. A majority: then one broker of three
/// may die while records are published, and one that dies with its disk takes nothing away that was acked. With fewer than three
/// copies there is no such choice, and the broker's default counts.
fn in_sync_at_least(replication: i32) -> Option<i32> {
    (replication >= 3).then_some(replication / 2 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_copies_must_have_a_record_where_there_are_three_or_more() {
        assert_eq!([1, 2, 3, 4, 5].map(in_sync_at_least), [None, None, Some(2), Some(3), Some(3)]);
    }
}
