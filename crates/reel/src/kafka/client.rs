//! How clients of librdkafka are configured.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use serde::Deserialize;

/// Where Kafka is, and how the clients of one service reach it.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The service's group id: its committed offsets are a hint for lag tools, never a truth.
    pub group: String,
    /// What stands before the name of each topic of a deployment.
    pub prefix: String,
    /// Any property of librdkafka, for TLS, SASL and tuning. They win over ours.
    pub properties: Vec<(String, String)>,
}

/// A broker that takes so long to answer is given up, and its connections are made anew: one that vanished with its machine closes
/// none, and librdkafka would wait a minute for the answer to a record before it asks the new leader.
const SILENT_AFTER: &str = "10000";
/// So long a broker may wait for its followers before it says itself that it has too few. Shorter, so that it is heard.
const ACKED_WITHIN: &str = "8000";
/// How long a record waits for others of its partition: as long as it takes to hand over those of one step.
const LINGER_MS: &str = "0.2";
/// How often a client that is watched tells its statistics.
const STATISTICS_MS: &str = "2000";
/// So many statistics in a row that know of no broker mean that the client looks for none any more.
const STRANDED_AFTER: u32 = 3;
/// At most one of the same complaints in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

impl Kafka {
    /// The name that the broker knows a topic by.
    #[must_use]
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn client(&self) -> ClientConfig {
        self.with(&[])
    }

    /// A consumer that only ever gets assigned what a lane owns. A truncated log is a loss, not a place to start.
    #[must_use]
    pub fn consumer(&self) -> ClientConfig {
        self.consumer_with(&[])
    }

    fn consumer_with(&self, more: &[(&str, &str)]) -> ClientConfig {
        let ours = [
            ("group.id", self.group.as_str()),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.wait.max.ms", "100"),
            ("fetch.error.backoff.ms", "100"),
            ("queued.max.messages.kbytes", "16384"),
            ("fetch.message.max.bytes", "1048576"),
            ("allow.auto.create.topics", "false"),
            ("isolation.level", "read_uncommitted"),
        ];
        self.with(&[&ours[..], more].concat())
    }

    /// A consumer of which nobody waits for a single record: it takes what has come in a while together, and costs the broker little.
    pub(crate) fn unhurried_consumer(&self) -> ClientConfig {
        self.consumer_with(&[("fetch.min.bytes", "65536"), ("fetch.wait.max.ms", "50")])
    }

    /// A consumer of which there may be one for each lane that is opened: it fetches no more than a megabyte ahead.
    pub(crate) fn small_consumer(&self) -> ClientConfig {
        self.consumer_with(&[("queued.max.messages.kbytes", "1024")])
    }

    /// A producer that keeps the order and never gives up on its own. It compresses nothing, unless it is told to: the broker
    /// unpacks each batch to check it, and so does each reader, and the batches of single steps are small.
    #[must_use]
    pub fn producer(&self) -> ClientConfig {
        self.with(&[
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("message.timeout.ms", "0"),
            ("request.timeout.ms", ACKED_WITHIN),
            ("linger.ms", LINGER_MS),
            ("message.max.bytes", "1048588"),
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "65536"),
        ])
    }

    fn with(&self, ours: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", &self.group);
        config.set("topic.metadata.refresh.interval.ms", "10000").set("reconnect.backoff.max.ms", "1000");
        config.set("socket.timeout.ms", SILENT_AFTER);
        for (name, value) in ours {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set_log_level(RDKafkaLogLevel::Error);
        config
    }
}

/// A client context that tells each of librdkafka's complaints once in a while instead of flooding the log. A process has a dozen
/// clients, which all complain of the same, so it is told once for all of them.
///
/// It also notes whether its client has lost all brokers. A broker that comes back after a pause may answer that the cluster has
/// no brokers, and librdkafka believes it (<https://github.com/confluentinc/librdkafka/issues/5301>): then it knows none any more, or
/// one to which it never connects. Such a client is stranded, and must be made anew.
#[derive(Debug, Default)]
pub struct Quiet {
    /// How many statistics in a row knew of no broker that it has to do with.
    without_brokers: AtomicU32,
}

/// The complaints of this process, and when each was told.
static TOLD: LazyLock<Mutex<HashMap<String, Instant>>> = LazyLock::new(Mutex::default);

/// What matters here of librdkafka's statistics (STATISTICS.md).
#[derive(Deserialize)]
struct Statistics {
    brokers: HashMap<String, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    /// `configured`, `learned`, `internal` or `logical`; the last two are no brokers.
    source: String,
    /// `INIT` where no connection was tried.
    state: String,
}

impl Broker {
    fn is_known(&self) -> bool {
        matches!(self.source.as_str(), "configured" | "learned") && self.state != "INIT"
    }
}

impl Quiet {
    /// Whether the client has lost all brokers, for longer than it takes to learn of them anew. Only of a client whose configuration is
    /// [`watched`], and which is polled.
    pub(crate) fn is_stranded(&self) -> bool {
        self.without_brokers.load(Ordering::Relaxed) >= STRANDED_AFTER
    }
}

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(seen) if seen.brokers.values().any(Broker::is_known) => {
                self.without_brokers.store(0, Ordering::Relaxed);
            }
            Ok(_) => drop(self.without_brokers.fetch_add(1, Ordering::Relaxed)),
            Err(error) => tracing::debug!(error = %error, "librdkafka's statistics cannot be read"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Ok(mut told) = TOLD.lock() else { return };
        told.retain(|_, at| at.elapsed() < COMPLAIN_EVERY);
        if let Entry::Vacant(new) = told.entry(error.to_string()) {
            new.insert(Instant::now());
            tracing::warn!(error = %error, reason, "kafka complains");
        }
    }
}

/// Has a client tell its statistics, by which [`Quiet`] knows whether it is stranded. Whoever does not poll it must not ask for them,
/// since they pile up.
pub(crate) fn watched(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    config.set("statistics.interval.ms", STATISTICS_MS);
    config
}

impl ConsumerContext for Quiet {}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &str = r#"{"name": "order", "brokers": {"GroupCoordinator": {"nodeid": -1, "source": "logical", "state": "UP"}}}"#;
    const UNTRIED: &str = r#"{"brokers": {"kafka:9092/1": {"nodeid": 1, "source": "learned", "state": "INIT"}}}"#;
    const DOWN: &str = r#"{"brokers": {"kafka:9092/bootstrap": {"nodeid": -1, "source": "configured", "state": "DOWN"}}}"#;

    #[test]
    fn a_client_is_stranded_when_it_has_known_no_broker_for_a_while() {
        let client = Quiet::default();
        for statistics in [NONE, UNTRIED] {
            client.stats_raw(statistics.as_bytes());
            assert!(!client.is_stranded(), "it may be looking for them");
        }
        client.stats_raw(NONE.as_bytes());
        assert!(client.is_stranded());
    }

    #[test]
    fn a_client_that_looks_for_a_broker_is_not_stranded_although_that_is_down() {
        let client = Quiet::default();
        for statistics in [NONE, UNTRIED, DOWN, NONE, UNTRIED] {
            client.stats_raw(statistics.as_bytes());
            assert!(!client.is_stranded());
        }
    }
}
