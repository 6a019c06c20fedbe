//! The settings that every service has. Their doc comments are the text of `--help`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::kafka::Kafka;

/// What stands before the name of an environment variable that sets a property of librdkafka.
const PROPERTY_PREFIX: &str = "RDKAFKA_";

/// Where Postgres is.
#[derive(Debug, Clone, Args)]
pub struct DatabaseSettings {
    /// The service's own database, as `postgres://user:password@host:port/name`. TLS by `?sslmode=verify-full&sslrootcert=…`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
}

/// Where Kafka is.
#[derive(Debug, Clone, Args)]
pub struct KafkaSettings {
    /// Kafka's bootstrap servers, as `host:port`, comma-separated. Any property of librdkafka is set by an environment
    /// variable with the prefix RDKAFKA_, as in RDKAFKA_SECURITY_PROTOCOL=SASL_SSL for security.protocol
    #[arg(long, env = "KAFKA_BROKERS")]
    pub brokers: String,
    /// What stands before the name of every topic, for deployments that share a cluster
    #[arg(long, env = "TOPIC_PREFIX", default_value = "")]
    pub topic_prefix: String,
}

/// How the topic of a service is made.
#[derive(Debug, Clone, Args)]
pub struct TopicSettings {
    /// How many partitions every topic of the deployment has. It cannot be changed later
    #[arg(long, env = "PARTITIONS", default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// On how many brokers each partition is kept
    #[arg(long, env = "REPLICATION", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    pub replication: i32,
}

/// How a service runs.
#[derive(Debug, Clone, Args)]
pub struct RunSettings {
    #[command(flatten)]
    pub(crate) database: DatabaseSettings,
    #[command(flatten)]
    pub(crate) kafka: KafkaSettings,
    /// Where HTTP is served; port 0 takes a free one, which the log tells
    #[arg(long, env = "HTTP_ADDRESS", default_value = "127.0.0.1:8080")]
    pub http_address: SocketAddr,
    /// The name of this replica, which it keeps across restarts; by default that of the host
    #[arg(long, env = "INSTANCE_ID", default_value_t = hostname())]
    pub instance_id: String,
    /// How long a dead replica's lanes stay with it, as `5s`
    #[arg(long, env = "LEASE", default_value = "5s", value_parser = duration)]
    pub lease: Duration,
    /// How many messages one transaction handles at most
    #[arg(long, env = "BATCH", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch: u32,
    /// How large an event may be, in bytes: a little less than the topic's max.message.bytes
    #[arg(long, env = "MAX_EVENT_BYTES", default_value_t = 1_000_000)]
    pub max_event_bytes: usize,
    /// How many committed events may wait to be published before commands get 503
    #[arg(long, env = "BACKLOG_LIMIT", default_value_t = 100_000)]
    pub backlog_limit: usize,
    /// How many commands may wait in a replica before further ones get 503
    #[arg(long, env = "COMMAND_LIMIT", default_value_t = 2_000)]
    pub command_limit: usize,
    /// How many connections to the database a replica holds
    #[arg(long, env = "CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(4..=1_000))]
    pub connections: u32,
    /// Migrate the database before anything else
    #[arg(long, env = "MIGRATE")]
    pub migrate: bool,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl KafkaSettings {
    /// How the clients of the service `group` reach Kafka.
    #[must_use]
    pub fn kafka(&self, group: &str) -> Kafka {
        let properties = std::env::vars().filter_map(|(name, value)| {
            let property = name.strip_prefix(PROPERTY_PREFIX)?.to_lowercase().replace('_', ".");
            Some((property, value))
        });
        Kafka {
            brokers: self.brokers.clone(),
            group: format!("{}{group}", self.topic_prefix),
            prefix: self.topic_prefix.clone(),
            properties: properties.collect(),
        }
    }
}

/// A duration as `250ms`, `5s`, `15m` or `1h`.
///
/// # Errors
/// Where the text is none of these.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a duration as 250ms, 5s, 15m or 1h"))
        .and_then(|duration| if duration.is_zero() { Err("a duration must be longer than zero".into()) } else { Ok(duration) })
}

fn hostname() -> String {
    let of_kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    std::env::var("HOSTNAME").ok().or_else(of_kernel).map_or_else(|| "replica".into(), |name| name.trim().to_owned())
}
