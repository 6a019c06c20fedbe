//! Configuration and health of librdkafka's clients.

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
pub struct KafkaConfig {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The service's consumer group. Its committed offsets are a hint for lag tools, never the
    /// truth.
    pub group: String,
    /// Prefix of the names of a deployment's topics.
    pub prefix: String,
    /// Any properties of librdkafka, for TLS, SASL and tuning. They override the toolkit's own.
    pub properties: Vec<(String, String)>,
}

/// Client-side request timeout, in milliseconds. A broker whose machine died closes no connection,
/// and librdkafka would by default wait a minute for it before it asks the new leader.
const SILENT_AFTER: &str = "10000";
/// Broker-side ack timeout, in milliseconds: shorter than the client's request timeout, so that the
/// client sees the broker's own error when followers are missing.
const ACKED_WITHIN: &str = "8000";
/// Linger, in milliseconds: enough to enqueue the records of one step.
const LINGER_MS: &str = "0.2";
/// Interval of the statistics of a watched client, in milliseconds.
const STATISTICS_MS: &str = "2000";
/// Consecutive statistics without a broker after which a client counts as stranded.
const STRANDED_AFTER: u32 = 3;
/// Interval within which the same error is logged only once.
const LOG_EVERY: Duration = Duration::from_secs(30);

impl KafkaConfig {
    /// The name of a topic at the broker: with the prefix.
    #[must_use]
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn client(&self) -> ClientConfig {
        self.with(&[])
    }

    /// A consumer that is assigned partitions and never subscribes. It reports a truncated log as
    /// an error instead of resetting its offset, because truncation is loss.
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
            // Of all partitions together; by default 50 MB.
            ("fetch.max.bytes", "4194304"),
            ("allow.auto.create.topics", "false"),
            ("isolation.level", "read_uncommitted"),
        ];
        self.with(&[&ours[..], more].concat())
    }

    /// A consumer for readers that can wait: it fetches larger batches, which costs the broker
    /// less.
    pub(crate) fn unhurried_consumer(&self) -> ClientConfig {
        self.consumer_with(&[("fetch.min.bytes", "65536"), ("fetch.wait.max.ms", "50")])
    }

    /// A consumer of which there may be many, one for each lane in recovery: it fetches at most a
    /// megabyte ahead.
    pub(crate) fn small_consumer(&self) -> ClientConfig {
        self.consumer_with(&[("queued.max.messages.kbytes", "1024")])
    }

    /// A producer that keeps records in order and never gives up on its own. It compresses only if
    /// a property says so: the batches of single steps are small, and the broker and each reader
    /// would have to decompress them.
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
            ("queue.buffering.max.kbytes", "32768"),
        ])
    }

    fn with(&self, ours: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", &self.group);
        config
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("reconnect.backoff.max.ms", "1000");
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

/// A client context that logs each of librdkafka's errors only now and then. A process has a dozen
/// clients, which all report the same error, so it is logged once for all.
///
/// It also detects that its client has lost all brokers. A broker that comes back after a pause may
/// answer that the cluster has no brokers, and librdkafka believes it
/// (<https://github.com/confluentinc/librdkafka/issues/5301>): the client then knows no broker, or
/// only one to which it never connects. Such a client is stranded and must be replaced.
#[derive(Debug, Default)]
pub struct ClientHealth {
    /// Consecutive statistics without a known broker.
    without_brokers: AtomicU32,
}

/// The errors of this process's clients, with the time when each was logged.
static LOGGED: LazyLock<Mutex<HashMap<String, Instant>>> = LazyLock::new(Mutex::default);

/// The part of librdkafka's statistics that is needed here (STATISTICS.md).
#[derive(Deserialize)]
struct Statistics {
    brokers: HashMap<String, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    /// `configured`, `learned`, `internal` or `logical`; the last two are not brokers.
    source: String,
    /// `INIT` if no connection was attempted.
    state: String,
}

impl Broker {
    fn is_known(&self) -> bool {
        matches!(self.source.as_str(), "configured" | "learned") && self.state != "INIT"
    }
}

impl ClientHealth {
    /// Whether the client has known no broker for longer than it takes to discover them again.
    /// Works only for a client whose configuration is [`watched`] and which is polled.
    pub(crate) fn is_stranded(&self) -> bool {
        self.without_brokers.load(Ordering::Relaxed) >= STRANDED_AFTER
    }
}

impl ClientContext for ClientHealth {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(seen) if seen.brokers.values().any(Broker::is_known) => {
                self.without_brokers.store(0, Ordering::Relaxed);
            }
            Ok(_) => drop(self.without_brokers.fetch_add(1, Ordering::Relaxed)),
            Err(error) => tracing::debug!(error = %error, "cannot parse librdkafka's statistics"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Ok(mut logged) = LOGGED.lock() else { return };
        logged.retain(|_, at| at.elapsed() < LOG_EVERY);
        if let Entry::Vacant(new) = logged.entry(error.to_string()) {
            new.insert(Instant::now());
            tracing::warn!(
                event.code = "kafka.error", error = %error, reason,
                "kafka client error"
            );
        }
    }
}

/// Makes a client report the statistics by which [`ClientHealth`] detects that it is stranded. The
/// client must be polled; otherwise the statistics queue up.
pub(crate) fn watched(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    config.set("statistics.interval.ms", STATISTICS_MS);
    config
}

impl ConsumerContext for ClientHealth {}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &str = r#"{"name": "order", "brokers": {"GroupCoordinator":
        {"nodeid": -1, "source": "logical", "state": "UP"}}}"#;
    const UNTRIED: &str =
        r#"{"brokers": {"kafka:9092/1": {"nodeid": 1, "source": "learned", "state": "INIT"}}}"#;
    const DOWN: &str = r#"{"brokers": {"kafka:9092/bootstrap":
        {"nodeid": -1, "source": "configured", "state": "DOWN"}}}"#;

    #[test]
    fn a_client_is_stranded_when_it_has_known_no_broker_for_a_while() {
        let client = ClientHealth::default();
        for statistics in [NONE, UNTRIED] {
            client.stats_raw(statistics.as_bytes());
            assert!(!client.is_stranded(), "it may be looking for them");
        }
        client.stats_raw(NONE.as_bytes());
        assert!(client.is_stranded());
    }

    #[test]
    fn a_client_that_looks_for_a_broker_is_not_stranded_although_that_is_down() {
        let client = ClientHealth::default();
        for statistics in [NONE, UNTRIED, DOWN, NONE, UNTRIED] {
            client.stats_raw(statistics.as_bytes());
            assert!(!client.is_stranded());
        }
    }
}
