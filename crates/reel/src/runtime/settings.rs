//! The settings that every service has. Their doc comments are the text of `--help`. A program that
//! builds them itself gets the same defaults as the command line.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::ConfigError;
use crate::kafka::KafkaConfig;
use reel_http::{Access, Expected, Verifier};

/// Prefix of the environment variables that set a property of librdkafka.
const PROPERTY_PREFIX: &str = "RDKAFKA_";
/// Suffix of those whose value is the name of a file with the property's value.
const FILE_SUFFIX: &str = "_FILE";
/// Prefix of the properties whose own values are names of files.
const TAKES_FILES: &str = "SASL_OAUTHBEARER_ASSERTION_";

const LEASE: Duration = Duration::from_secs(5);
const SHORTEST_LEASE: Duration = Duration::from_secs(1);
const BATCH: u32 = 500;
const MAX_EVENT_BYTES: usize = 1_000_000;
const BACKLOG_LIMIT: usize = 100_000;
const COMMAND_LIMIT: usize = 250;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
const CATCH_UP: Duration = Duration::from_mins(5);
const HTTP_CONNECTIONS: usize = 1_000;
const CALLER_LIMIT: usize = 500;
const HTTP_KEEP_ALIVE: Duration = Duration::from_secs(75);
const WAITING_LIMIT: usize = 500;
const QUERY_CONNECTIONS: u32 = 4;
const CONNECTIONS: u32 = 8;
const PARTITIONS: i32 = 12;
const HTTP_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Address of Postgres.
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub struct DatabaseSettings {
    /// The service's own database, as `postgres://user:password@host:port/name`. TLS by
    /// `?sslmode=verify-full&sslrootcert=…`
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        required_unless_present = "database_url_file"
    )]
    pub database_url: Option<String>,
    /// A file with that address, such as a mounted secret
    #[arg(long, env = "DATABASE_URL_FILE", conflicts_with = "database_url")]
    pub database_url_file: Option<PathBuf>,
}

/// Address of Kafka.
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub struct KafkaSettings {
    /// Kafka's bootstrap servers, as `host:port`, comma-separated. Any property of librdkafka is
    /// set by an environment variable with the prefix RDKAFKA_, as in
    /// RDKAFKA_SECURITY_PROTOCOL=SASL_SSL for security.protocol; with the suffix _FILE, the value
    /// is read from a file, as in RDKAFKA_SASL_PASSWORD_FILE=/run/secrets/kafka
    #[arg(long, env = "KAFKA_BROKERS")]
    pub brokers: String,
    /// Prefix of the name of every topic, for deployments that share a cluster
    #[arg(long, env = "TOPIC_PREFIX", default_value = "")]
    pub topic_prefix: String,
}

/// How a service's topic is created.
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub(super) struct TopicSettings {
    /// Partitions of every topic of the deployment. The count cannot be changed later
    #[arg(
        long,
        env = "PARTITIONS",
        default_value_t = PARTITIONS,
        value_parser = clap::value_parser!(i32).range(1..)
    )]
    pub partitions: i32,
    /// Replicas of each partition. With 3 or more, an event counts as published when a majority
    /// has it: the topic's min.insync.replicas is set to that. With fewer, the broker's default
    /// min.insync.replicas applies; without this setting, the broker's defaults for both
    #[arg(long, env = "REPLICATION", value_parser = clap::value_parser!(i32).range(1..))]
    pub replication: Option<i32>,
}

/// The address that HTTP is served at.
#[derive(Debug, Clone, Copy, Args)]
#[non_exhaustive]
pub struct HttpSettings {
    /// Address for HTTP; port 0 takes a free one, which is logged
    #[arg(long, env = "HTTP_ADDRESS", default_value_t = HTTP_ADDRESS)]
    pub http_address: SocketAddr,
    /// A further address that answers health checks only, which load on the other one cannot
    /// starve; by default there is none
    #[arg(long, env = "HEALTH_ADDRESS")]
    pub health_address: Option<SocketAddr>,
}

/// Which requests are admitted.
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub struct AccessSettings {
    /// A file with the keys that verify the bearer tokens (JWT) of requests: a JWK set, a public key
    /// in PEM (Ed25519 for EdDSA, P-256 for ES256, RSA for RS256), or a secret of 32 bytes or more
    /// for HS256. It is read again when it changes
    #[arg(long, env = "TOKEN_KEY_FILE")]
    pub token_key_file: Option<PathBuf>,
    /// The audience that tokens must name; without it, tokens that name one are rejected
    #[arg(long, env = "TOKEN_AUDIENCE")]
    pub token_audience: Option<String>,
    /// The issuer that tokens must name; without it, any
    #[arg(long, env = "TOKEN_ISSUER")]
    pub token_issuer: Option<String>,
    /// Whether requests need a token; with `off`, anybody who reaches the address may do anything
    #[arg(long, env = "AUTH", value_enum, default_value_t = Auth::On)]
    pub auth: Auth,
}

/// Whether requests need a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum Auth {
    /// A token that [`AccessSettings::token_key_file`] verifies.
    On,
    /// None: anybody who reaches the address may do anything.
    Off,
}

/// The settings of `run`.
///
/// ```
/// use reel::runtime::{Auth, RunSettings};
///
/// let mut settings = RunSettings::new("postgres://payment@localhost/payment", "localhost:9092");
/// settings.access.auth = Auth::Off;
/// settings.batch = 1_000;
/// ```
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub struct RunSettings {
    /// Postgres.
    #[command(flatten)]
    pub database: DatabaseSettings,
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaSettings,
    /// HTTP.
    #[command(flatten)]
    pub http: HttpSettings,
    /// Tokens.
    #[command(flatten)]
    pub access: AccessSettings,
    /// Name of this replica, the same after each restart; by default the host name
    #[arg(long, env = "INSTANCE_ID", default_value_t = hostname())]
    pub instance_id: String,
    /// Time for which a dead replica keeps its lanes, such as `5s`; a second or more
    #[arg(long, env = "LEASE", default_value = "5s", value_parser = lease)]
    pub lease: Duration,
    /// Most messages in one transaction
    #[arg(
        long,
        env = "BATCH",
        default_value_t = BATCH,
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub batch: u32,
    /// Largest size of an event, in bytes: a little less than the topic's max.message.bytes
    #[arg(long, env = "MAX_EVENT_BYTES", default_value_t = MAX_EVENT_BYTES)]
    pub max_event_bytes: usize,
    /// Most committed events that may wait to be published before commands get 503
    #[arg(long, env = "BACKLOG_LIMIT", default_value_t = BACKLOG_LIMIT)]
    pub backlog_limit: usize,
    /// Most commands that may wait in a replica, besides the batch in progress; others get 503
    #[arg(
        long,
        env = "COMMAND_LIMIT",
        default_value_t = COMMAND_LIMIT,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000)
    )]
    pub command_limit: usize,
    /// Time for which a command may wait for its answer before it gets 503, such as `10s`
    #[arg(long, env = "COMMAND_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub command_timeout: Duration,
    /// Longest time that deadlines wait after a start, a handover or an outage, until what was in
    /// the inputs by then has been handled, such as `5m`
    #[arg(long, env = "CATCH_UP", default_value = "5m", value_parser = duration)]
    pub catch_up: Duration,
    /// Most HTTP connections that a replica serves at a time; others get 503, except for health
    #[arg(
        long,
        env = "HTTP_CONNECTIONS",
        default_value_t = HTTP_CONNECTIONS,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000)
    )]
    pub http_connections: usize,
    /// Most requests of one caller (the subject of its token) that a replica handles at a time; others
    /// get 429
    #[arg(
        long,
        env = "CALLER_LIMIT",
        default_value_t = CALLER_LIMIT,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000)
    )]
    pub caller_limit: usize,
    /// Time for which an idle connection is kept for the next request, such as `75s`: longer than a
    /// proxy in front keeps it
    #[arg(long, env = "HTTP_KEEP_ALIVE", default_value = "75s", value_parser = duration)]
    pub http_keep_alive: Duration,
    /// Most requests that may wait for something to happen at a time (streams, `Prefer: wait`); set
    /// it lower than HTTP_CONNECTIONS
    #[arg(
        long,
        env = "WAITING_LIMIT",
        default_value_t = WAITING_LIMIT,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=1_000_000)
    )]
    pub waiting_limit: usize,
    /// Database connections of a replica for the queries of clients, apart from those for its work
    #[arg(
        long,
        env = "QUERY_CONNECTIONS",
        default_value_t = QUERY_CONNECTIONS,
        value_parser = clap::value_parser!(u32).range(1..=1_000)
    )]
    pub query_connections: u32,
    /// Database connections of a replica for its work
    #[arg(
        long,
        env = "CONNECTIONS",
        default_value_t = CONNECTIONS,
        value_parser = clap::value_parser!(u32).range(4..=1_000)
    )]
    pub connections: u32,
    /// Answer commands before their commits are on disk. This is faster, but if the database server
    /// crashes, commands that were answered in the last moments (three times wal_writer_delay, 0.6
    /// s) and whose events were not published yet are lost. Nothing else is lost or done twice
    #[arg(long, env = "ASYNC_COMMIT")]
    pub async_commit: bool,
    /// Migrate the database before anything else
    #[arg(long, env = "MIGRATE")]
    pub migrate: bool,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

impl RunSettings {
    /// Settings for this database (`postgres://user:password@host:port/name`) and these bootstrap
    /// servers (`host:port`, comma-separated), with the defaults of the command line. Requests need
    /// tokens: set the file with their key in [`access`](Self::access), or set [`Auth::Off`].
    #[must_use]
    pub fn new(database_url: &str, brokers: &str) -> Self {
        let database_url = Some(database_url.to_owned());
        Self {
            database: DatabaseSettings { database_url, database_url_file: None },
            kafka: KafkaSettings::new(brokers, ""),
            http: HttpSettings { http_address: HTTP_ADDRESS, health_address: None },
            access: AccessSettings {
                token_key_file: None,
                token_audience: None,
                token_issuer: None,
                auth: Auth::On,
            },
            instance_id: hostname(),
            lease: LEASE,
            batch: BATCH,
            max_event_bytes: MAX_EVENT_BYTES,
            backlog_limit: BACKLOG_LIMIT,
            command_limit: COMMAND_LIMIT,
            command_timeout: COMMAND_TIMEOUT,
            catch_up: CATCH_UP,
            http_connections: HTTP_CONNECTIONS,
            caller_limit: CALLER_LIMIT,
            http_keep_alive: HTTP_KEEP_ALIVE,
            waiting_limit: WAITING_LIMIT,
            query_connections: QUERY_CONNECTIONS,
            connections: CONNECTIONS,
            async_commit: false,
            migrate: false,
        }
    }
}

impl DatabaseSettings {
    /// The address, from the setting or its file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn url(&self) -> Result<String, ConfigError> {
        match &self.database_url_file {
            Some(file) => secret("DATABASE_URL_FILE", file),
            None => Ok(self.database_url.clone().unwrap_or_default()),
        }
    }
}

impl AccessSettings {
    /// Which requests the HTTP edge admits.
    pub(crate) fn access(&self) -> Result<Access, ConfigError> {
        if self.auth == Auth::Off {
            return Ok(Access::Open);
        }
        let bad = |reason| ConfigError { name: "TOKEN_KEY_FILE".into(), reason };
        let file = self.token_key_file.as_deref();
        let file = file.ok_or_else(|| {
            bad("name the file with the key of the bearer tokens, or set AUTH=off to let anybody in"
                .into())
        })?;
        let (audience, issuer) = (self.token_audience.as_deref(), self.token_issuer.as_deref());
        let expected = Expected { audience, issuer };
        let verifier = Verifier::new(&secret("TOKEN_KEY_FILE", file)?, expected);
        let verifier =
            verifier.map_err(|reason| bad(format!("cannot use {}: {reason}", file.display())))?;
        Ok(Access::Tokens(Arc::new(verifier)))
    }
}

impl KafkaSettings {
    /// Settings for these bootstrap servers, with a prefix of the name of every topic.
    #[must_use]
    pub fn new(brokers: &str, topic_prefix: &str) -> Self {
        Self { brokers: brokers.to_owned(), topic_prefix: topic_prefix.to_owned() }
    }

    /// Configuration of the Kafka clients of the service `group`, with the properties from the
    /// environment variables `RDKAFKA_…`.
    ///
    /// # Errors
    /// If a property is one that the laws depend on, or a file that holds one cannot be read.
    pub fn kafka(&self, group: &str) -> Result<KafkaConfig, ConfigError> {
        Ok(KafkaConfig {
            brokers: self.brokers.clone(),
            group: format!("{}{group}", self.topic_prefix),
            prefix: self.topic_prefix.clone(),
            properties: properties(std::env::vars_os())?,
        })
    }
}

/// Properties of librdkafka on which the laws depend, by all their names, and why.
const OURS: [(&str, &str); 18] = [
    ("acks", ACKS),
    ("request.required.acks", ACKS),
    ("enable.idempotence", IDEMPOTENCE),
    ("transactional.id", IDEMPOTENCE),
    ("message.timeout.ms", NO_GIVING_UP),
    ("delivery.timeout.ms", NO_GIVING_UP),
    ("message.send.max.retries", NO_GIVING_UP),
    ("retries", NO_GIVING_UP),
    ("auto.offset.reset", POSITIONS),
    ("enable.auto.commit", POSITIONS),
    ("auto.commit.enable", POSITIONS),
    ("enable.auto.offset.store", POSITIONS),
    ("allow.auto.create.topics", "a topic is created by `topics`, with the right settings"),
    ("isolation.level", "nothing here is transactional, and waiting for others delays it"),
    ("statistics.interval.ms", "statistics show that a client has lost all brokers"),
    ("bootstrap.servers", "KAFKA_BROKERS names the servers"),
    ("metadata.broker.list", "KAFKA_BROKERS names the servers"),
    ("group.id", "it is the prefix and the name of the service"),
];
const ACKS: &str = "an event counts as published only when all in-sync replicas have it";
const IDEMPOTENCE: &str = "records must be in order, each once, and not in a transaction";
const NO_GIVING_UP: &str = "a record is sent until it is acked, and the relay decides what follows";
const POSITIONS: &str = "positions are in Postgres, and a truncated topic must be noticed";

/// The properties of librdkafka that these environment variables set.
fn properties(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut properties = Vec::new();
    for (name, value) in variables {
        let Ok(name) = name.into_string() else { continue };
        let Some(property) = name.strip_prefix(PROPERTY_PREFIX) else { continue };
        let Ok(value) = value.into_string() else {
            return Err(ConfigError { name: name.into(), reason: "it is not UTF-8".to_owned() });
        };
        if value.is_empty() {
            continue;
        }
        let of_file =
            property.strip_suffix(FILE_SUFFIX).filter(|_| !property.starts_with(TAKES_FILES));
        let (property, value) = match of_file {
            Some(property) => (property, secret(&name, Path::new(&value))?),
            None => (property, value),
        };
        let property = property.to_lowercase().replace('_', ".");
        if let Some((_, reason)) = OURS.iter().find(|(ours, _)| *ours == property) {
            let reason = format!("{property} is not to be set, because {reason}: remove it");
            return Err(ConfigError { name: name.into(), reason });
        }
        properties.push((property, value));
    }
    Ok(properties)
}

/// The content of a file, without the line end.
fn secret(setting: &str, file: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
        name: setting.to_owned().into(),
        reason: format!("cannot read {}: {error}", file.display()),
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A duration as `250ms`, `5s`, `15m` or `1h`.
///
/// # Errors
/// If the text is none of these.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a duration as 250ms, 5s, 15m or 1h"))
        .and_then(|duration| {
            if duration.is_zero() {
                Err("a duration must be longer than zero".into())
            } else {
                Ok(duration)
            }
        })
}

/// A lease. It is renewed after a quarter of it, and a shorter one would be lost in any pause.
fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration(text)?;
    if lease < SHORTEST_LEASE {
        Err("a lease is a second or longer: a replica that pauses for less must not lose it".into())
    } else {
        Ok(lease)
    }
}

fn hostname() -> String {
    let of_kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(of_kernel)
        .map_or_else(|| "replica".into(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn file(content: &str) -> PathBuf {
        let file = std::env::temp_dir().join(format!("reel-secret-{}", uuid::Uuid::now_v7()));
        std::fs::write(&file, content).expect("a file");
        file
    }

    #[test]
    fn settings_that_are_built_have_the_defaults_of_the_command_line() {
        #[derive(clap::Parser)]
        struct CommandLine {
            #[command(flatten)]
            settings: RunSettings,
        }
        let arguments = ["service", "--database-url", "postgres://db", "--brokers", "kafka:9092"];
        let parsed = <CommandLine as clap::Parser>::parse_from(arguments).settings;
        let built = RunSettings::new("postgres://db", "kafka:9092");
        assert_eq!(format!("{built:?}"), format!("{parsed:?}"));
    }

    #[test]
    fn properties_of_librdkafka_come_from_variables_and_from_files() {
        let password = file("secret\n");
        let variables = [
            ("RDKAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
            ("RDKAFKA_SASL_PASSWORD_FILE", password.to_str().expect("text")),
            ("KAFKA_BROKERS", "a:1"),
        ];
        let found =
            properties(variables.map(|(name, value)| (name.into(), value.into())).into_iter())
                .expect("properties");
        let expected = [("security.protocol", "SASL_SSL"), ("sasl.password", "secret")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        std::fs::remove_file(password).expect("it is there");
    }

    #[test]
    fn properties_on_which_the_laws_depend_are_refused_by_name() {
        for (variable, property) in [
            ("RDKAFKA_ACKS", "acks"),
            ("RDKAFKA_REQUEST_REQUIRED_ACKS", "request.required.acks"),
            ("RDKAFKA_AUTO_OFFSET_RESET", "auto.offset.reset"),
            ("RDKAFKA_BOOTSTRAP_SERVERS", "bootstrap.servers"),
        ] {
            let refused = properties([(variable.into(), "1".into())].into_iter());
            let refused = refused.expect_err(property).to_string();
            assert!(refused.contains(variable) && refused.contains(property), "{refused}");
        }
    }

    #[test]
    fn a_property_that_is_empty_is_not_set_and_one_that_is_no_text_is_refused() {
        let variable =
            |value: &[u8]| ("RDKAFKA_CLIENT_RACK".into(), OsString::from_vec(value.into()));
        assert_eq!(properties([variable(b"")].into_iter()).expect("none"), []);
        let refused = properties([variable(b"\xff")].into_iter()).expect_err("no text");
        assert!(refused.to_string().contains("RDKAFKA_CLIENT_RACK"), "{refused}");
    }

    #[test]
    fn a_lease_has_a_floor() {
        assert_eq!(lease("1s"), Ok(Duration::from_secs(1)));
        assert!(lease("900ms").expect_err("too short").contains("a second or longer"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_reported_with_the_setting_and_its_path() {
        let settings =
            DatabaseSettings { database_url: None, database_url_file: Some("/nowhere".into()) };
        let said = settings.url().expect_err("no file").to_string();
        assert!(said.contains("DATABASE_URL_FILE") && said.contains("/nowhere"), "{said}");
    }

    #[test]
    fn access_is_open_only_if_auth_is_off() {
        let settings = |auth, key: Option<&Path>| AccessSettings {
            token_key_file: key.map(Path::to_owned),
            token_audience: None,
            token_issuer: None,
            auth,
        };
        assert!(matches!(settings(Auth::Off, None).access(), Ok(Access::Open)));
        let said = |settings: AccessSettings| {
            settings.access().err().map(|bad| bad.to_string()).unwrap_or_default()
        };

        assert!(said(settings(Auth::On, None)).contains("AUTH=off"));
        let short = file("short\n");
        assert!(said(settings(Auth::On, Some(&short))).contains("5 bytes"));
        let long = file("a secret of more than thirty-two bytes\n");
        assert!(matches!(settings(Auth::On, Some(&long)).access(), Ok(Access::Tokens(_))));
        for file in [short, long] {
            std::fs::remove_file(file).expect("it is there");
        }
    }

    #[test]
    fn the_address_of_the_database_may_be_in_a_file() {
        let address = file("postgres://payment:secret@db/payment\n");
        let settings =
            DatabaseSettings { database_url: None, database_url_file: Some(address.clone()) };
        assert_eq!(settings.url().expect("a file"), "postgres://payment:secret@db/payment");
        std::fs::remove_file(address).expect("it is there");
    }
}
