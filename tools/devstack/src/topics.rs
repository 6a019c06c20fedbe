//! Topics of tests that share one broker, isolated by a prefix.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;

const LIMIT: Duration = Duration::from_secs(10);

/// A short unique prefix for the names of topics, such as `tkqxwmrqz-`.
pub fn unique_prefix() -> String {
    let tail: String = (0..8).map(|_| fastrand::char('a'..='z')).collect();
    format!("t{tail}-")
}

/// Deletes all topics whose names begin with `prefix`, and returns their number.
///
/// # Errors
/// If the prefix is empty, the broker does not answer within 10 seconds, or it refuses.
pub async fn delete_with_prefix(bootstrap: &str, prefix: &str) -> Result<usize> {
    anyhow::ensure!(!prefix.is_empty(), "an empty prefix would delete all topics");
    let admin = admin(bootstrap)?;
    let names = names(bootstrap, prefix).await?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    if names.is_empty() {
        return Ok(0);
    }

    let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
    for result in admin.delete_topics(&names, &options).await? {
        result.map_err(|(topic, code)| anyhow::anyhow!("cannot delete topic {topic}: {code}"))?;
    }
    Ok(names.len())
}

/// Sets a property of a topic and resets all others to the defaults of the broker.
///
/// # Errors
/// If the broker does not answer within 10 seconds, or refuses.
pub async fn configure(bootstrap: &str, topic: &str, property: &str, value: &str) -> Result<()> {
    let config = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(property, value);
    let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
    for result in admin(bootstrap)?.alter_configs([&config], &options).await? {
        result.map_err(|(_, code)| {
            anyhow::anyhow!("cannot set {property} of topic {topic}: {code}")
        })?;
    }
    Ok(())
}

/// Gives a topic more partitions, as `kafka-topics --alter` does: `count` in all.
///
/// # Errors
/// If the broker does not answer within 10 seconds, or refuses.
pub async fn add_partitions(bootstrap: &str, topic: &str, count: usize) -> Result<()> {
    let more = NewPartitions::new(topic, count);
    let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
    for result in admin(bootstrap)?.create_partitions([&more], &options).await? {
        result
            .map_err(|(topic, code)| anyhow::anyhow!("no more partitions for {topic}: {code}"))?;
    }
    Ok(())
}

/// The topics whose names begin with `prefix`.
///
/// # Errors
/// If the broker does not answer within 10 seconds.
pub async fn names(bootstrap: &str, prefix: &str) -> Result<Vec<String>> {
    let (admin, prefix) = (admin(bootstrap)?, prefix.to_owned());
    let names = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, LIMIT)?;
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        anyhow::Ok(names.filter(|name| name.starts_with(&prefix)).collect())
    });
    names.await?.with_context(|| format!("kafka is unreachable at {bootstrap}"))
}

/// Checks whether a topic could be created, without creating it: the last thing that a starting
/// broker becomes able to do.
pub(crate) async fn could_be_created(bootstrap: &str) -> Result<()> {
    let limit = Duration::from_secs(3);
    let options = AdminOptions::new()
        .request_timeout(Some(limit))
        .operation_timeout(Some(limit))
        .validate_only(true);
    let name = unique_prefix();
    let topic = NewTopic::new(&name, 1, TopicReplication::Fixed(1));
    for result in admin(bootstrap)?.create_topics([&topic], &options).await? {
        if let Err((_, code)) = result {
            bail!("cannot create topics: {code}");
        }
    }
    Ok(())
}

pub(crate) fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200");
    config.set_log_level(RDKafkaLogLevel::Emerg); // a broker that is not up yet is no error
    Ok(config.create()?)
}
