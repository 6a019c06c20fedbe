//! The options of a system.

use std::path::PathBuf;
use std::time::Duration;

use super::{Service, databases};

/// The options of a system. The fields are public: take [`SystemOptions::new`] and change what
/// should differ.
#[derive(Debug, Clone)]
pub struct SystemOptions {
    /// Bootstrap servers of Kafka.
    pub kafka: String,
    /// Address of Postgres, of a user who may create databases.
    pub postgres_admin: String,
    /// Prefix of every topic's name; the names of the databases end with it.
    pub prefix: String,
    /// Partitions of every topic.
    pub partitions: i32,
    /// Replication factor of every topic.
    pub replication: i32,
    /// Lease of the lanes: a dead replica keeps them for this long.
    pub lease: Duration,
    /// Deadline of an order.
    pub settle_within: Duration,
    /// Further environment variables of all services; they override the options above.
    pub env: Vec<(String, String)>,
    /// Folder of the logs; if `None`, a new one in devstack's data folder.
    pub folder: Option<PathBuf>,
}

impl SystemOptions {
    /// Returns the defaults: 12 partitions on one broker each, a lease of 5 s, and 15 minutes for
    /// an order.
    #[must_use]
    pub fn new(kafka: &str, postgres_admin: &str, prefix: &str) -> Self {
        Self {
            kafka: kafka.to_owned(),
            postgres_admin: postgres_admin.to_owned(),
            prefix: prefix.to_owned(),
            partitions: 12,
            replication: 1,
            lease: Duration::from_secs(5),
            settle_within: Duration::from_mins(15),
            env: Vec::new(),
            folder: None,
        }
    }

    /// Returns the name of a service's database.
    #[must_use]
    pub fn database(&self, service: Service) -> String {
        format!("{service}_{}", self.suffix())
    }

    /// Returns the address of a service's database.
    #[must_use]
    pub fn database_url(&self, service: Service) -> String {
        databases::url(&self.postgres_admin, &self.database(service))
    }

    /// Returns the topic of a service, as the broker knows it.
    #[must_use]
    pub fn topic(&self, service: Service) -> String {
        format!("{}{}", self.prefix, service.topic())
    }

    /// Returns the prefix in a form that is valid in the name of a database.
    pub(crate) fn suffix(&self) -> String {
        let plain =
            self.prefix.to_lowercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
        plain.trim_matches('_').to_owned()
    }

    pub(super) fn environment(&self, service: Service) -> Vec<(String, String)> {
        let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis());
        let mut environment: Vec<(String, String)> = [
            ("DATABASE_URL", self.database_url(service)),
            ("KAFKA_BROKERS", self.kafka.clone()),
            ("TOPIC_PREFIX", self.prefix.clone()),
            ("PARTITIONS", self.partitions.to_string()),
            ("REPLICATION", self.replication.to_string()),
            ("LEASE", milliseconds(self.lease)),
            ("NO_COLOR", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if service == Service::ORDER {
            environment.push(("ORDER_SETTLE_WITHIN".to_owned(), milliseconds(self.settle_within)));
        }
        environment.extend(self.env.iter().cloned());
        environment
    }
}
