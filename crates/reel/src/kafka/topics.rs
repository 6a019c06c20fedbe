//! Making the topic of a service: a journal that keeps everything.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{Kafka, Quiet};

const TIMEOUT: Duration = Duration::from_secs(15);

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

    /// Makes a service's topic with what a journal needs. A topic that is there already is left alone.
    ///
    /// # Errors
    /// Where Kafka refuses or cannot be reached.
    pub async fn create_journal(&self, name: &str, partitions: i32, replication: i32) -> Result<(), TopicError> {
        let topic = self.kafka.topic(name);
        let new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(replication))
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1");
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
