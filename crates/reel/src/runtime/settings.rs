//! The settings that every service has. Their doc comments are the text of `--help`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::BadSetting;
use crate::http::{Access, Verifier};
use crate::kafka::Kafka;

/// What stands before the name of an environment variable that sets a property of librdkafka.
const PROPERTY_PREFIX: &str = "RDKAFKA_";
/// What stands behind it where the value is in a file.
const FILE_SUFFIX: &str = "_FILE";
/// Properties that begin so are themselves names of files.
const TAKES_FILES: &str = "SASL_OAUTHBEARER_ASSERTION_";

/// Where Postgres is.
#[derive(Debug, Clone, Args)]
pub struct DatabaseSettings {
    /// The service's own database, as `postgres://user:password@host:port/name`. TLS by `?sslmode=verify-full&sslrootcert=…`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, required_unless_present = "database_url_file")]
    database_url: Option<String>,
    /// A file that holds it, such as a mounted secret
    #[arg(long, env = "DATABASE_URL_FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,
}

/// Where Kafka is.
#[derive(Debug, Clone, Args)]
pub struct KafkaSettings {
    /// Kafka's bootstrap servers, as `host:port`, comma-separated. Any property of librdkafka is set by an environment
    /// variable with the prefix RDKAFKA_, as in RDKAFKA_SECURITY_PROTOCOL=SASL_SSL for security.protocol; with _FILE behind it, the
    /// value is read from a file, as in RDKAFKA_SASL_PASSWORD_FILE=/run/secrets/kafka
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
    /// On how many brokers each partition is kept. With 3 or more, an event counts as published when most of them have it: the topic's
    /// min.insync.replicas is half of them and one more. With fewer, that of the broker counts; without it, the broker's defaults for
    /// both
    #[arg(long, env = "REPLICATION", value_parser = clap::value_parser!(i32).range(1..))]
    pub replication: Option<i32>,
}

/// Where a service serves HTTP.
#[derive(Debug, Clone, Copy, Args)]
pub struct HttpSettings {
    /// Where HTTP is served; port 0 takes a free one, which the log tells
    #[arg(long, env = "HTTP_ADDRESS", default_value = "127.0.0.1:8080")]
    pub http_address: SocketAddr,
}

/// Who may ask over HTTP.
#[derive(Debug, Clone, Args)]
pub struct AccessSettings {
    /// A file with the key that signs the bearer tokens (JWT) of requests: a public Ed25519 key in PEM for EdDSA, or a secret of 32
    /// bytes or more for HS256
    #[arg(long, env = "TOKEN_KEY_FILE")]
    token_key_file: Option<PathBuf>,
    /// The audience that tokens must name; without it, those that name one are refused
    #[arg(long, env = "TOKEN_AUDIENCE")]
    token_audience: Option<String>,
    /// Whether requests need a token; with `off`, anybody who reaches the address may do anything
    #[arg(long, env = "AUTH", value_enum, default_value_t = Auth::On)]
    auth: Auth,
}

/// Whether requests need a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Auth {
    On,
    Off,
}

/// How a service runs.
#[derive(Debug, Clone, Args)]
pub struct RunSettings {
    #[command(flatten)]
    pub(crate) database: DatabaseSettings,
    #[command(flatten)]
    pub(crate) kafka: KafkaSettings,
    #[command(flatten)]
    pub(crate) http: HttpSettings,
    #[command(flatten)]
    pub(crate) access: AccessSettings,
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
    /// How many commands may wait in a replica, besides the batch at work, before further ones get 503
    #[arg(long, env = "COMMAND_LIMIT", default_value_t = 250)]
    pub command_limit: usize,
    /// How long a command may wait for its answer before it gets 503, as `10s`
    #[arg(long, env = "COMMAND_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub command_timeout: Duration,
    /// How many connections over HTTP a replica serves at a time; others get 503, but for health
    #[arg(long, env = "HTTP_CONNECTIONS", default_value_t = 1_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub http_connections: usize,
    /// How many requests may wait for something to happen at a time (streams, `Prefer: wait`), less than there are connections
    #[arg(long, env = "WAITING_LIMIT", default_value_t = 500)]
    pub waiting_limit: usize,
    /// How many connections to the database a replica holds for queries of clients, which so delay no step
    #[arg(long, env = "QUERY_CONNECTIONS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub query_connections: u32,
    /// How many connections to the database a replica holds for its work
    #[arg(long, env = "CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(4..=1_000))]
    pub connections: u32,
    /// Answer commands before their commits are on the disk. Faster; when the database's server crashes, commands that were answered in
    /// the last moments (three times wal_writer_delay, 0.6 s) and not published yet are gone. Nothing else is lost or done twice
    #[arg(long, env = "ASYNC_COMMIT")]
    pub async_commit: bool,
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

impl DatabaseSettings {
    /// The address, from where it stands.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn url(&self) -> Result<String, BadSetting> {
        match &self.database_url_file {
            Some(file) => secret("DATABASE_URL_FILE", file),
            None => Ok(self.database_url.clone().unwrap_or_default()),
        }
    }
}

impl AccessSettings {
    /// Whom the edge lets in.
    pub(crate) fn access(&self) -> Result<Access, BadSetting> {
        if self.auth == Auth::Off {
            return Ok(Access::Open);
        }
        let bad = |reason| BadSetting { name: "TOKEN_KEY_FILE".into(), reason };
        let file = self.token_key_file.as_deref();
        let file =
            file.ok_or_else(|| bad("it must name the file with the key of bearer tokens; AUTH=off lets anybody in instead".into()))?;
        let verifier = Verifier::new(&secret("TOKEN_KEY_FILE", file)?, self.token_audience.as_deref());
        let verifier = verifier.map_err(|reason| bad(format!("cannot use {}: {reason}", file.display())))?;
        Ok(Access::Tokens(Arc::new(verifier)))
    }
}

impl KafkaSettings {
    /// How the clients of the service `group` reach Kafka.
    ///
    /// # Errors
    /// Where a file that holds a property cannot be read.
    pub fn kafka(&self, group: &str) -> Result<Kafka, BadSetting> {
        Ok(Kafka {
            brokers: self.brokers.clone(),
            group: format!("{}{group}", self.topic_prefix),
            prefix: self.topic_prefix.clone(),
            properties: properties(std::env::vars())?,
        })
    }
}

/// The properties of librdkafka that environment variables set.
fn properties(variables: impl Iterator<Item = (String, String)>) -> Result<Vec<(String, String)>, BadSetting> {
    let mut properties = Vec::new();
    for (name, value) in variables {
        let Some(property) = name.strip_prefix(PROPERTY_PREFIX) else { continue };
        let of_file = property.strip_suffix(FILE_SUFFIX).filter(|_| !property.starts_with(TAKES_FILES));
        let (property, value) = match of_file {
            Some(property) => (property, secret(&name, Path::new(&value))?),
            None => (property, value),
        };
        properties.push((property.to_lowercase().replace('_', "."), value));
    }
    Ok(properties)
}

/// What a file holds, without the end of its line.
fn secret(setting: &str, file: &Path) -> Result<String, BadSetting> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| BadSetting { name: setting.to_owned().into(), reason: format!("cannot read {}: {error}", file.display()) })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> PathBuf {
        let file = std::env::temp_dir().join(format!("reel-secret-{}", uuid::Uuid::now_v7()));
        std::fs::write(&file, content).expect("a file");
        file
    }

    #[test]
    fn properties_of_librdkafka_come_from_variables_and_from_files() {
        let password = file("secret\n");
        let variables = [
            ("RDKAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
            ("RDKAFKA_SASL_PASSWORD_FILE", password.to_str().expect("text")),
            ("KAFKA_BROKERS", "a:1"),
        ];
        let found = properties(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter()).expect("properties");
        let expected = [("security.protocol", "SASL_SSL"), ("sasl.password", "secret")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        std::fs::remove_file(password).expect("it is there");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_with_the_setting_and_its_path() {
        let settings = DatabaseSettings { database_url: None, database_url_file: Some("/nowhere".into()) };
        let said = settings.url().expect_err("no file").to_string();
        assert!(said.contains("DATABASE_URL_FILE") && said.contains("/nowhere"), "{said}");
    }

    #[test]
    fn access_is_open_only_if_that_is_said() {
        let settings = |auth, key: Option<&Path>| AccessSettings { token_key_file: key.map(Path::to_owned), token_audience: None, auth };
        assert!(matches!(settings(Auth::Off, None).access(), Ok(Access::Open)));
        let said = |settings: AccessSettings| settings.access().err().map(|bad| bad.to_string()).unwrap_or_default();
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
    fn the_address_of_the_database_may_stand_in_a_file() {
        let address = file("postgres://payment:secret@db/payment\n");
        let settings = DatabaseSettings { database_url: None, database_url_file: Some(address.clone()) };
        assert_eq!(settings.url().expect("a file"), "postgres://payment:secret@db/payment");
        std::fs::remove_file(address).expect("it is there");
    }
}
