//! The command line of each service: `run`, `migrate`, `topics`, `health`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sqlx::PgConnection;
use sqlx::migrate::MigrateError;
use tracing_subscriber::EnvFilter;

use super::serve::{self, ServeError};
use super::settings::{
    DatabaseSettings, HttpSettings, KafkaSettings, LogFormat, RunSettings, TopicSettings,
};
use super::{App, ConfigError, health};
use crate::database::{Database, ServerError, look_at_server};
use crate::kafka::Topics;
use crate::migrations;
use crate::model::{Event, Service};

/// The exit code if a setting is wrong or missing.
const EXIT_SETTING: u8 = 2;
/// Options that need no command.
const ABOUT_ITSELF: [&str; 4] = ["-h", "--help", "-V", "--version"];

/// A service of a choreographed saga, on Kafka and Postgres.
#[derive(Debug, Parser)]
#[command(version)]
struct Program<A: App> {
    #[command(subcommand)]
    command: Command<A>,
}

#[derive(Debug, Subcommand)]
enum Command<A: App> {
    /// Run the service (the default)
    Run(Box<Run<A>>),
    /// Create the tables of the database, or bring them up to date
    Migrate(DatabaseSettings),
    /// Create the topic of the service: a journal that keeps everything
    Topics {
        #[command(flatten)]
        kafka: KafkaSettings,
        #[command(flatten)]
        topics: TopicSettings,
    },
    /// Ask the service on this machine whether it takes commands, and exit with 1 if it does not.
    /// For the health checks of containers
    Health(HttpSettings),
}

#[derive(Debug, clap::Args)]
struct Run<A: App> {
    #[command(flatten)]
    toolkit: RunSettings,
    #[command(flatten)]
    service: A::Settings,
    /// Format of the log; its level is set by RUST_LOG
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    log_format: LogFormat,
}

/// Runs a service as a program: parses the command line, runs the command and returns the exit
/// code. A wrong setting is reported in one line and exits with 2.
#[must_use]
pub fn main<A: App>() -> ExitCode {
    let arguments = with_default_command(std::env::args_os().collect());
    let command = Program::<A>::command().name(<A::Service as Service>::NAME);
    if let Some(name) = variables(&command).find(|name| !is_text(name)) {
        return refuse(&format!("{name} is not UTF-8"));
    }
    let matches = without_empty_variables(command).try_get_matches_from(arguments);
    let program = match matches.and_then(|matches| Program::<A>::from_arg_matches(&matches)) {
        Ok(program) => program,
        Err(error) if error.use_stderr() => return refuse(&in_one_line(&error.to_string())),
        Err(help) => {
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };

    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };

    match program.command {
        Command::Run(run) => {
            log_as(run.log_format);
            raise_file_limit();
            match runtime.block_on(serve::serve::<A>(&run.toolkit, &run.service)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(ServeError::Setting(bad)) => refuse(&bad.to_string()),
                Err(error) => fail(&error),
            }
        }
        Command::Migrate(settings) => {
            log_as(LogFormat::Human);
            report(runtime.block_on(migrate_at::<A>(&settings)))
        }
        Command::Topics { kafka, topics } => {
            log_as(LogFormat::Human);
            report(runtime.block_on(create_topics::<A>(&kafka, &topics)))
        }
        Command::Health(settings) => match runtime
            .block_on(health::ask(settings.health_address.unwrap_or(settings.http_address)))
        {
            Ok(said) => {
                println!("{said}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error),
        },
    }
}

/// The environment variables that set something of a command or its subcommands, and what they are
/// besides.
fn variables(command: &clap::Command) -> impl Iterator<Item = String> {
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let of_arguments = commands.flat_map(clap::Command::get_arguments).filter_map(Arg::get_env);
    let of_arguments: Vec<String> =
        of_arguments.map(|name| name.to_string_lossy().into_owned()).collect();
    of_arguments.into_iter().chain(["RUST_LOG".to_owned()])
}

/// Whether a variable is text, or not set.
fn is_text(name: &str) -> bool {
    std::env::var_os(name).is_none_or(|value| value.to_str().is_some())
}

/// Has a variable that is set to nothing be as one that is not set, as compose files and charts
/// write it.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let unset_if_empty = |arg: Arg| {
        let is_empty = arg
            .get_env()
            .is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
        if is_empty { arg.env(Resettable::Reset) } else { arg }
    };
    command
        .mut_args(unset_if_empty)
        .mut_subcommands(move |subcommand| subcommand.mut_args(unset_if_empty))
}

/// Adds the command `run` if there is none.
fn with_default_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let first = arguments.get(1).and_then(|argument| argument.to_str());
    if first.is_none_or(|first| first.starts_with('-') && !ABOUT_ITSELF.contains(&first)) {
        arguments.insert(arguments.len().min(1), "run".into());
    }
    arguments
}

/// Creates the tables of a service, the toolkit's and its own, or brings them up to date.
///
/// # Errors
/// If the database is unreachable, a migration fails, or the database is newer than this binary.
pub async fn migrate<A: App>(connection: &mut PgConnection) -> Result<(), MigrateError> {
    migrations::run(connection, A::migrations()).await
}

async fn migrate_at<A: App>(settings: &DatabaseSettings) -> Result<(), ServeError> {
    let name = <A::Service as Service>::NAME;
    let database = Database::new(&settings.url()?, name, std::time::Duration::from_secs(60))
        .map_err(|error| bad_url(&error))?;
    let mut connection = database.connect().await?;
    look_and_migrate::<A>(&mut connection).await
}

/// Migrates a database, unless it is one that cannot be used.
pub(super) async fn look_and_migrate<A: App>(
    connection: &mut PgConnection,
) -> Result<(), ServeError> {
    match look_at_server(connection).await {
        Ok(_) => Ok(migrate::<A>(connection).await?),
        Err(ServerError::Database(error)) => Err(error.into()),
        Err(unusable) => Err(bad_database(&unusable).into()),
    }
}

async fn create_topics<A: App>(
    kafka: &KafkaSettings,
    topics: &TopicSettings,
) -> Result<(), ServeError> {
    let admin = Topics::new(kafka.kafka(<A::Service as Service>::NAME)?)
        .map_err(|error| bad_property(&error))?;
    let topic = <<A::Service as Service>::Event as Event>::TOPIC;
    let wanted = topics.partitions;
    let found = admin.create_journal(topic, wanted, topics.replication).await?;
    if found != wanted {
        eprintln!(
            "warning: topic {topic} exists with {found} partitions, not {wanted}, and is left as \
             it is: a service uses as many as its database was made for"
        );
    }
    Ok(())
}

pub(super) fn bad_url(error: &sqlx::Error) -> ConfigError {
    ConfigError {
        name: "DATABASE_URL".into(),
        reason: format!("{error}; write postgres://user:password@host:port/name"),
    }
}

pub(super) fn bad_database(unusable: &ServerError) -> ConfigError {
    ConfigError { name: "DATABASE_URL".into(), reason: unusable.to_string() }
}

pub(super) fn bad_property(error: &rdkafka::error::KafkaError) -> ConfigError {
    ConfigError { name: "RDKAFKA_… or KAFKA_BROKERS".into(), reason: error.to_string() }
}

/// Raises the limit of open files to what the process may have. Systems set the soft limit to 1,024
/// for programs that use `select`; here connections, Kafka clients and the database would share it.
fn raise_file_limit() {
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    let raised = limit.and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(error = %error, "the limit of open files stays as it is");
    }
}

fn log_as(format: LogFormat) {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|wanted| !wanted.is_empty());
    let filter = wanted.and_then(|wanted| EnvFilter::try_new(wanted).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new("info,librdkafka=off"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Human => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

fn report(result: Result<(), ServeError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(ServeError::Setting(bad)) => refuse(&bad.to_string()),
        Err(error) => fail(&error),
    }
}

fn refuse(reason: &str) -> ExitCode {
    eprintln!("error: {reason}");
    ExitCode::from(EXIT_SETTING)
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    eprintln!("error: {text}");
    ExitCode::FAILURE
}

/// The message of a clap error in one line, without the usage.
fn in_one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| {
        !line.starts_with("Usage:") && !line.starts_with("For more information")
    });
    let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_command_a_service_runs() {
        let completed =
            |arguments: &[&str]| with_default_command(arguments.iter().map(Into::into).collect());
        assert_eq!(completed(&["order"]), ["order", "run"]);
        assert_eq!(completed(&["order", "--lease", "5s"]), ["order", "run", "--lease", "5s"]);
        assert_eq!(completed(&["order", "migrate"]), ["order", "migrate"]);
        assert_eq!(completed(&["order", "--help"]), ["order", "--help"]);
    }
}
