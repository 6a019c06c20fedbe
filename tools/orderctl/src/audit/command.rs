//! `orderctl audit`: which system is audited, and what is printed.

use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, Result};
use reel::runtime::KafkaSettings;

use super::Sources;
use crate::system::{PerService, Service};
use crate::up;

/// Which system is audited; without any of these, the one that `orderctl up` started.
///
/// Any property of librdkafka is set by an environment variable with the prefix RDKAFKA_, as for
/// the services.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Bootstrap servers of Kafka
    #[arg(long, env = "KAFKA_BROKERS")]
    pub brokers: Option<String>,
    /// Prefix of every topic's name
    #[arg(long, env = "TOPIC_PREFIX", default_value = "")]
    pub topic_prefix: String,
    /// Address of a service's database, as `order=postgres://user:password@host:port/name`, once
    /// for each service. By default, that of the order service is in ORDER_DATABASE_URL, or in the
    /// file that ORDER_DATABASE_URL_FILE names, and so on
    #[arg(
        long = "database",
        value_name = "SERVICE=URL",
        requires = "brokers",
        value_parser = database
    )]
    pub databases: Vec<(Service, String)>,
}

/// Audits a system and prints the result; exit code 1 if the system is not ok.
///
/// # Errors
/// If no system is named and none runs, or Kafka or Postgres cannot be read.
pub async fn run(options: &Options) -> Result<ExitCode> {
    let sources = match options.sources()? {
        Some(sources) => sources,
        None => up::sources()?.context(
            "no system runs: name one with options (see --help), or start one with `orderctl up`",
        )?,
    };
    let audit = sources.audit().await?;
    if options.json {
        println!("{}", serde_json::to_string(&audit.figures)?);
    } else {
        print!("{audit}");
    }
    Ok(if audit.figures.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Options {
    fn sources(&self) -> Result<Option<Sources>> {
        let Some(brokers) = self.brokers.clone() else { return Ok(None) };
        let kafka = KafkaSettings::new(&brokers, &self.topic_prefix);
        let database = |service: Service| {
            let named = self.databases.iter().find(|(named, _)| *named == service);
            match named {
                Some((_, url)) => Ok(url.clone()),
                None => from_environment(service),
            }
        };
        Ok(Some(Sources {
            kafka: kafka.kafka("orderctl")?,
            databases: PerService::try_new(database)?,
        }))
    }
}

/// Reads the address in `ORDER_DATABASE_URL`, or in the file that `ORDER_DATABASE_URL_FILE` names.
fn from_environment(service: Service) -> Result<String> {
    let variable = format!("{}_DATABASE_URL", service.name().to_uppercase());
    if let Ok(url) = env::var(&variable) {
        return Ok(url);
    }
    let file = env::var_os(format!("{variable}_FILE")).with_context(|| {
        format!(
            "--brokers names a Kafka, so name the databases too: \
             --database {service}=... or {variable} is missing"
        )
    })?;
    let url = fs::read_to_string(&file);
    let url = url.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(url.trim_end().to_owned())
}

fn database(text: &str) -> Result<(Service, String), String> {
    let (name, url) = text.split_once('=').ok_or("write SERVICE=URL")?;
    Ok((Service::try_from(name.to_owned())?, url.to_owned()))
}
