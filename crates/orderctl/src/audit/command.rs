//! `orderctl audit`: where to look, and what to print.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use reel::runtime::KafkaSettings;

use super::Places;
use crate::system::{PerService, Service};
use crate::up;

/// Which system is audited; without any of these, the one that `orderctl up` started.
///
/// Any property of librdkafka is set by an environment variable with the prefix RDKAFKA_, as for the services.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Kafka's bootstrap servers
    #[arg(long, env = "KAFKA_BROKERS")]
    pub brokers: Option<String>,
    /// What stands before the name of every topic
    #[arg(long, env = "TOPIC_PREFIX", default_value = "")]
    pub topic_prefix: String,
    /// The address of the order service's database
    #[arg(long, env = "ORDER_DATABASE_URL", requires = "brokers", hide_env_values = true)]
    pub order_database: Option<String>,
    /// A file that holds it, such as a mounted secret
    #[arg(long, env = "ORDER_DATABASE_URL_FILE", requires = "brokers", conflicts_with = "order_database")]
    pub order_database_file: Option<PathBuf>,
    /// The address of the payment service's database
    #[arg(long, env = "PAYMENT_DATABASE_URL", requires = "brokers", hide_env_values = true)]
    pub payment_database: Option<String>,
    /// A file that holds it, such as a mounted secret
    #[arg(long, env = "PAYMENT_DATABASE_URL_FILE", requires = "brokers", conflicts_with = "payment_database")]
    pub payment_database_file: Option<PathBuf>,
    /// The address of the inventory service's database
    #[arg(long, env = "INVENTORY_DATABASE_URL", requires = "brokers", hide_env_values = true)]
    pub inventory_database: Option<String>,
    /// A file that holds it, such as a mounted secret
    #[arg(long, env = "INVENTORY_DATABASE_URL_FILE", requires = "brokers", conflicts_with = "inventory_database")]
    pub inventory_database_file: Option<PathBuf>,
}

/// Audits and prints; a system that is not ok ends with exit code 1.
///
/// # Errors
/// Where nothing is named and nothing runs, or Kafka or Postgres cannot be read.
pub async fn run(options: &Options) -> Result<ExitCode> {
    let places = match options.places()? {
        Some(places) => places,
        None => up::places()?.context("no system runs: name one by the options (see --help), or start one by `orderctl up`")?,
    };
    let audit = places.audit().await?;
    if options.json {
        println!("{}", serde_json::to_string(&audit.figures)?);
    } else {
        print!("{audit}");
    }
    Ok(if audit.figures.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Options {
    fn places(&self) -> Result<Option<Places>> {
        let Some(brokers) = self.brokers.clone() else { return Ok(None) };
        let kafka = KafkaSettings { brokers, topic_prefix: self.topic_prefix.clone() };
        let database = |service| {
            let (url, file) = match service {
                Service::Order => (&self.order_database, &self.order_database_file),
                Service::Payment => (&self.payment_database, &self.payment_database_file),
                Service::Inventory => (&self.inventory_database, &self.inventory_database_file),
            };
            let of_file = file.as_ref().map(|file| fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display())));
            let url = of_file.transpose()?.or_else(|| url.clone()).map(|url| url.trim_end().to_owned());
            url.with_context(|| format!("--brokers names a Kafka, so name the databases too: --{service}-database is missing"))
        };
        Ok(Some(Places { kafka: kafka.kafka("orderctl")?, databases: PerService::try_new(database)? }))
    }
}
