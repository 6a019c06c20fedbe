//! What a system is made with.

use std::path::PathBuf;
use std::time::Duration;

use super::{Service, databases};

/// What a system is made with. The fields are public: take [`SystemOptions::new`] and change what should differ.
#[derive(Debug, Clone)]
pub struct SystemOptions {
    /// What a client takes as `bootstrap.servers`.
    pub kafka: String,
    /// An address of Postgres whose user may create databases.
    pub postgres_admin: String,
    /// What stands before the name of every topic; the names of the databases end with it.
    pub prefix: String,
    /// How many partitions every topic has.
    pub partitions: i32,
    /// On how many brokers each partition is kept.
    pub replication: i32,
    /// How long a dead replica's lanes stay with it.
    pub lease: Duration,
    /// How long an order may take.
    pub settle_within: Duration,
    /// Further environment variables of all services; they win over the ones above.
    pub env: Vec<(String, String)>,
    /// Where logs are written; without it, a new folder in that of devstack.
    pub folder: Option<PathBuf>,
}

impl SystemOptions {
    /// 12 partitions on one broker each, a lease of 5 s, and 15 minutes for an order.
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

    /// The name of a service's database.
    #[must_use]
    pub fn database(&self, service: Service) -> String {
        format!("{service}_{}", self.suffix())
    }

    /// The address of a service's database.
    #[must_use]
    pub fn database_url(&self, service: Service) -> String {
        databases::url(&self.postgres_admin, &self.database(service))
    }

    /// The topic of a service, as the broker knows it.
    #[must_use]
    pub fn topic(&self, service: Service) -> String {
        format!("{}{}", self.prefix, service.topic())
    }

    /// The prefix as it may stand in a name.
    pub(crate) fn suffix(&self) -> String {
        let plain = self.prefix.to_lowercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
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
        if service == Service::Order {
            environment.push(("ORDER_SETTLE_WITHIN".to_owned(), milliseconds(self.settle_within)));
        }
        environment.extend(self.env.iter().cloned());
        environment
    }
}
